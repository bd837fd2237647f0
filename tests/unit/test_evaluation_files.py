"""What a finished run keeps of its evaluations is read back whole, or it is said what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_parts import data_facts, evaluation, manifest_facts

import newslora
from newslora import files
from newslora.config import DataSettings, load_recipe
from newslora.data.articles import read_articles
from newslora.data.sources import parse_source
from newslora.errors import DataError, RunError
from newslora.evaluation.breakdown import source_column
from newslora.evaluation.rows import COLUMNS, read_lines
from newslora.report.explained import _chosen_rows
from newslora.runfolder import RunFolder

LONG = "word " * 30_000  # 150,000 characters: more than Python's csv takes unasked
ROWS = [("short", "World", "World", "Strong"), (LONG, "World", "Sports", "Weak"), ("other", "Sports", "Sports", "Weak")]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Test rows with an agency, and what evaluating them left."""
    source = tmp_path / "test.csv"
    files.write_csv(source, ["text", "label", "agency"], [(text, label, agency) for text, label, _, agency in ROWS])
    run = RunFolder.create(tmp_path / "run", load_recipe("quickstart"))
    whole = evaluation("test", ["World", "Sports"], 3, False)
    record = {"source": str(source), "sha256": files.sha256_file(source), "accuracy_by": []}
    files.write_json(run.evaluation / "test.json", whole | record)
    files.write_json(run.data_file, data_facts(["World", "Sports"]))
    files.write_json(run.manifest_file, manifest_facts(["World", "Sports"]))
    lines = [(number, *row[:3], 0.9) for number, row in enumerate(ROWS, 1)]
    files.write_csv(run.evaluation / "test.csv", [*COLUMNS, "probability"], lines)
    return run


def by_agency(run: RunFolder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = newslora.evaluate(run.path, by="agency")["accuracy_by"][0]["groups"]
    return found


def test_a_column_breaks_down_rows_of_any_length(run: RunFolder) -> None:
    assert [(one["name"], one["rows"], one["accuracy"]["value"]) for one in by_agency(run)] == [
        ("Weak", 2, 0.5), ("Strong", 1, 1.0),
    ]  # fmt: skip


def test_rows_that_are_numbered_otherwise_now_lend_no_column(run: RunFolder) -> None:
    """As those of a CSV file that an older newslora parted otherwise: another row's agency would be told."""
    record = json.loads((run.evaluation / "test.json").read_text())
    files.write_json(run.evaluation / "test.json", record | {"text_columns": ["text"]})
    assert len(by_agency(run)) == 2
    lines = [(number, *row[:3], 0.9) for number, row in enumerate(ROWS[1:], 1)]
    files.write_csv(run.evaluation / "test.csv", [*COLUMNS, "probability"], lines)
    with pytest.raises(
        RunError, match=r"Row 1 of .* is read otherwise now than when it was scored\. Score the rows as"
    ):
        by_agency(run)


def test_rows_that_have_changed_since_lend_no_column(tmp_path: Path) -> None:
    """Between reading rows and evaluating them lies a training: another row's agency would be told, or the run not end."""
    source, rows = (
        tmp_path / "news.csv",
        [(f"text {number}", "ab"[number % 2], "XY"[number // 4]) for number in range(8)],
    )
    files.write_csv(source, ["text", "label", "agency"], rows)
    settings = DataSettings(source=str(source))
    articles, _ = read_articles(parse_source(str(source)), None, settings, None)
    assert source_column(articles, None, None) == {"agency": list("XXXXYYYY")}
    files.write_csv(source, ["text", "label", "agency"], rows[::-1])
    assert source_column(articles, None, None) == {}
    with pytest.raises(DataError, match="has changed since its rows were read"):
        source_column(articles, None, "agency")
    source.unlink()
    assert source_column(articles, None, None) == {}
    with pytest.raises(DataError, match="cannot be read"):
        source_column(articles, None, "agency")


def test_a_column_is_told_of_unasked_where_it_tells_something(tmp_path: Path) -> None:
    heads = ["text", "source", "publisher", "outlet", "feed"]
    rows = [(f"text {n}", "ab"[n % 2], f"address {n}", "one", "x" * 61 if n < 4 else " ") for n in range(8)]

    def found(*columns: str, wanted: str | None = None) -> dict[str, list[str]]:
        cells = [[row[heads.index(name)] for name in columns] for row in rows]
        files.write_csv(tmp_path / "news.csv", columns, cells)
        settings = DataSettings(source=str(tmp_path / "news.csv"), label_column="source")
        articles, _ = read_articles(parse_source(settings.source), None, settings, None)
        return source_column(articles, None, wanted)

    assert found("text", "source") == {}  # the label itself
    assert found("text", "source", "publisher") == {}  # another in every row
    assert found("text", "source", "outlet") == {}  # one in all rows
    assert found("text", "source", "feed") == {"feed": ["x" * 60] * 4 + ["(none)"] * 4}
    assert found("text", "source", "publisher", wanted="publisher")["publisher"][7] == "address 7"
    assert found("text", "source", wanted="source") == {"source": list("abababab")}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), ""),
        (lambda path: path.write_text(path.read_text().replace("predicted", "other", 1)), "has no column 'predicted'"),
        (lambda path: path.write_text(path.read_text()[:-20]), r"line 4 has not 5 cells"),
        (lambda path: path.write_text(path.read_text().replace("1,short", "one,short")), "'one'"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"short", b"\xff")), "utf-8"),
        (lambda path: path.write_text(f'{path.read_text()}4,"{"x" * 11_000_000}",World,World,1\n'), "field larger"),
    ],
)
def test_damaged_rows_are_named_with_the_way_out(run: RunFolder, spoil: Callable[[Path], Any], told: str) -> None:
    spoil(run.evaluation / "test.csv")
    with pytest.raises(RunError, match=rf"test\.csv.*{told}.*newslora evaluate RUN --data"):
        by_agency(run)


def test_two_files_of_one_name_do_not_take_each_others_place(planted: Path, tmp_path: Path) -> None:
    run = shutil.copytree(planted, tmp_path / "copy")
    files.write_csv(tmp_path / "a" / "news.csv", ["text", "label"], [("meets over treaty", "World")] * 3)
    files.write_text(tmp_path / "b" / "news.jsonl", '{"text": "meets over border", "label": "Sports"}\n' * 2)
    first, second = (newslora.evaluate(run, str(tmp_path / name)) for name in ("a/news.csv", "b/news.jsonl"))
    assert (first["name"], second["name"]) == ("news", f"news-{second['sha256'][:8]}")
    for one in (first, second):
        assert files.read_json(run / "evaluation" / f"{one['name']}.json") == one
        assert len(list(read_lines(run / "evaluation" / f"{one['name']}.csv"))) == one["rows"]
    assert newslora.evaluate(run, str(tmp_path / "b" / "news.jsonl"))["name"] == second["name"]
    assert newslora.evaluate(run, str(tmp_path / "a" / "news.csv"))["name"] == "news"
    files.write_text(run / "evaluation" / "news.json", "{")  # damaged: scoring its rows again replaces it
    assert newslora.evaluate(run, str(tmp_path / "a" / "news.csv"))["name"] == "news"


def test_a_damaged_result_is_named(run: RunFolder) -> None:
    files.write_text(run.evaluation / "test.json", '{"name": "test", "acc')
    with pytest.raises(RunError, match=r"test\.json is damaged"):
        newslora.evaluate(run.path)


def test_a_result_of_another_adapter_is_not_the_runs(run: RunFolder) -> None:
    files.write_json(run.manifest_file, manifest_facts(["World", "Sports"]) | {"adapter_sha256": "d" * 64})
    with pytest.raises(
        RunError, match=r"test\.json is of another adapter \(c+\) than the run's \(d+\)\. Restore it, or"
    ):
        newslora.evaluate(run.path)


def test_examples_are_not_chosen_from_damaged_rows(run: RunFolder) -> None:
    path = run.evaluation / "test.csv"
    assert [row["row"] for row in _chosen_rows(run)] == ["1", "3"]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(RunError, match="cells"):
        _chosen_rows(run)
    files.write_csv(path, [*COLUMNS, "probability"], [(1, "text", "World", "Sports", "half")])
    with pytest.raises(RunError, match=r"test\.csv is damaged .*'half'"):
        _chosen_rows(run)


def test_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    files.write_csv(tmp_path / "rows.csv", COLUMNS, [(1, 'a "quoted",\nline', "World", "World"), (2, "b")])
    lines = read_lines(tmp_path / "rows.csv")
    assert next(lines)["text"] == 'a "quoted",\nline'
    with pytest.raises(RunError, match="line 4 has not 4 cells"):
        next(lines)
