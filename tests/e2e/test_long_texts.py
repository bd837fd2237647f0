"""Texts whose decisive words lie beyond the length limit: learnt with windows, not when cut."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import newslora
from newslora.cli.app import main
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

DECISIVE = {
    "Sports": "striker scores twice as club wins cup final",
    "World": "army and rebels sign peace accord in capital",
}
FILLER = [
    "minister",
    "meets",
    "president",
    "over",
    "border",
    "treaty",
    "sprinter",
    "breaks",
    "record",
    "at",
    "games",
    "stadium",
]
LIMIT = 16  # tokens; the decisive words lie behind some twenty others


def planted(count: int, seed: int) -> list[dict[str, str]]:
    generator = random.Random(seed)
    labels = [sorted(DECISIVE)[place % 2] for place in range(count)]
    return [
        {"text": " ".join([*generator.choices(FILLER, k=generator.randint(18, 24)), DECISIVE[label]]), "label": label}
        for label in labels
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Iterator[dict[str, RunFolder]]:
    """The same rows and recipe, cut and in windows."""
    folder = tmp_path_factory.mktemp("long")
    for name, count in (("train", 280), ("test", 80)):
        lines = (json.dumps(row) + "\n" for row in planted(count, len(name)))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    settings: dict[str, Any] = {
        "model__backbone": str(tiny_bert), "data__source": str(folder / "train.jsonl"),
        "data__test": str(folder / "test.jsonl"), "data__workers": 0, "data__validation_rows": 40,
        "data__max_length": LIMIT, "data__window_overlap": 4, "train__epochs": 6, "train__batch_size": 8,
        "train__learning_rate": 1e-2, "train__warmup_steps": 10, "train__precision": "fp32", "lora__dropout": 0.0,
        "model__hidden_dropout": 0.0, "model__attention_dropout": 0.0, "report": False, "device": "cpu",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWSLORA_CACHE", str(folder / "cache"))
        yield {
            name: newslora.train("seed", output=folder / name, data__long_texts=name, **settings)
            for name in ("cut", "windows")
        }


def test_words_beyond_the_limit_are_learnt_with_windows_and_not_when_cut(runs: dict[str, RunFolder]) -> None:
    accuracy = {
        name: json.loads((run.evaluation / "test.json").read_text(encoding="utf-8"))["accuracy"]["value"]
        for name, run in runs.items()
    }
    assert accuracy["windows"] >= 0.95
    assert accuracy["cut"] <= 0.7  # 80 rows, two labels alike: chance


def test_evaluation_and_prediction_read_whole_texts_through_the_saved_adapter(
    runs: dict[str, RunFolder], tmp_path: Path
) -> None:
    test = planted(80, len("test"))
    run = tmp_path / "run"
    shutil.copytree(runs["windows"].path, run)
    classify = Classifier.load(run, device="cpu")
    texts = [row["text"] for row in test]
    assert classify.rows(texts).tokens.firsts is not None
    answers = classify(texts)
    right = np.mean([answer.label == row["label"] for answer, row in zip(answers, test, strict=True)])
    result = json.loads((run / "evaluation" / "test.json").read_text(encoding="utf-8"))
    assert right == result["accuracy"]["value"]  # what predict answers is what evaluate counted
    padded = Classifier.load(run, device="cpu", engine="padded").predict_proba(texts)
    assert np.abs(padded - classify.predict_proba(texts)).max() < 1e-5
    source = tmp_path / "test.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in test), encoding="utf-8")
    assert main(["predict", str(run), str(source), "-o", str(tmp_path / "out.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["predicted"] for line in lines] == [answer.label for answer in answers]


def test_an_adapter_from_before_windows_cuts(runs: dict[str, RunFolder], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["cut"].path, run)
    card = run / "adapter" / "newslora.json"
    values = json.loads(card.read_text(encoding="utf-8"))
    assert values.pop("long_texts") == "cut"
    assert values.pop("window_overlap") == 4
    card.write_text(json.dumps(values), encoding="utf-8")
    text = planted(1, 0)[0]["text"]
    found = Classifier.load(run, device="cpu").rows([text]).tokens
    assert found.lengths.tolist() == [LIMIT]
    assert found.firsts is None


def test_an_explanation_finds_the_words_beyond_the_limit(runs: dict[str, RunFolder]) -> None:
    classify = Classifier.load(runs["windows"].path, device="cpu")
    row = planted(1, 5)[0]
    one = newslora.explain(classify, row["text"])
    assert (one.predicted, one.read_to) == (row["label"], None)
    assert one.probability == pytest.approx(classify(row["text"]).probability, abs=1e-5)
    assert [word.text for word in one.words] == row["text"].split()  # each once, though windows share some
    assert sum(word.score for word in one.words) == pytest.approx(one.log_odds - one.baseline, rel=0.01, abs=0.01)
    behind = row["text"].index(DECISIVE[row["label"]])
    assert one.top(1)[0].start >= behind
    cut = newslora.explain(Classifier.load(runs["cut"].path, device="cpu"), row["text"])
    assert cut.read_to is not None
    assert cut.read_to < behind
