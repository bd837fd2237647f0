"""evaluate and predict as a person types them, on a run with enough validation rows to abstain by."""

import csv
import io
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.numpy import load_file

import newslora
from conftest import without_figures
from newslora.cli.app import main
from newslora.cli.evaluation_tables import evaluation_tables
from newslora.errors import SettingsError
from newslora.metrics.basic import softmax
from newslora.metrics.calibration import calibration_numbers

WORDS = {
    "World": ["minister", "president", "border", "treaty", "army", "rebels", "peace", "accord", "capital"],
    "Sports": ["striker", "club", "cup", "final", "sprinter", "record", "games", "stadium", "scores"],
}
NOISE = 0.15  # share of rows whose label is drawn anew, so that some are wrong and no answer is certain


def write_news(path: Path, rows: int, seed: int) -> None:
    """Rows of five words; the agency 'Weak' draws its words from both labels."""
    generator = random.Random(seed)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["text", "label", "agency"])
        for number in range(rows):
            label = generator.choice(list(WORDS))
            agency = ("Strong", "Weak", "Other")[number % 3]
            words = WORDS[label] if agency != "Weak" else WORDS["World"] + WORDS["Sports"]
            if generator.random() < NOISE:
                label = generator.choice(list(WORDS))
            table.writerow([" ".join(generator.choices(words, k=5)), label, agency])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    for name, rows in (("train", 300), ("validation", 120), ("test", 150)):
        write_news(folder / f"{name}.csv", rows, seed=rows)
    os.environ["NEWSLORA_CACHE"] = str(folder / "cache")
    settings = {
        "train.epochs": 4, "train.batch_size": 16, "train.learning_rate": 1e-2, "train.warmup_steps": 2,
        "data.workers": 0, "train.precision": "fp32", "data.validation": folder / "validation.csv",
        "data.test": folder / "test.csv",
    }  # fmt: skip
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    data = ["--data", str(folder / "train.csv"), "--backbone", str(tiny_bert)]
    with pytest.MonkeyPatch.context() as patch:
        without_figures(patch)
        assert main(["train", "seed", *data, "-o", str(folder / "run"), *flags]) == 0
    return folder / "run"


def stored(run: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "evaluation" / f"{name}.json").read_text())
    return value


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_run_learnt_something_and_not_everything(run: Path) -> None:
    assert 0.6 < stored(run, "test")["accuracy"]["value"] < 0.97


def test_the_json_says_what_the_rows_say(run: Path) -> None:
    result, lines = stored(run, "test"), read_csv(run / "evaluation" / "test.csv")
    probabilities = np.array([[float(line[f"p({name})"]) for name in result["labels"]] for line in lines])
    truth = np.array([result["labels"].index(line["label"]) for line in lines])
    own = probabilities[np.arange(len(truth)), truth]
    assert result["log_loss"]["value"] == pytest.approx(-np.log(own).mean(), abs=1e-4)
    assert result["confidence"]["value"] == pytest.approx(probabilities.max(axis=1).mean(), abs=1e-5)
    for one in result["accuracy_by"]:
        assert sum(group["rows"] for group in one["groups"]) == 150
    assert [one["by"] for one in result["accuracy_by"]] == ["confidence", "length", "agency"]


def test_errors_are_the_wrong_rows_the_surest_first(run: Path) -> None:
    result, lines = stored(run, "test"), read_csv(run / "evaluation" / "test.csv")
    wrong = {int(line["row"]): line for line in lines if line["label"] != line["predicted"]}
    errors = read_csv(run / "evaluation" / "test-errors.csv")
    assert {int(line["row"]) for line in errors} == set(wrong)
    sure = [float(line["confidence"]) for line in errors]
    assert sure == sorted(sure, reverse=True)
    assert [error["row"] for error in result["errors"]] == [int(line["row"]) for line in errors[:50]]
    first = result["errors"][0]
    line = wrong[first["row"]]
    assert (first["text"], first["label"], first["predicted"]) == (line["text"], line["label"], line["predicted"])
    assert first["probability"] == pytest.approx(float(line[f"p({line['label']})"]), abs=1e-6)


def test_a_weak_source_is_found_without_being_asked_for(run: Path) -> None:
    groups = {group["name"]: group["accuracy"] for group in stored(run, "test")["accuracy_by"][2]["groups"]}
    assert groups["Weak"]["interval"][1] < groups["Strong"]["value"]


def test_validation_rows_are_named_for_all_they_did(run: Path) -> None:
    validation, test = stored(run, "validation"), stored(run, "test")
    assert "chose the kept epoch" in validation["note"]
    assert "fitted the temperature" in validation["note"]
    assert test["note"] is None
    source = run.parent / "train.csv"
    assert main(["evaluate", str(run), "--data", str(source)]) == 0
    train = stored(run, "train")
    assert train["trained"]
    assert train["note"].startswith("These rows trained the classifier")
    assert not train["chose_the_epoch"]
    again = newslora.evaluate(run, run.parent / "validation.csv")
    assert (again["chose_the_epoch"], again["trained"], again["note"]) == (True, False, validation["note"])


def test_text_is_taken_as_in_training_and_other_columns_are_told_of(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = read_csv(run.parent / "test.csv")[:30]
    rows = {
        "same": [{"title": "Noise", "text": one["text"], "label": one["label"]} for one in lines],
        "other": [{"title": one["text"], "body": "Noise", "label": one["label"]} for one in lines],
    }
    for name, some in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    same = newslora.evaluate(run, str(tmp_path / "same.jsonl"))
    assert (same["text_columns"], same["note"]) == (["text"], None)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(tmp_path / "other.jsonl")]) == 0
    told = "The text is taken from title + body; the classifier was trained on text."
    assert told in " ".join(capsys.readouterr().out.split())
    assert stored(run, "other")["note"] == told


def test_a_result_spares_the_rows_it_is_of(run: Path) -> None:
    rows = run / "evaluation" / "mine.csv"
    rows.write_bytes((run.parent / "test.csv").read_bytes())
    with pytest.raises(SettingsError, match=r"mine\.csv' is the input"):
        newslora.evaluate(run, str(rows))
    assert rows.read_bytes() == (run.parent / "test.csv").read_bytes()
    rows.unlink()


def test_the_temperature_is_kept_used_and_changes_no_answer(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "adapter" / "calibration.json").read_text())
    classifier = newslora.Classifier.load(run)
    assert classifier.temperature == record["temperature"] != 1
    texts = [line["text"] for line in read_csv(run / "evaluation" / "test.csv")]
    logits = classifier.logits(classifier.rows(texts))
    assert np.array_equal(classifier.predict_proba(texts), softmax(logits, record["temperature"]))
    kept = load_file(run / "adapter" / "calibration.safetensors")
    validation = read_csv(run / "evaluation" / "validation.csv")
    again = classifier.logits(classifier.rows([line["text"] for line in validation]))
    assert np.array_equal(again, kept["logits"])
    calibration = stored(run, "test")["calibration"]
    assert (calibration["temperature"], calibration["validation_rows"]) == (record["temperature"], 120)
    truth = np.array([classifier.labels.index(line["label"]) for line in read_csv(run / "evaluation" / "test.csv")])
    before, after = (calibration_numbers(truth, softmax(logits, one)) for one in (1.0, record["temperature"]))
    assert {name: calibration["before"][name] for name in before} == pytest.approx(before)
    assert calibration["after"] == pytest.approx(after) != before
    shown = calibration["before"]["reliability"]["bins"]
    assert np.average([one["confidence"] for one in shown], weights=[one["rows"] for one in shown]) == pytest.approx(
        before["confidence"]
    )

    older = tmp_path / "older"  # a run from before newslora calibrated
    shutil.copytree(run / "adapter", older)
    (older / "calibration.json").unlink()
    before = newslora.Classifier.load(older)
    assert before.temperature == 1
    assert np.array_equal(before.predict_proba(texts), softmax(logits))
    assert [one.label for one in before(texts)] == [one.label for one in classifier(texts)]
    with pytest.raises(SettingsError, match="holds no validation rows to abstain by"):
        before(texts, abstain=0.9)


@pytest.mark.usefixtures("no_figures")
def test_no_temperature_when_told_so(run: Path, tmp_path: Path, tiny_bert: Path) -> None:
    data = ["--data", str(run.parent / "validation.csv"), "--backbone", str(tiny_bert)]
    flags = ["data.workers=0", "train.epochs=1", "data.validation_rows=20", "evaluation.calibrate=false"]
    sets = [part for flag in flags for part in ("--set", flag)]
    assert main(["train", "seed", *data, "-o", str(tmp_path / "run"), *sets]) == 0
    assert newslora.Classifier.load(tmp_path / "run").temperature == 1
    assert "evaluation.calibrate is false" in stored(tmp_path / "run", "validation")["calibration"]["reason"]


@pytest.mark.usefixtures("no_figures")
def test_validation_on_the_training_rows_calibrates_nothing(run: Path, tmp_path: Path, tiny_bert: Path) -> None:
    source = str(run.parent / "validation.csv")
    sets = ["--set", "data.workers=0", "--set", "train.epochs=1"]
    data = ["--data", source, "--validation", source, "--backbone", str(tiny_bert)]
    assert main(["train", "seed", *data, "-o", str(tmp_path / "run"), *sets]) == 0
    assert not (tmp_path / "run" / "adapter" / "calibration.json").exists()
    assert "These rows trained the classifier" in stored(tmp_path / "run", "validation")["note"]


def test_abstaining_comes_to_what_evaluate_says(run: Path) -> None:
    pytest.importorskip("mapie")
    lines = read_csv(run / "evaluation" / "test.csv")
    answers = newslora.Classifier.load(run)([line["text"] for line in lines], abstain=0.95)
    for answer in answers:
        assert answer.answer_set is not None
        assert answer.abstained is (len(answer.answer_set) != 1)
        assert answer.label == (None if answer.abstained else answer.answer_set[0])
        shares = [answer.probabilities[label] for label in answer.answer_set]
        assert shares == sorted(shares, reverse=True)
    level = {one["level"]: one for one in stored(run, "test")["abstention"]["levels"]}[0.95]
    right = [line["label"] in (answer.answer_set or ()) for line, answer in zip(lines, answers, strict=True)]
    decided = [answer.label == line["label"] for line, answer in zip(lines, answers, strict=True) if answer.label]
    assert level["coverage"]["value"] == pytest.approx(np.mean(right))
    assert level["answered"]["value"] == pytest.approx(len(decided) / 150)
    assert level["mean_set_size"] == pytest.approx(np.mean([len(answer.answer_set or ()) for answer in answers]))
    assert level["accuracy_of_answered"]["value"] == pytest.approx(np.mean(decided))
    assert 0 < len(decided) < 150  # the case occurred both ways


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predict_tells_sets_likeliest_labels_and_probabilities(run: Path, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("mapie")
    source, output = tmp_path / "in.csv", tmp_path / f"out{suffix}"
    texts = ["striker club cup final", "striker minister cup treaty", " ", *["minister border treaty"] * 1500]
    source.write_text("text,abstained\n" + "".join(f"{text},old\n" for text in texts))
    flags = ["--abstain", "0.95", "--top-k", "2", "--probabilities"]
    assert main(["predict", str(run), str(source), "-o", str(output), *flags]) == 0
    found: list[dict[str, Any]]
    if suffix == ".parquet":
        found = pq.read_table(output).to_pylist()
    elif suffix == ".jsonl":
        found = [json.loads(line) for line in output.read_text().splitlines()]
    else:
        raw = read_csv(output)
        found = [{key: value or None for key, value in row.items()} for row in raw]
        for row in found:
            row |= {key: json.loads(row[key]) if row[key] else None for key in ("answer_set", "abstained")}
            row |= {key: float(value) for key, value in row.items() if value and ("probability" in key or "p(" in key)}
    assert [(row["text"] or "").strip() for row in found] == [text.strip() for text in texts]
    assert found[2]["error"] == "empty text"
    assert {found[2][key] for key in ("predicted", "abstained", "answer_set", "top_1", "p(World)")} == {None}
    for row, answer in zip(found[:2], newslora.Classifier.load(run)(texts[:2], abstain=0.95), strict=True):
        assert row["predicted"] == answer.label
        assert row["abstained"] is answer.abstained
        assert tuple(row["answer_set"]) == answer.answer_set
        assert (row["top_1"], row["top_2"]) == tuple(label for label, _ in answer.top(2))
        assert row["top_1_probability"] == row["probability"] == pytest.approx(answer.probability, abs=1e-6)
        assert row["p(World)"] + row["p(Sports)"] == pytest.approx(1, abs=1e-5)
        assert row["p(World)"] == pytest.approx(answer.probabilities["World"], abs=1e-6)
    assert list(found[0])[-1] == "error"


def test_standard_output_becomes_json_lines(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"club wins cup final\n\nbroken \xff bytes\n")))
    assert main(["predict", str(run), "-", "--top-k", "1"]) == 0
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["top_1"] == first["predicted"]
    assert "abstained" not in first
    assert second["error"] == "empty text"
    assert third["error"].startswith("broken encoding")


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a level too high": (["--abstain", "0.999"], "This run has 120; the highest they can tell is 0.9916."),
    "no level": (["--abstain", "99"], "at least 0.5 and less than 1"),
    "too many labels": (["--top-k", "3"], "Allowed: 1 to 2"),
    "no labels": (["--top-k", "0"], "Allowed: 1 to 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_told_is_refused_before_a_row_is_read(
    mistake: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, sentence = MISTAKES[mistake]
    output = tmp_path / "out.csv"
    assert main(["predict", str(run), str(run.parent / "test.csv"), "-o", str(output), *flags]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not output.exists()


def test_by_breaks_a_stored_result_down_and_scores_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    monkeypatch.setattr(newslora.Classifier, "load", None)
    assert main(["evaluate", str(copy), "--by", "label"]) == 0
    assert "by label" in capsys.readouterr().out
    result = stored(copy, "test")
    groups = {group["name"]: group for group in result["accuracy_by"][-1]["groups"]}
    for label, own in result["per_class"].items():
        assert groups[label]["rows"] == own["rows"]
        assert groups[label]["accuracy"]["value"] == own["recall"]["value"]
    assert main(["evaluate", str(copy), "--by", "agancy"]) == 3
    assert "Did you mean 'agency'" in capsys.readouterr().err


def test_by_refuses_rows_that_have_changed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.csv"
    write_news(source, 30, seed=1)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert main(["evaluate", str(copy), "--data", str(source), "--by", "agency"]) == 0
    shutil.move(copy / "evaluation" / "mine.json", copy / "evaluation" / "test.json")
    write_news(source, 30, seed=2)
    capsys.readouterr()
    assert main(["evaluate", str(copy), "--by", "agency"]) == 5
    assert "has changed since" in capsys.readouterr().err


def test_no_rows_are_an_error_and_one_row_is_evaluated(run: Path, tmp_path: Path) -> None:
    none, one = tmp_path / "none.csv", tmp_path / "one-errors.csv"
    none.write_text("text,label\n")
    assert main(["evaluate", str(run), "--data", str(none)]) == 3
    one.write_text("text,label\nstriker wins cup,Sports\n")
    assert main(["evaluate", str(run), "--data", str(one)]) == 0
    assert stored(run, "one-errors-data")["auroc"]["value"] is None  # and its name is not another's list of errors


def test_the_screen_fits_80_columns_and_shows_every_table(run: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    for table in evaluation_tables(stored(run, "test")):
        console.print(table)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("AUROC", "ECE", "accuracy by confidence", "by agency", "--abstain", "most confidently wrong"):
        assert part in shown
    surest = stored(run, "test")["errors"][0]
    assert f"{surest['label']}, {surest['predicted']}" in shown
    assert f"{surest['confidence']:.3f}" in shown


def test_an_older_evaluation_still_shows() -> None:
    rate = {"value": 0.5, "interval": [0.1, 0.9]}
    older = {
        "name": "test", "rows": 2, "source": "a.csv", "accuracy": rate, "macro_f1": rate, "loss": 0.7, "note": None,
        "per_class": {"a": {"precision": rate, "recall": rate, "f1": rate, "rows": 2}}, "labels": ["a"],
        "confusion": [[2]],
    }  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    for table in evaluation_tables(older):
        console.print(table)
    assert "0.7000" in console.export_text()
