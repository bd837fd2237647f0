"""Training goes on from a run: from its very weights, to the same bytes each time, and all who are told of a run hear of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import newslora
from newslora.auditing import verdicts
from newslora.cli.app import main
from newslora.config import Recipe
from newslora.data.batches import Rows
from newslora.data.tokens import tokenize
from newslora.errors import DataError, RunError
from newslora.evaluation.own import own_rows
from newslora.files import sha256_file
from newslora.model.adapter import load_adapter, load_tokenizer, read_card
from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.report.report import report_run
from newslora.runfolder import STARTED_FROM, RunFolder
from newslora.runtime import Precision
from newslora.serving.feedback import FeedbackStore, Given

WEIGHTS = "adapter/adapter_model.safetensors"
SENTENCES = {
    "World": "minister meets president over border treaty",
    "Cup": "striker scores twice as club wins cup final",
    "Peace": "army and rebels sign peace accord in capital",
    "Record": "sprinter breaks record at games in stadium",
}
NAMES = tuple(sorted(SENTENCES))  # as the rows teach them
SMALL = {
    "data__validation_rows": 8, "data__workers": 0, "data__label_names": None, "train__epochs": 2, "train__batch_size": 8,
    "train__warmup_steps": 0, "train__learning_rate": 5e-3, "train__precision": "fp32", "lora__targets": "all-linear",
}  # fmt: skip
FP32 = Precision("fp32", "for the test")


def write(path: Path, labels: tuple[str, ...], rows: int = 40, start: int = 0) -> Path:
    picked = [labels[number % len(labels)] for number in range(rows)]
    lines = [{"text": f"{SENTENCES[one]} {start + place}", "label": one} for place, one in enumerate(picked)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def flags(**changes: Any) -> list[str]:
    given = {key.replace("__", "."): value for key, value in (SMALL | changes).items() if value is not None}
    return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A run of four labels."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEWSLORA_CACHE", str(folder / "cache"))
        data = write(folder / "train.jsonl", NAMES, 80)
        more: dict[str, Any] = {"data__source": data, "train__epochs": 16, "train__learning_rate": 1e-2}
        run = newslora.train("seed", output=folder / "news", report=False, model__backbone=tiny_bert, **SMALL | more)
    return run.path


def again(first: Path, tmp_path: Path, name: str = "news-2", **changes: Any) -> RunFolder:
    """Trained on, on rows of two of its labels, by its own recipe."""
    given: dict[str, Any] = SMALL | {
        "model__adapter": first,
        "data__source": tmp_path / "corrections.jsonl",
        "train__seed": 7,
    }
    if not (tmp_path / "corrections.jsonl").exists():
        write(tmp_path / "corrections.jsonl", ("World", "Peace"), start=100)
    return newslora.train(first / "recipe.toml", output=tmp_path / name, report=False, **given | changes)


@pytest.mark.parametrize("engine", ["packed", "padded"])
@pytest.mark.parametrize("several", [False, True])
def test_before_the_first_step_it_answers_as_the_adapter(
    engine: str, several: bool, first: Path, tmp_path: Path, make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    changes: dict[str, Any] = {"train__engine": engine}
    if several:
        first_adapter = make_adapter(
            tmp_path / "several", labels=NAMES, lora={"targets": "all-linear"}, multi_label=True
        )
        changes |= {"model__adapter": first_adapter, "data__multi_label": True}
    else:
        first_adapter = first / "adapter"
    model, tokenizer = load_adapter(first_adapter, read_card(first_adapter)), load_tokenizer(first_adapter)
    texts = list(SENTENCES.values())
    rows = Rows(tokenize(tokenizer, texts, 64, tmp_path), np.zeros(4, dtype=np.int64), 0)
    wanted = predict_logits(make_engine(model, engine, FP32), rows, batch_size=4)
    seen = []

    def look(model: Any, *_: Any) -> None:
        seen.append(predict_logits(make_engine(model, engine, FP32), rows, batch_size=4))
        raise RunError("seen enough")

    monkeypatch.setattr("newslora.pipeline.fit", look)
    with pytest.raises(RunError, match="seen enough"):
        again(first, tmp_path, **changes)
    assert seen[0].tobytes() == wanted.tobytes()
    assert abs(wanted).max() > 0.01  # no logits that fresh weights might have


def test_the_adapters_labels_are_the_runs_and_what_it_learnt_stays(first: Path, tmp_path: Path) -> None:
    run = again(first, tmp_path, train__epochs=1, train__learning_rate=1e-4)
    assert run.data()["labels"] == list(NAMES)
    old, new = newslora.Classifier.load(first), newslora.Classifier.load(run)
    assert new.labels == NAMES
    texts = [f"{text} 3" for text in SENTENCES.values()]
    assert [one.label for one in new(texts)] == [one.label for one in old(texts)] == list(SENTENCES)
    assert (old.card.lora, old.card.backbone_sha256) == (new.card.lora, new.card.backbone_sha256)
    assert (run.adapter / "canary.json").read_text() != (first / "adapter" / "canary.json").read_text()
    rows = own_rows(run)
    assert (len(rows.train), rows.labels.names) == (32, NAMES)  # read by the run's own labels: the old run is not asked


def test_the_same_adapter_gives_the_same_bytes_and_another_others(first: Path, tmp_path: Path) -> None:
    shutil.copytree(first / "adapter", tmp_path / "copy")
    one, two = again(first, tmp_path), again(first, tmp_path, "two", model__adapter=tmp_path / "copy")
    fresh = again(first, tmp_path, "fresh", model__adapter=None)
    hashes = [sha256_file(run.path / WEIGHTS) for run in (one, two, fresh)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[0] != sha256_file(first / WEIGHTS)


@pytest.fixture
def lent(first: Path, tmp_path: Path, interrupt: Callable[[Callable[[], Any]], None]) -> Path:
    """A copy of the first run, from which the run news-2 began, that stopped at its first checkpoint."""
    copy = Path(shutil.copytree(first, tmp_path / "lent"))
    interrupt(lambda: again(copy, tmp_path))
    return copy


def test_an_interrupted_run_goes_on_without_the_adapter(first: Path, lent: Path, tmp_path: Path) -> None:
    whole = again(first, tmp_path, "whole")
    shutil.rmtree(lent)
    run = newslora.resume(tmp_path / "news-2", report=False)
    assert (run.path / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()
    assert run.manifest()[STARTED_FROM]["sha256"] == sha256_file(first / WEIGHTS)


def test_without_a_whole_checkpoint_it_wants_the_very_adapter(first: Path, lent: Path, tmp_path: Path) -> None:
    whole = again(first, tmp_path, "whole")
    for commit in (tmp_path / "news-2").rglob("commit.json"):
        commit.unlink()
    shutil.copytree(whole.adapter, lent / "adapter", dirs_exist_ok=True)
    with pytest.raises(RunError, match=r"has other weights than when .*news-2 began with it"):
        newslora.resume(tmp_path / "news-2", report=False)
    shutil.rmtree(lent)
    with pytest.raises(RunError, match="There is no run folder"):
        newslora.resume(tmp_path / "news-2", report=False)
    shutil.copytree(first, lent)
    run = newslora.resume(tmp_path / "news-2", report=False)
    assert (run.path / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()


@pytest.mark.usefixtures("no_figures")
def test_held_rows_that_trained_the_adapter_are_told(
    first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [one["text"] for one in map(json.loads, (first.parent / "train.jsonl").read_text().splitlines())]
    joined = tmp_path / "joined.jsonl"
    extra = write(tmp_path / "new.jsonl", ("World", "Peace"), 8, 100)
    joined.write_text((first.parent / "train.jsonl").read_text().upper().replace("TEXT", "text").replace("LABEL", "label")
                      + extra.read_text())  # fmt: skip
    rows = [json.loads(line) for line in joined.read_text().splitlines()]
    named = {name.upper(): name for name in NAMES} | {name: name for name in NAMES}
    joined.write_text("".join(json.dumps(row | {"label": named[row["label"]]}) + "\n" for row in rows))
    run = again(first, tmp_path, data__source=joined, data__validation_rows=24)
    begun = run.data()[STARTED_FROM]
    trained = {" ".join(text.split()).casefold() for text in own_rows(RunFolder(first)).train.texts}
    held = [text.casefold() in trained for text in own_rows(run).validation.texts]
    assert 0 < sum(held) < 24 < len(own)
    assert begun["copies"] == {"validation": sum(held)}
    assert begun["unread"] == []
    sentence = f"{sum(held)} of 24 validation rows stand among those that trained the adapter this run started from"
    assert sentence in caplog.text
    third = again(run.path, tmp_path, "news-3", data__source=extra, data__validation=first.parent / "train.jsonl")
    assert third.data()[STARTED_FROM]["copies"]["validation"] > 24  # the first run's, two adapters ago
    evaluated = newslora.evaluate(third, first.parent / "train.jsonl")
    assert evaluated["trained"]
    judged: list[Recipe] = []

    def judge(texts: list[str], labels: Any, clusters: Any, classes: int, recipe: Recipe, device: Any) -> Any:
        judged.append(recipe)
        return np.full((len(texts), classes), 1 / classes)

    monkeypatch.setattr(verdicts, "judge_by_training", judge)
    monkeypatch.setattr(verdicts, "folds_possible", lambda *_: 2)
    newslora.audit([str(first.parent / "train.jsonl")], run=third, judge="training")
    assert [recipe.model.adapter for recipe in judged] == [
        None
    ]  # neither answers nor weights of the run are out of fold
    report_run(run.path)
    for page in (run.report_file, run.adapter / "README.md"):
        assert sentence in " ".join(page.read_text(encoding="utf-8").split())


def test_rows_that_cannot_be_looked_at_are_told(first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "newslora")
    alone = shutil.copytree(first / "adapter", tmp_path / "alone")
    run = again(first, tmp_path, model__adapter=alone, train__epochs=1)
    assert run.data()[STARTED_FROM] | {"sha256": ""} == {
        "adapter": str(alone), "sha256": "", "trained_on": [], "copies": {"validation": 0}, "unread": [str(alone)],
    }  # fmt: skip
    assert f"among those that trained {alone} before is not known" in caplog.text
    shutil.rmtree(alone)
    third = again(run.path, tmp_path, "news-3", train__epochs=1)
    assert third.data()[STARTED_FROM]["unread"] == [str(alone)]  # and not the run in between
    assert third.data()[STARTED_FROM]["trained_on"] == [sha256_file(tmp_path / "corrections.jsonl")]


@pytest.mark.usefixtures("no_figures")
def test_the_commands_of_the_documents(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Corrections of two of four sections, from the server's database to a run that is compared with the old one."""
    shutil.copytree(first.parent, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    store = FeedbackStore("sqlite:///corrections.db")
    for place in range(40):
        label = ("World", "Peace")[place % 2]
        given = Given(f"{SENTENCES[label]} {place + 100}", (label,), False, "news", "abc", ("Cup",), 0.7, "desk")
        store.add(given)
    store.close()
    words = ["train", "runs/news/recipe.toml", "--data", "sqlite:///corrections.db#news"]
    words += ["--set", "model.adapter=runs/news", "--set", "train.learning_rate=1e-3", "--set", "train.epochs=2"]
    assert main([*words, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "Training starts from the weights of the adapter 'runs/news'" in " ".join(told.err.split())
    assert 'adapter = "runs/news"' in told.out
    assert main([*words, "-o", "runs/news-2"]) == 0
    run, version = RunFolder(Path("runs/news-2")), sha256_file(first / WEIGHTS)
    assert run.recipe().model.adapter == "runs/news"
    assert run.data()[STARTED_FROM]["sha256"] == run.manifest()[STARTED_FROM]["sha256"] == version
    assert run.data()["trained_in"] == str(tmp_path)
    line = f"Training started from the adapter news, SHA-256 `{version}`"
    assert line in (run.adapter / "README.md").read_text(encoding="utf-8")
    page = " ".join(run.report_file.read_text(encoding="utf-8").split())
    assert f"Training started from the adapter runs/news (<code>{version[:12]}" in page
    for name in ("manifest.json", "adapter/README.md", "adapter/newslora.json"):
        assert str(tmp_path) not in (run.path / name).read_text(encoding="utf-8")
    held = write(tmp_path / "held.jsonl", NAMES, 12, 500)
    assert main(["compare", "runs/news", "runs/news-2", "--data", str(held)]) == 0
    assert main(["evaluate", "runs/news-2", "--data", str(held)]) == 0
    capsys.readouterr()
    wrong = {
        "lora.rank is 8 and the adapter's 4": (2, [*words, "--set", "lora.rank=8"]),
        "There is no run folder 'runs/nevs'": (5, [*words, "--set", "model.adapter=runs/nevs"]),
        "does not know: Weather.": (3, [*words[:3], "weather.jsonl", *words[4:]]),
    }
    Path("weather.jsonl").write_text('{"text": "rain", "label": "Weather"}\n{"text": "cup", "label": "Cup"}\n' * 20)
    for sentence, (code, given) in wrong.items():
        for more in (["--dry-run"], ["-o", "runs/no"]):
            assert main([*given, *more]) == code
            assert sentence in " ".join(capsys.readouterr().err.split())
    assert not Path("runs/no").exists()


def test_seeds_of_one_recipe_are_known_by_the_weights_they_started_from(first: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(first, tmp_path / "copy")
    runs = [
        again(first, tmp_path, "one", train__seed=1, train__epochs=1),
        again(Path(copy), tmp_path, "two", train__seed=2, train__epochs=1),
        RunFolder(first),
    ]
    held = write(tmp_path / "held.jsonl", NAMES, 12, 500)
    result = newslora.compare(runs, data=held)
    assert [one["runs"] for one in result["seeds"]] == [[0, 1]]
    version = RunFolder(first).manifest()["adapter_sha256"]
    assert f"adapter {version[:8]}" in result["seeds"][0]["name"]


def test_one_label_alone_teaches_nothing(first: Path, tmp_path: Path) -> None:
    write(tmp_path / "corrections.jsonl", ("Peace",))
    with pytest.raises(DataError, match="needs at least two labels"):
        again(first, tmp_path)
