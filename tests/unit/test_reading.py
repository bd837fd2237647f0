"""A stored evaluation stands for rows read as they would be now; whatever was read otherwise is told apart, and said."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import newslora
from conftest import DECISIVE
from newslora import files
from newslora.errors import SettingsError
from newslora.evaluation.own import given_reading
from newslora.exporting.held import held_rows
from newslora.runfolder import RunFolder

OTHER = {"data.label_names": ["Sports", "World"]}  # the recipe has World first


@pytest.fixture
def run(planted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(planted, tmp_path / "run")


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Rows that number their labels: World is 0 by the recipe's names, 1 by `OTHER`."""
    rows = [(f"meets over {DECISIVE}", 0), ("meets over border", 1)] * 10
    files.write_csv(tmp_path / "numbered.csv", ["text", "label"], rows)
    return tmp_path / "numbered.csv"


def accuracy(result: dict[str, Any]) -> float:
    return float(result["accuracy"]["value"])


def test_one_file_read_by_two_settings_has_two_evaluations(run: Path, numbered: Path) -> None:
    other, own = newslora.evaluate(run, numbered, changes=OTHER), newslora.evaluate(run, numbered)
    assert accuracy(own) == 1 - accuracy(other)
    assert (other["name"], own["name"]) == ("numbered", f"numbered-{own['reading'][:8]}")
    assert other["settings"] == {"label_names": ["Sports", "World"]}
    assert "read by other settings than the run's own: data.label_names is Sports, World." in other["note"]
    assert (own["settings"], own["note"]) == ({}, None)
    for one in (other, own):  # each takes its own place again
        changes = OTHER if one is other else None
        assert newslora.evaluate(run, numbered, changes=changes)["name"] == one["name"]
    named = newslora.evaluate(run, numbered, changes={"data.label_column": "label"})  # where it is found anyway
    assert (named["name"], named["settings"], named["note"]) == (own["name"], {}, None)


def test_a_comparison_takes_no_evaluation_that_was_read_otherwise(run: Path, planted: Path, numbered: Path) -> None:
    for path in (run, second := shutil.copytree(planted, run.with_name("second"))):
        newslora.evaluate(path, numbered, changes=OTHER)
    found = newslora.compare([run, second], data=numbered)
    assert accuracy(found["runs"][0]) == accuracy(newslora.evaluate(run, numbered)) > 0.5
    assert found["note"] is None


def test_validation_rows_do_not_stand_for_the_file_they_were_cut_from(run: Path, planted: Path) -> None:
    second = shutil.copytree(planted, run.with_name("second"))
    assert newslora.compare([run, second], data=planted.parent / "train.jsonl")["rows"] == 120


def test_a_runs_own_test_rows_are_known_again(run: Path) -> None:
    folder = RunFolder(run)
    own = folder.own_evaluation()
    assert own is not None
    source = folder.data()["splits"]["test"]["source"]
    assert own["reading"] == given_reading(folder, source, folder.recipe().data)


@pytest.mark.parametrize(
    "call",
    [
        lambda run: newslora.evaluate(run, changes=OTHER),
        lambda run: newslora.compare([run, run.with_name("second")], changes=OTHER),
        lambda run: newslora.export(run, "peft", changes=OTHER),
    ],
)
def test_settings_for_reading_no_rows_are_refused(call: Callable[[Path], Any], run: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"'data\.label_names' is a setting \(--set\) for reading rows.*none are\. Give"
    ):
        call(run)


def test_an_export_tells_by_what_settings_its_rows_were_read(run: Path, numbered: Path) -> None:
    folder = RunFolder(run)
    assert "settings" not in held_rows(folder, str(numbered), None, None).record()
    for most in (None, 10):
        told = held_rows(folder, str(numbered), OTHER, most).record()
        assert told["settings"] == {"label_names": ["Sports", "World"]}


def test_rows_scored_by_older_rules_of_reading_leave_their_place_to_those_of_today(run: Path, numbered: Path) -> None:
    first = newslora.evaluate(run, numbered)
    path = run / "evaluation" / "numbered.json"
    files.write_json(path, first | {"reading": "0" * 64})
    there = set(path.parent.iterdir())
    again = newslora.evaluate(run, numbered)
    assert (again["name"], again["reading"]) == ("numbered", first["reading"])
    assert set(path.parent.iterdir()) == there
