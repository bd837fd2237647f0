"""--device, and `device=` in Python: the device named is the one that computes, and one that is not here is refused at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import newslora
from newslora.auditing import embeddings
from newslora.cli.app import main
from newslora.config import load_recipe
from newslora.errors import SettingsError
from newslora.predict import opening
from newslora.runtime import pick_device

DEVICE = "cpu:0"  # as good as 'cpu', and never what is picked by itself


@pytest.fixture
def run(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted, tmp_path / "run"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Devices that models were put on."""
    names: list[str | None] = []

    def spy(name: str | None = None) -> torch.device:
        names.append(name)
        return pick_device(name)

    for module in (opening, embeddings):
        monkeypatch.setattr(module, "pick_device", spy)
    return names


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "audit", "predict", "explain", "export"])
def test_help_tells_of_devices(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--device" in capsys.readouterr().out


def test_help_says_that_exports_are_checked_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "by default the CPU" in told
    assert "the first GPU" not in told


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "{run}"],
        ["compare", "{run}", "{copy}"],
        ["audit", "{rows}"],
        ["export", "{run}", "--to", "merged"],
    ],
    ids=lambda words: words[0],
)
def test_a_device_that_is_not_here_is_refused_even_where_nothing_would_be_computed(
    words: list[str], run: Path, planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = planted.parent / "test.jsonl"
    given = [word.format(run=run, copy=planted, rows=rows) for word in words]
    assert main([*given, "--device", "warp"]) == 2
    assert "There is no device 'warp' for newslora" in capsys.readouterr().err


def _compare(run: Path, rows: Path, planted: Path) -> Any:
    return newslora.compare([run, planted], data=rows, device=DEVICE)


def _evaluate(run: Path, rows: Path, planted: Path) -> Any:
    return newslora.evaluate(run, rows, device=DEVICE)


def _audit(run: Path, rows: Path, planted: Path) -> Any:
    return newslora.audit(rows, run=run, judge="backbone", device=DEVICE)


def _audit_with_a_judge(run: Path, rows: Path, planted: Path) -> Any:
    train = planted.parent / "train.jsonl"  # judged out of fold, for the run has seen it
    return newslora.audit([train, rows], run=run, judge="backbone", device=DEVICE)


def _export(run: Path, rows: Path, planted: Path) -> Any:
    return newslora.export(run, "merged", data=rows, device=DEVICE)


@pytest.mark.parametrize(
    ("call", "models"),
    [(_evaluate, 1), (_compare, 2), (_audit, 1), (_audit_with_a_judge, 2), (_export, 2)],
)
def test_the_device_named_is_the_one_that_computes(
    call: Callable[..., Any], models: int, run: Path, planted: Path, tmp_path: Path, asked: list[str | None]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text((planted.parent / "test.jsonl").read_text().replace("treaty", "treaty signs"), encoding="utf-8")
    others = Path(shutil.copytree(planted, tmp_path / "other"))  # the session's own run stays as it is
    call(run, rows, others if call is _compare else planted)
    assert asked == [DEVICE] * models


@pytest.mark.usefixtures("no_figures")
def test_what_is_trained_is_scored_and_explained_there_too(
    planted: Path, tmp_path: Path, asked: list[str | None]
) -> None:
    newslora.train(load_recipe(planted / "recipe.toml"), output=tmp_path / "new", device=DEVICE, train__epochs=1)
    assert asked == [DEVICE] * 2


def test_a_judge_that_trains_does_so_on_the_device_named(
    planted: Path, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    from newslora.estimator import NewsClassifier

    devices: list[str | None] = []

    def fit(self: NewsClassifier, *given: Any, **more: Any) -> Any:
        devices.append(self.device)
        raise SettingsError("enough is known")

    monkeypatch.setattr(NewsClassifier, "fit", fit)
    with pytest.raises(SettingsError, match="enough is known"):
        newslora.audit(planted.parent / "train.jsonl", run=run, judge="training", device=DEVICE)
    assert devices == [DEVICE]


def test_an_export_is_judged_on_the_cpu_unless_told(run: Path, asked: list[str | None]) -> None:
    newslora.export(run, "merged")
    assert asked == ["cpu", "cpu"]


def test_an_export_tells_where_it_was_judged(run: Path) -> None:
    made = newslora.export(run, "peft", device=DEVICE)
    assert json.loads((made.path / "export.json").read_text())["environment"]["device"] == DEVICE
