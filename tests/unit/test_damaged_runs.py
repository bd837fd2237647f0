"""What stands in a run's JSON files is reported and compared, or refused in a sentence: the file, the field, the way out."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_parts import LABELS, epoch_line, make_run

from newslora import files
from newslora.cli.evaluation_tables import evaluation_tables, remarks_on
from newslora.errors import RunError
from newslora.evaluation.rows import COLUMNS
from newslora.evaluation.stored import common_evaluation
from newslora.report.drawing import LIGHT, Draw, Written
from newslora.report.report import report_run
from newslora.runfolder import RunFolder

ODD: list[Any] = [None, [], {}, "x", -1, 1.5]
GONE = object()
SHOWN = int(os.environ.get("NEWSLORA_DAMAGES", "8"))  # of the values that pass, those shown to the end
AUDIT = {
    "splits": [{"sha256": "12" * 32, "text_columns": ["text"], "label_column": "label"}],
    "labels": [{"split": "train", "judged_by": "words", "its_accuracy": 0.9, "likely_wrong": 3, "rows": 100}],
    "leakage": [
        {"split": "test", "repeats": "train", "equal_rows": 2, "near_rows": 1, "with_another_label": 1, "rows": 90}
    ],
}
FAITHFUL = {
    "adapter_sha256": "c" * 64, "rows": 12, "verdict": "Faithful.", "difference": {"value": 0.1, "interval": [0.0, 0.2]},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """One whose figures are looked at for nothing but what they take from the files."""

    def drawn(folder: Path, name: str, draw: Draw) -> Written:
        if name.split("-")[0] in ("reliability", "by", "confusion") and name.split("-")[1] == "validation":
            draw(LIGHT)
        return Written(name, b"", b"")

    monkeypatch.setattr("newslora.report.report.write_figure", drawn)
    run, _ = make_run(tmp_path / "run", LABELS)
    files.write_csv(run.evaluation / "test.csv", [*COLUMNS, "probability"], [])
    files.write_json(run.path / "audit.json", AUDIT)
    files.write_json(run.evaluation / "faithfulness.json", FAITHFUL)
    report_run(run.path)
    return run


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a JSON value, of lists to their first alone."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def changed(text: str, place: tuple[Any, ...], to: Any) -> str:
    inner = found = json.loads(text)
    for key in place[:-1]:
        inner = inner[key]
    if to is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = to
    return json.dumps(found)


def shown(run: RunFolder) -> None:
    """What `report`, `evaluate` and `compare` make of it, but for rows."""
    report_run(run.path)
    own = run.own_evaluation()
    assert own is not None
    list(remarks_on(own))
    evaluation_tables(own)


READERS: dict[str, Callable[[RunFolder], Any]] = {
    "manifest.json": RunFolder.manifest, "data.json": RunFolder.data, "evaluation/validation.json": RunFolder.evaluations,
}  # fmt: skip


def taken(run: RunFolder, name: str) -> bool:
    """Whether the file passes."""
    try:
        READERS[name](run)
    except RunError:
        return False
    return True


@pytest.mark.parametrize("name", READERS)
def test_no_value_of_any_field_is_more_than_refused(name: str, run: RunFolder) -> None:
    path = run.path / name
    good = path.read_text(encoding="utf-8")
    if name.startswith("evaluation"):
        (run.evaluation / "test.json").unlink()  # so that it is the first, of which most is told
    damages = [(place, to) for place in places(json.loads(good)) for to in (GONE, *ODD)]
    passed = []
    for place, to in damages:
        path.write_text(changed(good, place, to))
        if taken(run, name):
            passed.append((place, to))
    assert len(damages) - len(passed) > 100
    for place, to in random.Random(0).sample(passed, min(len(passed), SHOWN)):
        path.write_text(changed(good, place, to))
        try:
            shown(run)
        except RunError as error:
            assert str(path) in str(error), (place, to, error)
        except Exception as error:
            raise AssertionError(f"{name}: {place} as {to!r}") from error


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("manifest.json", lambda one: one.pop("training"), "training is missing. Train the run again"),
        ("manifest.json", lambda one: one["training"].update(seconds="1"), "training.seconds is '1': input should be"),
        ("manifest.json", lambda one: one.update(model=[]), r"model is \[\]: "),
        ("manifest.json", lambda one: one.update(format=2), "has format 2; this newslora reads 1. Use the newslora"),
        ("manifest.json", lambda one: one["model"].update(model_type="x"), "names the model type 'x'. Known: bert, "),
        ("data.json", lambda one: one.update(splits=[]), r"splits is \[\]: "),
        ("data.json", lambda one: one["splits"].pop("train"), "splits is .*: train is missing"),
        ("data.json", lambda one: one["splits"]["test"].update(rows="7"), r"splits\.test\.rows is '7': "),
        ("evaluation/test.json", lambda one: one.pop("accuracy"), "accuracy is missing. Restore it, or remove it and score"),
        ("evaluation/test.json", lambda one: one["per_class"].pop(LABELS[0]), "per_class has other labels than labels"),
        ("evaluation/test.json", lambda one: one["confusion"].pop(), "confusion is not of 4 rows of 4"),
        ("evaluation/test.json", lambda one: one["confusion"][1].pop(), "confusion is not of 4 rows of 4"),
        ("evaluation/test.json", lambda one: one["labels"].reverse(), "per_class has other labels than labels"),
        ("evaluation/test.json", lambda one: one.pop("confidence"), "confidence is missing"),
        ("evaluation/test.json", lambda one: one["mcc"].update(value=None), "mcc is .*neither value and interval nor"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_file_the_field_and_the_way(
    name: str, change: Callable[[dict[str, Any]], Any], told: str, run: RunFolder
) -> None:
    path = run.path / name
    held = files.read_json(path)
    change(held)
    files.write_json(path, held)
    for command in (report_run, lambda path: common_evaluation([RunFolder(path)])):
        if command is not report_run and not name.startswith("evaluation"):
            continue
        with pytest.raises(RunError, match=told) as caught:
            command(run.path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_line_of_the_log_is_named_by_its_number(run: RunFolder) -> None:
    lines = [epoch_line(1), epoch_line(2) | {"train_loss": "0.4"}, epoch_line(3)]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged in line 2: epoch\.train_loss is '0\.4'"):
        report_run(run.path)


def test_a_damaged_recipe_of_a_run_is_named(run: RunFolder) -> None:
    run.recipe_file.write_text(run.recipe_file.read_text().replace("epochs = 7", 'epochs = "x"'))
    with pytest.raises(
        RunError, match=r"recipe\.toml is damaged: train\.epochs is 'x'.*Train the run again, or restore"
    ):
        report_run(run.path)
    run.recipe_file.write_text("[train]\nnovelty = 3\n")
    told = r"There is no setting 'train\.novelty'\. A newer newslora may have it\. Train the run again, or restore"
    with pytest.raises(RunError, match=told):
        report_run(run.path)


def test_a_damaged_audit_is_told_on_the_page(run: RunFolder) -> None:
    files.write_json(run.path / "audit.json", AUDIT | {"labels": [{"split": "train"}]})
    html = report_run(run.path).read_text(encoding="utf-8")
    assert "audit.json is damaged: labels.0.judged_by is missing" in html
    assert "So it is not shown: audit the rows again" in html
    files.write_json(run.path / "audit.json", {"splits": 5})  # another tool's
    assert "not audited yet" in report_run(run.path).read_text(encoding="utf-8")


def test_an_evaluation_goes_by_the_name_of_its_file(run: RunFolder) -> None:
    """A copy kept beside it would be shown with the other's figures."""
    (run.evaluation / "before.json").write_bytes((run.evaluation / "test.json").read_bytes())
    assert [one["name"] for one in run.evaluations()] == ["test", "validation", "before"]


def test_what_is_nested_beyond_reason_is_named(run: RunFolder) -> None:
    (run.evaluation / "test.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"test\.json is damaged: .*recursion"):
        report_run(run.path)
