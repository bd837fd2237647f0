"""Every format gives the same rows, whoever wrote them and however they are packed."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from source_parts import COLUMNS, ROWS, as_csv, as_lines, fields, parquet, read, write

from newslora.data import readers
from newslora.data.readers import open_file
from newslora.errors import DataError

FORMS: dict[str, Callable[[Path], object]] = {
    "a.csv": lambda path: write(path, as_csv()),
    "crlf.csv": lambda path: write(path, as_csv(end="\r\n")),
    "bom.csv": lambda path: write(path, "\ufeff" + as_csv()),
    "semicolons.csv": lambda path: write(path, as_csv(";")),
    "tabs.csv": lambda path: write(path, as_csv("\t")),
    "blank-lines.csv": lambda path: write(path, "\n\n" + as_csv().replace("World,Treaty", "\nWorld,Treaty") + "\n\n"),
    "no-last-newline.csv": lambda path: write(path, as_csv().rstrip("\n")),
    "a.tsv": lambda path: write(path, as_csv("\t")),
    "UPPER.CSV": lambda path: write(path, as_csv()),
    "a.csv.gz": lambda path: write(path, gzip.compress(as_csv().encode())),
    "members.csv.gz": lambda path: write(path, gzip.compress(as_csv()[:50].encode()) + gzip.compress(rest(50))),
    "a.csv.zst": lambda path: write(path, zstandard.compress(as_csv().encode())),
    "frames.csv.zst": lambda path: write(path, zstandard.compress(as_csv()[:50].encode()) + zstandard.compress(rest(50))),
    "a.jsonl": lambda path: write(path, as_lines()),
    "a.ndjson": lambda path: write(path, as_lines()),
    "bom.jsonl": lambda path: write(path, "\ufeff" + as_lines()),
    "crlf.jsonl": lambda path: write(path, as_lines().replace("\n", "\r\n")),
    "escaped.jsonl": lambda path: write(path, "".join(json.dumps(row) + "\n" for row in ROWS)),
    "blank-lines.jsonl": lambda path: write(path, "\n \n" + as_lines().replace("\n", "\n\n")),
    "a.jsonl.gz": lambda path: write(path, gzip.compress(as_lines().encode())),
    "a.jsonl.zst": lambda path: write(path, zstandard.compress(as_lines().encode())),
    "array.json": lambda path: write(path, json.dumps(ROWS, indent=2)),
    "spaced-array.json": lambda path: write(path, "\n  " + json.dumps(ROWS)),
    "lines.json": lambda path: write(path, as_lines()),
    "a.parquet": parquet,
    "large.parquet": lambda path: pq.write_table(
        pa.Table.from_pylist(ROWS).cast(pa.schema([(name, pa.large_string()) for name in COLUMNS])), path
    ),
    "binary.parquet": lambda path: pq.write_table(
        pa.Table.from_pylist(ROWS).cast(pa.schema([(name, pa.binary()) for name in COLUMNS])), path
    ),
    "dictionary.parquet": lambda path: pq.write_table(
        pa.Table.from_pylist(ROWS).set_column(0, "label", pa.array([r["label"] for r in ROWS]).dictionary_encode()), path
    ),
}  # fmt: skip


def rest(start: int) -> bytes:
    return as_csv()[start:].encode()


@pytest.mark.parametrize("name", FORMS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FORMS[name](path)
    table, rows = read(path)
    assert table.columns == COLUMNS
    assert table.has_header
    assert table.label_names is None
    assert fields(rows) == ROWS
    assert len(table.sha256) == 64


def test_a_csv_without_a_header_numbers_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv(header=False))
    table, rows = read(path, header=False)
    assert not table.has_header
    assert table.columns == ("1", "2", "3")
    assert fields(rows) == [dict(zip("123", row.values(), strict=True)) for row in ROWS]


def test_names_nobody_knows_are_names(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", "kategorie,inhalt\nA,x\n"))
    assert fields(rows) == [{"kategorie": "A", "inhalt": "x"}]


def test_the_header_setting_overrules_the_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "kategorie,inhalt\nA,x\n")
    assert read(path, header=False)[0].columns == ("1", "2")
    assert len(read(path, header=False)[1]) == 2
    path = write(tmp_path / "ag.csv", "1,titel,inhalt\nA,x,y\n")
    assert len(read(path)[1]) == 2
    _, rows = read(path, header=True)
    assert fields(rows) == [{"1": "A", "titel": "x", "inhalt": "y"}]
    named = write(tmp_path / "b.csv", "label,text\nA,x\n")
    assert len(read(named, header=False)[1]) == 2


def test_ag_news_own_form(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", '"3","A title","A ""quoted"" text, with \\\\ a break"\n"4","Other","More"\n')
    write(tmp_path / "classes.txt", "World\nSports\r\nBusiness\nSci/Tech\n\n")
    table, rows = read(path)
    assert table.label_names == ("World", "Sports", "Business", "Sci/Tech")
    assert not table.has_header
    assert fields(rows)[0] == {"1": "3", "2": "A title", "3": 'A "quoted" text, with \\\\ a break'}


def test_classes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", as_csv())
    write(tmp_path / "classes.txt", b"Wirtschaft\nK\xfcche\n")
    with pytest.raises(DataError, match=r"classes\.txt are not valid UTF-8"):
        open_file(path)


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'text' twice"):
        open_file(write(tmp_path / "a.csv", "label,text,text\nA,x,y\n"))
    row = write(tmp_path / "b.csv", "A,,,x\nB,y,,z\n")
    with pytest.raises(DataError, match=r"'' twice.*data\.header=false"):
        open_file(row)
    assert len(list(open_file(row, header=False).rows)) == 2


def test_a_column_of_parquet_named_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["A"]), pa.array(["x"]), pa.array(["y"])], names=["label", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="'text' twice"):
        open_file(tmp_path / "a.parquet")


@pytest.mark.parametrize("first", ["sep=;\n", "\ufeffSEP=;\r\n", '\n"sep=;"\n'])
def test_a_separator_that_excel_is_told_is_taken(first: str, tmp_path: Path) -> None:
    table, rows = read(write(tmp_path / "a.csv", first + "text, long;label\nOil, gas;A\nGoal;B\n"))
    assert table.columns == ("text, long", "label")
    assert [row["label"] for row in fields(rows)] == ["A", "B"]
    assert [row.number for row in open_file(tmp_path / "a.csv").rows_behind(1, rows[0].end)] == [2]
    assert fields(read(write(tmp_path / "b.csv", first + "3;x;y\n"))[1]) == [{"1": "3", "2": "x", "3": "y"}]
    tabs = write(tmp_path / "c.csv", "sep=\t\n" + as_csv("\t"))
    assert fields(read(tabs)[1]) == ROWS


def test_delimiters_inside_of_quotes_are_text(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", '"text, body, all";label\nOil;A\n'))[0].columns == (
        "text, body, all",
        "label",
    )


def test_unnamed_columns_at_the_end_are_left_out(tmp_path: Path) -> None:
    table, rows = read(write(tmp_path / "a.csv", "text,label,,\nOil,A,,\nGoal,B\nProbe,C,,lost\nTreaty,,,\n"))
    assert table.columns == ("text", "label")
    assert [row.problem for row in rows] == [None, None, "ragged line: 4 cells where 2 are expected", None]
    assert [row.fields["label"] for row in rows] == ["A", "B", "C,,lost", ""]
    assert open_file(write(tmp_path / "b.csv", "text,label,\nOil,A,\n")).columns == ("text", "label", "")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_lone_column_takes_whole_lines(end: str, tmp_path: Path) -> None:
    lines = ["text", "Oil climbs, stocks fall", "Goal; again", '"Probe, ""lands"""', "a,b,,c"]
    _, rows = read(write(tmp_path / "a.csv", end.join(lines)))
    assert [row["text"] for row in fields(rows)] == [lines[1], lines[2], 'Probe, "lands"', "a,b,,c"]


def test_text_behind_a_closing_quote_is_forgiven_in_one_line(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", 'text,id\n"Striker" scores,1\n"Oil, ""light""",2\n"Probe"\t,3'))
    assert [row["text"] for row in fields(rows)] == ["Striker scores", 'Oil, "light"', "Probe\t"]


@pytest.mark.parametrize(
    "content",
    [
        '{"title": {"0": "Oil climbs", "1": "Goal"}, "label": {"0": "A", "1": "B"}}',
        '{"text": ["Oil climbs", "Goal"], "label": ["A", "B"]}',
        '{"data": [{"text": "Oil climbs", "label": "A"}]}',
        '{"columns": ["text"], "index": [0], "data": [["Oil climbs"]]}',
    ],
)
def test_a_table_by_columns_is_told_how_to_be_written(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one object of lists or objects.*orient='records', lines=True"):
        open_file(write(tmp_path / "a.json", content))
    assert len(read(write(tmp_path / "b.json", content + "\n" + as_lines()))[1]) == 4


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_columns_are_those_of_all_rows_together(name: str, tmp_path: Path) -> None:
    values = [{"text": "x"}, {"label": "A", "text": "y"}] + [{"text": "z"}] * 5_000 + [{"late": 1}]
    lines = "".join(json.dumps(value) + "\n" for value in values)
    table, rows = read(write(tmp_path / name, lines if name == "a.jsonl" else json.dumps(values)))
    assert table.columns == ("text", "label", "late")
    assert [row.fields.get("label") for row in rows[:2]] == [None, "A"]


def test_rows_of_keys_that_never_recur_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "COLUMN_LIMIT", 10)
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({f"key {n}": 1}) + "\n" for n in range(10)))
    assert len(open_file(path).columns) == 10
    write(path, path.read_text() + '{"one more": 1}\n')
    with pytest.raises(DataError, match="over 10 columns, the last in row 11"):
        open_file(path)


@pytest.mark.parametrize("content", ["PK\nx\n", "PAR1\nx\n", "a\nb\x00\n", "\x00a,b\nx,y\n", "x\n"])
def test_what_begins_nearly_so_is_read(content: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", content), header=True)[0].columns


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (pa.array([0, 2**60], pa.timestamp("us")), "1970-01-01 00:00:00"),
        (pa.array([1_500, -(2**60)], pa.timestamp("ms")), "1970-01-01 00:00:01.500"),
        (pa.array([1, 2**62], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        (pa.array([0, 2**60], pa.timestamp("us", "UTC")), "1970-01-01 00:00:00Z"),
        (pa.array([1, 2**30], pa.date32()), "1970-01-02"),
        (pa.array([5, 2**62], pa.duration("s")), "5"),
        (pa.array([3_605, 1], pa.time32("s")), "01:00:05"),
        (pa.array([None, 2**60], pa.timestamp("us")), None),
    ],
)
def test_times_that_python_cannot_hold_do_not_stop_a_file(array: pa.Array, shown: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x", "y"], "at": array}), tmp_path / "a.parquet")
    assert [row["text"] for row in fields(read(tmp_path / "a.parquet")[1])] == ["x", "y"]
    assert read(tmp_path / "a.parquet")[1][0].fields["at"] == shown


def test_times_in_lists_that_python_cannot_hold_are_a_data_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"at": pa.array([[2**60]], pa.list_(pa.duration("s")))}), tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"at": pa.MapArray.from_arrays([0, 1], ["a"], pa.array([2**60], pa.timestamp("us")))}),
        tmp_path / "b.parquet",
    )
    assert fields(read(tmp_path / "a.parquet")[1]) == [{"at": [str(2**60)]}]
    with pytest.raises(DataError, match="cannot be read to its end"):
        read(tmp_path / "b.parquet")


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    one, same, other = (write(tmp_path / f"{n}.csv", as_csv() + "\n" * (n == 2)) for n in range(3))
    assert read(one)[0].sha256 == read(same)[0].sha256 != read(other)[0].sha256


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30)


@given(table=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=20))
def test_any_cells_come_back_from_csv_and_json(
    table: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    expected = [dict(zip(COLUMNS, row, strict=True)) for row in table]
    with (folder / "any.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([COLUMNS, *table])
    assert fields(read(folder / "any.csv")[1]) == expected
    write(folder / "any.jsonl", "".join(json.dumps(row) + "\n" for row in expected))
    assert fields(read(folder / "any.jsonl")[1]) == expected
