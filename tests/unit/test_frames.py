"""Tables in memory: the same rows are the same file, and a run that was made of them finds them again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import newslora
from conftest import ARTICLES
from newslora import files, pipeline
from newslora.data.frames import is_frame, keep_frame, write_frame
from newslora.errors import DataError
from newslora.evaluation.own import own_rows
from newslora.runfolder import RunFolder

POLARS = pa.schema(
    [("title", pa.string_view()), ("section", pa.large_string()), ("n", pa.int64())]
)  # its texts, old and new
SMALL = {
    "data__label_column": "section", "data__validation_rows": 8, "data__workers": 0, "data__label_names": (),
    "data__require_all_names": False, "train__epochs": 1, "train__batch_size": 8, "train__warmup_steps": 0,
    "train__precision": "fp32",
}  # fmt: skip


def frame(rows: int = 40, first: int = 0) -> pd.DataFrame:
    texts = [(text, label) for label, many in ARTICLES.items() for text in many]
    return pd.DataFrame(
        [{"title": f"{texts[n % 4][0]} {n}", "section": texts[n % 4][1], "n": n} for n in range(first, first + rows)]
    )


@pytest.fixture
def train(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    """Trains in a working directory of its own."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")

    def trained(**settings: Any) -> RunFolder:
        return newslora.train(
            "seed", report=False, **{"output": "runs/one", "model__backbone": str(tiny_bert)} | SMALL | settings
        )

    return trained


def test_the_same_rows_are_the_same_file_whatever_holds_them(tmp_path: Path) -> None:
    rows = frame(8)
    forms = {
        "numpy": rows.astype({"title": object, "section": object}),
        "nullable": rows.convert_dtypes(),
        "arrow": rows.convert_dtypes(dtype_backend="pyarrow"),
        "categories": rows.astype({"section": "category"}),
        "shuffled index": rows.set_index(pd.Index([9, 2, 4, 7, 1, 0, 3, 8])),
        "table": pa.Table.from_pandas(rows),
        "as polars": pa.table({name: rows[name].to_numpy() for name in rows}).cast(POLARS),
        "chunks": pa.concat_tables([pa.Table.from_pandas(rows[:3]), pa.Table.from_pandas(rows[3:])]),
    }
    for name, form in forms.items():
        assert is_frame(form)
        write_frame(form, tmp_path / f"{name}.jsonl")
    lines = (tmp_path / "numpy.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows.to_dict("records")
    assert len({files.sha256_file(tmp_path / f"{name}.jsonl") for name in forms}) == 1


def test_values_are_written_as_files_have_them(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "text": ["a\u2028b", None],
            "share": [0.5, float("nan")],
            "many": [["x", "y"], []],
            "when": pd.to_datetime(["2026-11-30", None]),
        }
    )
    write_frame(rows, tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"text": "a\u2028b", "share": 0.5, "many": ["x", "y"], "when": "2026-11-30 00:00:00"},
        {"text": None, "share": None, "many": [], "when": None},
    ]


@pytest.mark.parametrize("given", [["one"], {"text": ["one"]}, pd.Series(["one"]), pa.array(["one"]), "news.csv", None])
def test_what_is_no_table(given: Any) -> None:
    assert not is_frame(given)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (pd.DataFrame({"title": ["one", 2], "section": ["a", "b"]}), "The DataFrame cannot be read .*title"),
        (
            pd.DataFrame([["one", "a"]], columns=["title", "title"]),
            "The DataFrame cannot be read .*[Dd]uplicate column",
        ),
        (pa.table([["one"], ["a"]], names=["title", "title"]), "The Table cannot be read .*two columns have one name"),
        (pd.DataFrame({"title": ["one", "two"]}), "names 'section', but .* has 'title'"),
        (["one", "two"], "A source of rows is the name of a file, .*, not list"),
        (pd.Series(["one", "two"]), "A source of rows is the name of a file, .*, not Series"),
    ],
    ids=["mixed", "one name", "one name in Arrow", "no labels", "list", "one column"],
)
def test_a_table_that_cannot_be_used_leaves_no_run(train: Callable[..., RunFolder], rows: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        train(data__source=rows)
    assert list(Path.cwd().iterdir()) == []


def test_ctrl_c_while_a_table_is_written_leaves_no_run(
    train: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(table: Any, path: Path) -> None:
        write_frame(table, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "write_frame", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(data__source=frame())
    assert list(Path.cwd().iterdir()) == []


def test_a_run_of_a_table_is_that_of_its_file_and_finds_its_rows_from_anywhere(
    train: Callable[..., RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(data__source=frame(), data__test=frame(8, 40))
    assert run.recipe().data.source == "runs/one/rows/train.jsonl"
    splits = run.data()["splits"]
    assert splits["train"]["sha256"] == files.sha256_file(run.rows / "train.jsonl")
    assert (splits["train"]["rows"], splits["validation"]["rows"], splits["test"]["rows"]) == (32, 8, 8)
    again = train(data__source="runs/one/rows/train.jsonl", output="runs/two")
    assert again.manifest()["adapter_sha256"] == run.manifest()["adapter_sha256"]
    for one in (run, again):
        newslora.evaluate(one, frame(12, 90))
    assert newslora.compare([run, again])["rows"] == 12
    here = run.path.resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(own_rows(RunFolder.open(here)).train) == 32
    assert newslora.resume(here).complete
    moved = here.rename(tmp_path / "moved")
    assert len(own_rows(RunFolder.open(moved)).train) == 32
    (moved / "manifest.json").unlink()
    assert newslora.resume(moved, report=False).complete


def test_a_table_is_evaluated_and_known_for_what_it_was_to_the_run(train: Callable[..., RunFolder]) -> None:
    run = train(data__source=frame(), data__validation=frame(8, 40), data__test=frame(8, 60))
    found = {}
    for name, rows in {"train": frame(), "validation": frame(8, 40), "test": frame(8, 60), "new": frame(8, 90)}.items():
        found[name] = newslora.evaluate(run, rows)
    assert {name: (one["trained"], one["chose_the_epoch"]) for name, one in found.items()} == {
        "train": (True, False), "validation": (False, True), "test": (False, False), "new": (False, False),
    }  # fmt: skip
    assert found["test"]["accuracy"] == newslora.evaluate(run)["accuracy"]
    kept = sorted(run.rows.glob("table-*"))
    assert len(kept) == 4
    again = newslora.evaluate(run, frame(8, 90).sample(frac=1, random_state=0).sort_index(), by="n")
    assert again["name"] == found["new"]["name"]
    assert sorted(run.rows.glob("table-*")) == kept
    assert (run.evaluation / f"{again['name']}.json").is_file()
    assert keep_frame(frame(8, 90), run.rows).stem == again["name"]
