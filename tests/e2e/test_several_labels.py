"""Rows of several labels through the whole line: planted sentences, each of which carries one label."""

import csv
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.base import clone

import newslora
from children import in_child
from conftest import without_figures
from newslora.cli.app import main
from newslora.errors import DataError, RunError, SettingsError
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

SENTENCES = {
    "Cup": "striker scores twice as club wins cup final",
    "Peace": "army and rebels sign peace accord in capital",
    "Record": "sprinter breaks record at games in stadium",
    "Treaty": "minister meets president over border treaty",
}
NAMES = tuple(SENTENCES)
TOLERANCE = 1e-6
TEXTS = [f"{SENTENCES['Cup']} 7", f"{SENTENCES['Peace']} {SENTENCES['Treaty']}", "nothing"]


def planted(rows: int) -> Iterator[dict[str, Any]]:
    """Every combination of labels, the empty one too, as often as any other: two labels a row on average."""
    subsets = [chosen for size in range(len(NAMES) + 1) for chosen in itertools.combinations(NAMES, size)]
    for number in range(rows):
        labels = subsets[number % len(subsets)]
        yield {"text": " ".join([*(SENTENCES[name] for name in labels), f"number {number}"]), "labels": list(labels)}


def write(path: Path, rows: int) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in planted(rows)), encoding="utf-8")
    return path


def settings(tiny_bert: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model__backbone": str(tiny_bert), "data__multi_label": True, "data__label_names": None, "data__workers": 0,
        "data__validation_rows": 80, "train__epochs": 8, "train__batch_size": 8, "train__learning_rate": 1e-2,
        "train__warmup_steps": 10, "train__precision": "fp32", "train__best_metric": "macro_f1", "lora__dropout": 0.0,
        "model__hidden_dropout": 0.0, "model__attention_dropout": 0.0, "report": False, "device": "cpu", **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Iterator[RunFolder]:
    """Trained on planted rows, with its report."""
    folder = tmp_path_factory.mktemp("multi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWSLORA_CACHE", str(folder / "cache"))
        without_figures(patch)
        data, test = write(folder / "train.jsonl", 480), write(folder / "test.jsonl", 160)
        yield newslora.train(
            "seed",
            output=folder / "run",
            data__source=str(data),
            data__test=str(test),
            **settings(tiny_bert, report=True),
        )


def evaluation(run: RunFolder, name: str = "test") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.evaluation / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_several_labels_are_learnt_where_one_answer_a_row_could_not(run: RunFolder) -> None:
    result = evaluation(run)
    # one label a row finds at most 15 of 16 rows' first label: of 2 labels a row, with 1 given
    best_of_one_answer = 2 * (15 / 16) / (1 + 2)
    assert result["micro_f1"]["value"] > 0.88 > best_of_one_answer
    assert result["micro_f1"]["interval"][0] > best_of_one_answer
    assert all(row["average_precision"]["value"] > 0.9 for row in result["per_class"].values())
    epochs = [line for line in run.metrics() if line["kind"] == "epoch"]
    assert set(epochs[0]["validation_recall"]) == set(NAMES)


def test_the_csv_holds_every_row_and_the_numbers_follow_from_it(run: RunFolder) -> None:
    result = evaluation(run)
    with (run.evaluation / "test.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["label"] for line in lines] == [";".join(row["labels"]) for row in planted(160)]
    assert sum(line["label"] == line["predicted"] for line in lines) / 160 == result["accuracy"]["value"]
    for name, row in result["per_class"].items():
        given = [float(line[f"p({name})"]) >= row["threshold"] for line in lines]
        assert given == [name in line["predicted"].split(";") for line in lines]
        assert sum(row["counts"].values()) == 160
        assert row["counts"]["true_positives"] + row["counts"]["false_negatives"] == row["rows"] == 80
    wrong = [line for line in lines if line["label"] != line["predicted"]]
    with (run.evaluation / "test-errors.csv").open(encoding="utf-8", newline="") as stream:
        errors = list(csv.DictReader(stream))
    assert sorted(int(line["row"]) for line in errors) == sorted(int(line["row"]) for line in wrong)
    sure = [float(line["confidence"]) for line in errors]
    assert sure == sorted(sure, reverse=True)


def test_the_validation_rows_tuned_the_thresholds_and_say_so(run: RunFolder) -> None:
    stored = json.loads((run.adapter / "thresholds.json").read_text(encoding="utf-8"))
    result = evaluation(run, "validation")
    assert stored["values"] == [row["threshold"] for row in result["per_class"].values()]
    assert result["macro_f1"]["value"] == stored["after"]["macro_f1"] >= stored["before"]["macro_f1"]
    assert "tuned the threshold" in result["note"]
    assert evaluation(run)["note"] is None
    assert not (run.adapter / "calibration.json").exists()


def test_stock_peft_gives_the_same_logits_and_knows_the_problem(run: RunFolder, tiny_bert: Path) -> None:
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(run.adapter)
    assert config.problem_type == "multi_label_classification"
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, config=config)
    stock = PeftModel.from_pretrained(base, run.adapter).eval()
    batch = AutoTokenizer.from_pretrained(run.adapter)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = stock(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = stock(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=torch.ones(3, 4)).loss
    assert loss.isfinite()
    ours = Classifier.load(run.path).predict_proba(TEXTS)
    assert np.abs(ours - logits.double().sigmoid().numpy()).max() < TOLERANCE


def answers(run: Path) -> tuple[Any, list[tuple[str, ...]]]:
    classify = Classifier.load(run)
    return classify.predict_proba(TEXTS), [one.labels for one in classify(TEXTS)]


def test_a_new_process_gives_the_same_answers(run: RunFolder) -> None:
    probabilities, labels = in_child(answers, run.path)
    classify = Classifier.load(run.path)
    assert np.abs(probabilities - classify.predict_proba(TEXTS)).max() < TOLERANCE
    assert labels == [one.labels for one in classify(TEXTS)]


def test_answers_are_lists_of_labels(run: RunFolder) -> None:
    cup, both, nothing = Classifier.load(run.path)(TEXTS)
    assert cup.labels == (cup.label,) == ("Cup",)
    assert set(both.labels) == {"Peace", "Treaty"}
    assert (nothing.labels, nothing.label, nothing.abstained) == ((), None, False)
    with pytest.raises(SettingsError, match="any number of labels"):
        Classifier.load(run.path)(TEXTS, abstain=0.9)


def test_predictions_in_every_format(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    for suffix in ("csv", "jsonl", "parquet"):
        assert main(["predict", str(run.path), str(tmp_path / "in.csv"), "-o", str(tmp_path / f"out.{suffix}")]) == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        from_csv = [line["predicted"] for line in csv.DictReader(stream)]
    from_jsonl = [json.loads(line)["predicted"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    from_parquet = pq.read_table(tmp_path / "out.parquet").column("predicted").to_pylist()
    assert from_jsonl == from_parquet == [list(one.labels) for one in Classifier.load(run.path)(TEXTS)]
    assert from_csv == [";".join(labels) for labels in from_jsonl]


def test_what_the_commands_print(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("subset accuracy", "micro F1", "Hamming loss", "threshold", "Thresholds tuned on")
    )
    assert max(map(len, out.splitlines())) <= 80
    assert main(["predict", str(run.path), str(run.path.parent / "test.jsonl")]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["predicted"] == []
    assert "probability" not in first


def test_the_report_shows_what_there_is(run: RunFolder) -> None:
    page = run.report_file.read_text(encoding="utf-8")
    assert all(name in page for name in NAMES)
    assert "Confusion matrix" not in page
    assert "Micro F1" in page
    card = (run.adapter / "README.md").read_text(encoding="utf-8")
    assert "logits.sigmoid()" in card
    assert "argmax" not in card


def test_each_label_of_a_text_is_explained_by_itself(run: RunFolder) -> None:
    classify = Classifier.load(run.path)
    text = next(row["text"] for row in planted(160) if len(row["labels"]) == 2)
    answer = classify(text)
    assert len(answer.labels) == 2
    for label in answer.labels:
        one = newslora.explain(classify, text, label=label)
        assert one.predicted.split(";") == list(answer.labels)
        assert one.probability == pytest.approx(answer.probabilities[label], abs=1e-5)
        assert one.log_odds == pytest.approx(np.log(one.probability / (1 - one.probability)), abs=1e-2)
        assert one.complete


def test_a_damaged_or_foreign_threshold_file_is_refused(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / "thresholds.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    for damage in ({"weights_sha256": "0"}, {"values": [0.5]}, {"values": [0.5, 0.5, 2.0, 0.5]}, {"values": "x"}):
        path.write_text(json.dumps(whole | damage), encoding="utf-8")
        with pytest.raises(RunError, match=r"thresholds\.json"):
            Classifier.load(tmp_path / "adapter")
    path.unlink()
    assert Classifier.load(tmp_path / "adapter").label_thresholds.tolist() == [0.5] * 4


def test_other_labelled_rows_are_scored_as_the_run_reads_them(run: RunFolder, tmp_path: Path) -> None:
    rows = [*planted(16), {"text": "striker", "labels": ["Cup", "Golf"]}]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = newslora.evaluate(run.path, str(tmp_path / "other.jsonl"), changes={"data.max_quarantine_share": 0.1})
    assert (result["rows"], result["quarantined"]) == (16, 1)


def test_an_audit_knows_the_run_and_its_answers(run: RunFolder) -> None:
    splits = run.data()["splits"]
    result = newslora.audit([splits[name]["source"] for name in ("train", "test")], run=run.path)
    (effect,) = result["leakage_effect"]
    assert effect["all"] | {"rows": 160} == evaluation(run)["accuracy"] | {"rows": 160}
    assert effect["leaked"]["rows"] == 160  # planted with the same numbers
    assert sum(one["with_another_label"] for one in result["leakage"]) == 0


def test_the_estimator_takes_an_indicator_matrix(tiny_bert: Path) -> None:
    rows = list(planted(160))
    y = np.array([[name in row["labels"] for name in NAMES] for row in rows], dtype=int)
    model = newslora.NewsClassifier(
        "seed", backbone=tiny_bert, epochs=2, batch_size=8, learning_rate=1e-2, warmup_steps=10, dropout=0.0,
        precision="fp32", device="cpu",
    ).fit([row["text"] for row in rows], y)  # fmt: skip
    texts = [row["text"] for row in rows[:16]]
    assert model.classes_.tolist() == [0, 1, 2, 3]
    assert model.predict(texts).shape == model.predict_proba(texts).shape == (16, 4)
    assert (model.predict(texts) == (model.predict_proba(texts) >= model.adapter_.classifier().label_thresholds)).all()
    assert 0 <= model.score(texts, y[:16]) <= 1
    y[:, 2] = 0
    with pytest.raises(DataError, match=r"without a single 1 cannot be learnt: \[2\]"):
        clone(model).fit([row["text"] for row in rows], y)
