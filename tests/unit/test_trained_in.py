"""A run finds its rows again from any working directory, and tells nobody but data.json where they lie."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import newslora
from newslora import files
from newslora.cli.app import main
from newslora.data.sources import parse_again, parse_source
from newslora.errors import BackboneError, DataError, NetworkError, RunError
from newslora.evaluation.own import own_rows
from newslora.report.card import data_set
from newslora.runfolder import TRAINED_IN, RunFolder

SMALL = {
    "data__source": "news", "data__test": "held/test.jsonl", "data__validation_rows": 8, "data__workers": 0,
    "train__epochs": 1, "train__batch_size": 8, "train__warmup_steps": 0, "train__precision": "fp32",
    "data__label_names": (), "data__require_all_names": False,
}  # fmt: skip


@pytest.fixture
def desk(news_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with rows in `news`, a folder that could be a hub name, and others in a file."""
    folder = tmp_path / "desk"
    for name in ("news/train", "held/test"):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(news_file.read_text(encoding="utf-8").replace("as", path.stem), encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def away() -> None:
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")

    return away


def train(tiny_bert: Path, **more: Any) -> Path:
    run = newslora.train("seed", output="runs/one", report=False, model__backbone=str(tiny_bert), **SMALL | more)
    return run.path.resolve()


@pytest.mark.usefixtures("no_figures")
def test_a_run_is_exported_and_evaluated_from_elsewhere(
    desk: Path, tiny_bert: Path, leave: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_bert)
    leave()
    assert main(["export", str(run), "--to", "merged"]) == 0
    record = files.read_json(run / "exports" / "merged" / "export.json")
    assert record["gate"]["held"]["source"] == "test.jsonl"
    assert main(["evaluate", str(run / "exports" / "merged")]) == 0
    assert main(["evaluate", str(run), "--by", "label"]) == 0
    assert main(["report", str(run)]) == 0
    assert RunFolder(run).data()[TRAINED_IN] == str(desk)
    told = [run / "manifest.json", run / "adapter" / "README.md", *run.glob("evaluation/**/*.json")]
    told += (path for path in (run / "exports" / "merged").iterdir() if path.suffix in (".json", ".md"))
    assert len(told) > 6
    for path in told:
        assert str(desk / "news") not in path.read_text(encoding="utf-8"), path
    assert "datasets:" not in (run / "adapter" / "README.md").read_text(encoding="utf-8")  # 'news' is no hub name
    (desk / "held" / "test.jsonl").write_text(
        (desk / "news" / "train.jsonl").read_text(encoding="utf-8").replace("over", "under"), encoding="utf-8"
    )
    capsys.readouterr()
    assert main(["export", str(run), "--to", "peft"]) == 5
    assert "have changed since it was trained" in " ".join(capsys.readouterr().err.split())


def test_rows_that_lie_nowhere_are_missed_where_the_run_was_trained(
    desk: Path, tiny_bert: Path, leave: Callable[[], None]
) -> None:
    run = RunFolder(train(tiny_bert, data__source="news/train.jsonl"))
    leave()
    shutil.move(desk / "held", desk / "moved")
    with pytest.raises(DataError, match=f"trained in {desk}, cannot be read again. There is no data file"):
        own_rows(run)
    files.write_json(run.data_file, {key: value for key, value in run.data().items() if key != TRAINED_IN})
    with pytest.raises(DataError, match=r"The rows of \S+ cannot be read again"):  # as of runs that did not keep it
        own_rows(run)


def test_a_run_is_resumed_from_elsewhere(
    desk: Path,
    tiny_bert: Path,
    leave: Callable[[], None],
    interrupt: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train(tiny_bert, train__epochs=2)
    whole.rename(desk / "whole")
    interrupt(lambda: train(tiny_bert, train__epochs=2))
    leave()
    run = newslora.resume(desk / "runs" / "one", report=False)
    weights = "adapter/adapter_model.safetensors"
    assert (run.path / weights).read_bytes() == (desk / "whole" / weights).read_bytes()
    assert run.data() == RunFolder(desk / "whole").data()
    shutil.move(desk, desk.with_name("moved"))
    monkeypatch.chdir(desk.with_name("moved"))
    assert len(own_rows(RunFolder(Path("runs/one"))).train) == 32


def test_a_backbone_in_a_relative_folder_is_found_again(
    desk: Path,
    tiny_bert: Path,
    leave: Callable[[], None],
    interrupt: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its data lie under absolute names, so nothing but the backbone asks for the directory."""
    shutil.copytree(tiny_bert, "models/tiny")
    more = {"data__source": str(desk / "news"), "data__test": str(desk / "held" / "test.jsonl"), "train__epochs": 2}
    train(Path("models/tiny"), **more).rename(desk / "whole")
    interrupt(lambda: train(Path("models/tiny"), **more))
    leave()
    (desk / "models").rename(desk / "moved")
    monkeypatch.setattr("newslora.model.backbones.hub_answers", lambda: False)
    with pytest.raises((BackboneError, NetworkError), match=f"If 'models/tiny' is a folder, go on from .* {desk}"):
        newslora.resume(desk / "runs" / "one")
    (desk / "moved").rename(desk / "models")
    shutil.copytree(tiny_bert, "models/tiny")  # what lies here comes first, if it is the same
    weights = Path("models/tiny/model.safetensors")
    other = {name: 2 * tensor for name, tensor in load_file(weights).items()}
    save_file(other, weights, metadata={"format": "pt"})
    with pytest.raises(RunError, match="'models/tiny', has other weights than when the run began"):
        newslora.resume(desk / "runs" / "one")
    shutil.rmtree("models")
    run, whole = newslora.resume(desk / "runs" / "one", report=False), RunFolder(desk / "whole")
    name = "adapter/adapter_model.safetensors"
    assert (run.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert run.manifest()["backbone"] == whole.manifest()["backbone"]
    assert run.data() == whole.data()


def test_what_lies_here_under_its_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("here", "there"):
        (tmp_path / place / "data").mkdir(parents=True)
        for name in ("train", "test"):
            (tmp_path / place / "data" / f"{name}.csv").write_text("text,label\na,b\n")
    monkeypatch.chdir(tmp_path / "here")
    there = str(tmp_path / "there")
    assert parse_again("data/train.csv", there) == parse_source("data/train.csv")
    assert parse_again("data:test", there) == parse_source("data:test")
    shutil.rmtree("data")
    found = parse_again("data:test", there)
    assert (found.text, found.kind, found.location) == ("data:test", "folder", f"{there}/data")
    assert (found.split, found.whole.text) == ("test", "data")
    assert data_set("data:test", there) == ("file", "data:test")
    assert parse_again("fancyzhx/ag_news", there).kind == "hub"
    with pytest.raises(DataError, match=r"There is no data file or folder 'data/other\.csv'"):
        parse_again("data/other.csv", there)


def test_a_database_is_found_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "corrections.db").touch()
    monkeypatch.chdir(tmp_path / "here")
    found = parse_again("sqlite:///corrections.db#news", str(tmp_path))
    assert found.text == "sqlite:///corrections.db#news"
    assert found.location == f"sqlite:///{tmp_path}/corrections.db#news"


@pytest.mark.parametrize(("name", "offered"), [("train.csv.gz", False), ("nevs.csv.gz", True), ("news.csv", True)])
def test_an_ending_in_common_is_nothing_in_common(
    name: str, offered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news.csv.gz").touch()
    with pytest.raises(DataError) as caught:
        parse_source(name)
    assert ("Did you mean 'news.csv.gz'" in str(caught.value)) is offered


def test_rows_that_another_newslora_read_otherwise_are_not_called_changed(
    desk: Path, tiny_bert: Path, interrupt: Callable[[Callable[[], Any]], None]
) -> None:
    interrupt(lambda: train(tiny_bert))
    run = RunFolder(desk / "runs" / "one")
    good = run.data()
    for change, part in (({"rows": 33}, "splits"), ({"text_columns": ["other"]}, "splits")):
        splits = good["splits"] | {"train": good["splits"]["train"] | change}
        files.write_json(run.data_file, good | {"splits": splits})
        with pytest.raises(RunError, match=rf"is the same as when the run began, and is read otherwise now \({part}\)"):
            newslora.resume(run)
        with pytest.raises(RunError, match=r"train rows of .* lie in the same bytes .* and are read otherwise now"):
            own_rows(run)
    files.write_json(run.data_file, good | {"labels": good["labels"][::-1]})
    with pytest.raises(RunError, match=r"read otherwise now \(labels\)"):
        newslora.resume(run)
    # ids of labels would mean other ones
    with pytest.raises(RunError, match="read otherwise now: an older newslora trained it"):
        own_rows(run)
    files.write_json(run.data_file, good | {"tokenizer_sha256": "0" * 64})  # as older newsloras made it
    with pytest.raises(RunError, match=r"\(tokenizer_sha256\): another newslora began it, or .* tokenizer was changed"):
        newslora.resume(run)
    files.write_json(run.data_file, good | {"weather": "fine"})
    with pytest.raises(RunError, match=r"read otherwise now \(weather\): another newslora began it"):
        newslora.resume(run)
    files.write_json(run.data_file, good)
    assert newslora.resume(run).complete
