"""Every format and folder gives the same rows; what is damaged is said, never lost and never a traceback."""

import csv
import functools
import gzip
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from newslora.data import readers
from newslora.data.readers import RawRow, Table, open_file
from newslora.data.sources import available_splits, open_table, parse_source, split_for
from newslora.errors import DataError

ROWS = [
    {"label": "World", "title": "Treaty signed", "text": "Ministers signed, at last,\na treaty."},
    {"label": "Sports", "title": 'Club "wins" cup', "text": "The club won; fans sang."},
    {"label": "World", "title": "Élection à Zürich 🙂", "text": "Voters\tvoted."},
]
COLUMNS = ("label", "title", "text")


def as_csv(delimiter: str = ",", end: str = "\n", header: bool = True) -> str:
    import io

    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end)
    writer.writerows([COLUMNS] * header + [[row[name] for name in COLUMNS] for row in ROWS])
    return out.getvalue()


def as_lines() -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(source: Path | str, split: str | None = None, header: bool | None = None) -> tuple[Table, list[RawRow]]:
    parsed = parse_source(str(source))
    table = open_table(parsed, split or parsed.split, header)
    return table, list(table.rows)


def fields(rows: list[RawRow]) -> list[dict[str, Any]]:
    assert [row.problem for row in rows] == [None] * len(rows)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    return [row.fields for row in rows]


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


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


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_stands_twice_costs_its_row_only(name: str, tmp_path: Path) -> None:
    lines = ['{"text": "x", "label": "A", "text": "y"}', '{"text": "z", "label": "B", "more": {"a": 1, "a": 2}}']
    content = "\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]"
    _, rows = read(write(tmp_path / name, content))
    assert [row.problem for row in rows] == ["the key 'text' stands twice", None]


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


def test_a_ragged_line_is_marked_and_the_next_is_read(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", "label,text\nA\nB,x,y\nC,z\n"))
    assert [row.problem for row in rows] == [
        "ragged line: 1 cells where 2 are expected",
        "ragged line: 3 cells where 2 are expected",
        None,
    ]
    assert rows[1].fields == {"label": "B", "text": "x,y"}
    assert rows[2] == RawRow(3, {"label": "C", "text": "z"})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_lone_column_takes_whole_lines(end: str, tmp_path: Path) -> None:
    lines = ["text", "Oil climbs, stocks fall", "Goal; again", '"Probe, ""lands"""', "a,b,,c"]
    _, rows = read(write(tmp_path / "a.csv", end.join(lines)))
    assert [row["text"] for row in fields(rows)] == [lines[1], lines[2], 'Probe, "lands"', "a,b,,c"]


def test_nul_and_broken_bytes_stay_in_their_row(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", b"label,text\nA,nul\x00here\nB,K\xfcche\nC,fine\n"))
    assert [row.fields["text"] for row in rows] == ["nul\x00here", "K\udcfcche", "fine"]
    _, rows = read(write(tmp_path / "a.jsonl", b'{"label": "B", "text": "K\xfcche"}\n{"label": "C", "text": "fine"}\n'))
    assert [row.fields["text"] for row in rows] == ["K\udcfcche", "fine"]


def test_a_header_in_no_utf8_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"header of .*a\.csv is not valid UTF-8 in 'cat\\udce9gorie'.*'CSV UTF-8'"):
        open_file(write(tmp_path / "a.csv", b"text,cat\xe9gorie\nOil climbs,x\n"))


@pytest.mark.parametrize("broken", [b'"caf\\ud83d"', b'"caf\xe9"'])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_in_no_utf8_costs_its_row_only(name: str, broken: bytes, tmp_path: Path) -> None:
    lines = [b'{"text": "x"}', b'{"text": "y", ' + broken + b": 1}", '{"text": "z", "caf\u00e9": 1}'.encode()]
    table, rows = read(
        write(tmp_path / name, b"\n".join(lines) if name == "a.jsonl" else b"[" + b",".join(lines) + b"]")
    )
    assert [row.problem and row.problem.partition(";")[0] for row in rows] == [
        None, "broken encoding: a key is not valid UTF-8", None,
    ]  # fmt: skip
    assert rows[1].fields["text"] == "y"
    assert "caf\u00e9" in table.columns
    for column in table.columns:
        column.encode()


def test_a_lone_surrogate_in_json_stays_in_its_row(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.jsonl", '{"label": "B", "text": "\\ud800"}\n{"label": "C", "text": "fine"}\n'))
    assert [row.fields["text"] for row in rows] == ["\ud800", "fine"]


def test_a_quote_lost_to_the_end_costs_its_own_row_only(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", 'label,text\nA,one\nB,"lost\nC,three\nD,four\n'))
    assert [row.fields.get("label") for row in rows if row.problem is None] == ["A", "C", "D"]
    (bad,) = [row for row in rows if row.problem]
    assert bad.number == 2
    assert "a quote is never closed" in str(bad.problem)
    assert 'B,"lost' in str(bad.fields)


def test_a_quote_lost_in_the_last_line(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", 'label,text\nA,one\nB,"lost'))
    assert [row.problem is None for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        ('text,id\n"Striker scores twice,1\n"Oil climbs",2\n"Probe lands, again",3\n', [1]),
        ('text,id\n"Striker scores,1\nThe "best" probe,2\n"two\nlines, at last",3\n', [1]),
        ('text,id\nOne,1\n"Striker scores,2\n"Oil climbs,3\n"Probe ""lands""",4\n', [2, 3]),
        ('text,id\n"Striker scores,1\n"Oil" climbs,2\n\n"Probe lands",3', [1]),
    ],
)
def test_a_quote_lost_before_another_costs_its_own_row_only(content: str, lost: list[int], tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", content))
    assert [row.number for row in rows if row.problem and "a quote is never closed" in row.problem] == lost
    whole = [row for row in rows if row.problem is None]
    assert [row.fields["id"] for row in whole] == [str(row.number) for row in whole]
    assert len(whole) + len(lost) == content.count(",") - 1 - content.count(", ")


def test_text_behind_a_closing_quote_is_forgiven_in_one_line(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", 'text,id\n"Striker" scores,1\n"Oil, ""light""",2\n"Probe"\t,3'))
    assert [row["text"] for row in fields(rows)] == ["Striker scores", 'Oil, "light"', "Probe\t"]


def test_a_cell_over_ten_megabytes_is_a_lost_quote(tmp_path: Path) -> None:
    line = "A," + "x" * 9_990 + "\n"
    _, rows = read(write(tmp_path / "a.csv", 'label,text\nA,one\nB,"lost\n' + line * 1_100))
    assert len(rows) == 1_102
    assert [row.number for row in rows if row.problem] == [2]
    assert sum(row.fields["text"] == "x" * 9_990 for row in rows if row.problem is None) == 1_100


def test_one_huge_line_is_one_bad_row(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", "label,text\nA,one\nB," + "x" * 10_000_001 + "\nC,three\n"))
    assert [row.problem is None for row in rows] == [True, False, True]
    assert len(str(rows[1].fields)) < 300


def test_a_lost_quote_in_the_first_row_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"first row of .* a quote is never closed"):
        open_file(write(tmp_path / "a.csv", 'label,"text\nA,one\n'))


def test_many_lost_quotes_are_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "CELL_LIMIT", 100)
    block = 'B,"lost\n' + "A,one\n" * 40
    _, rows = read(write(tmp_path / "a.csv", "label,text\n" + block * 50))
    assert sum(row.problem is None for row in rows) == 50 * 40
    assert sum(row.problem is not None for row in rows) == 50
    csv.field_size_limit(readers.CELL_LIMIT)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1, 2]", "not a JSON object but list"),
        ("3", "not a JSON object but int"),
        ("null", "not a JSON object but NoneType"),
        ('"text"', "not a JSON object but str"),
        ("{", "not JSON"),
        ("plain words", "not JSON"),
        ("1" * 5_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
    ],
)
def test_a_line_that_is_no_object_is_marked(line: str, reason: str, tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.jsonl", as_lines() + line + "\n" + as_lines()))
    assert [row.problem is None for row in rows] == [True] * 3 + [False] + [True] * 3
    assert rows[3].number == 4
    assert str(rows[3].problem).startswith(reason)


def test_an_array_marks_what_is_no_object(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.json", json.dumps([ROWS[0], 3, ROWS[1]])))
    assert [row.problem for row in rows] == [None, "not a JSON object but int", None]


@pytest.mark.parametrize("content", ['[{"a": 1}', "[" * 100_000, '[{"a": 1}]\n[{"a": 2}]'])
def test_a_broken_array_names_its_file(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
        open_file(write(tmp_path / "a.json", content))


@pytest.mark.parametrize("content", ["no json\nat all\n", "{}\n{}\n", "1\n2\n"])
def test_json_without_one_usable_row_is_refused_with_the_reason(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No row of .*a\.jsonl can be read; the first is"):
        open_file(write(tmp_path / "a.jsonl", content))


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


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"])
def test_an_empty_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty") as caught:
        open_file(write(tmp_path / name, b""))
    assert "label" not in str(caught.value)  # who predicts has none


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("content", ["\n\n", "\ufeff", "\r\n"])
def test_a_file_of_blank_lines_is_refused(name: str, content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows") as caught:
        open_file(write(tmp_path / name, content))
    assert "label" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_utf16_is_refused_with_the_way_out(encoding: str, packed: str, name: str, tmp_path: Path) -> None:
    text = as_csv() if name == "a.csv" else as_lines()
    content = (text if encoding == "utf-16" else "\ufeff" + text).encode(encoding)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    with pytest.raises(DataError, match=r"is UTF-16\. Save it as UTF-8"):
        open_file(write(tmp_path / (name + packed), pack(content)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (as_csv().encode("utf-16-le"), "not UTF-8 but UTF-16"),
        (as_csv().encode("utf-16-be"), "not UTF-8 but UTF-16"),
        (gzip.compress(b"text\nx\n"), r"packed by gzip.*\.gz"),
        (zstandard.compress(b"text\nx\n"), r"packed by zstd.*\.zst"),
        (b"PK\x03\x04\x14\x00\x06\x00", "ZIP archive, as Excel's workbooks are"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        (b"PAR1\x15\x04\x15\x00", r"is Parquet.*\.parquet"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.csv.gz"])
def test_what_is_no_text_is_said_to_be_what_it_is(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        open_file(write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content))


@pytest.mark.parametrize("content", ["PK\nx\n", "PAR1\nx\n", "a\nb\x00\n", "\x00a,b\nx,y\n", "x\n"])
def test_what_begins_nearly_so_is_read(content: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", content), header=True)[0].columns


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_packed_parquet_file_is_told_to_be_unpacked(packed: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Parquet packs by itself"):
        open_file(write(tmp_path / f"a.parquet{packed}", b"abc"))


@functools.cache
def big(suffix: str) -> bytes:
    """A few hundred kilobytes that do not compress to nothing, so that damage in the middle is far from the start."""
    numbers = np.random.default_rng(0).integers(0, 10**9, 40_000)
    lines = [f"{'AB'[n % 2]},text number {n}" for n in numbers]
    if suffix == ".csv":
        return ("label,text\n" + "\n".join(lines) + "\n").encode()
    return "".join(json.dumps({"label": line[0], "text": line[2:]}) + "\n" for line in lines).encode()


@functools.cache
def pack(content: bytes, packed: str) -> bytes:
    return (
        gzip.compress(content) if packed == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress(content)
    )


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("damage", ["cut", "cut at the end", "overwritten", "not packed at all", "one byte"])
def test_a_damaged_packed_file_is_a_data_error(packed: str, suffix: str, damage: str, tmp_path: Path) -> None:
    content = pack(big(suffix), packed)
    middle = len(content) // 2
    damaged = {
        "cut": content[:middle],
        "cut at the end": content[:-5],
        "overwritten": content[:middle] + b"\xff" * 100 + content[middle + 100 :],
        "not packed at all": big(suffix),
        "one byte": content[:1],
    }[damage]
    path = write(tmp_path / f"a{suffix}{packed}", damaged)
    with pytest.raises(DataError, match="cannot be read to its end"):
        read(path)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_same_files_whole_are_read(packed: str, suffix: str, tmp_path: Path) -> None:
    assert len(read(write(tmp_path / f"b{suffix}{packed}", pack(big(suffix), packed)))[1]) == 40_000


@pytest.mark.parametrize("damage", ["cut", "start", "middle", "end", "text"])
def test_a_damaged_parquet_file_is_a_data_error(damage: str, tmp_path: Path) -> None:
    texts = [f"text number {n}" for n in np.random.default_rng(0).integers(0, 10**9, 40_000)]
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"label": ["A", "B"] * 20_000, "text": texts}), whole)
    assert len(read(whole)[1]) == 40_000
    content = whole.read_bytes()
    middle = len(content) // 2
    damaged = {
        "cut": content[:middle],
        "start": b"XXXX" + b"\xff" * 100 + content[104:],
        "middle": content[:middle] + b"\xff" * 2_000 + content[middle + 2_000 :],
        "end": content[:-50] + b"\xff" * 50,
        "text": b"label,text\nA,x\n",
    }[damage]
    with pytest.raises(DataError, match="cannot be read"):
        read(write(tmp_path / "a.parquet", damaged))


BROKEN = [b"fine", b"K\xfcche"]


def broken(kind: pa.DataType) -> pa.Array:
    """Two texts of a text type, the second in no UTF-8."""
    raw = pa.large_binary() if kind == pa.large_string() else pa.binary()
    return pa.Array.from_buffers(kind, 2, pa.array(BROKEN, raw).buffers())


@pytest.mark.parametrize(
    ("array", "wrap"),
    [
        (broken(pa.string()), lambda text: text),
        (broken(pa.large_string()), lambda text: text),
        (pa.array(BROKEN, pa.binary_view()).view(pa.string_view()), lambda text: text),
        (pa.StructArray.from_arrays([broken(pa.string())], ["x"]), lambda text: {"x": text}),
        (pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), broken(pa.string())), lambda text: [text]),
    ],
    ids=["string", "large_string", "string_view", "struct", "list"],
)
def test_broken_utf8_in_parquet_costs_its_row_only(array: pa.Array, wrap: Callable[[str], Any], tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": ["A", "B"], "text": array}), tmp_path / "a.parquet")
    _, rows = read(tmp_path / "a.parquet")
    assert [row.fields["text"] for row in rows] == [wrap("fine"), wrap("K\udcfcche")]


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


@pytest.mark.parametrize("name", ["missing.csv", "newz.csv", "./newz-csv", "deep/er/newz.csv", "./newz-csv:train"])
def test_a_missing_file_is_a_data_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "news.csv", as_csv())
    with pytest.raises(DataError, match="There is no data file or folder") as caught:
        parse_source(name)
    assert ("Did you mean 'news.csv'" in str(caught.value)) is ("newz" in name)


@pytest.mark.parametrize("text", ["Oil climbs. " * 100, "Oil climbs as stocks fall", "news " + "x" * 300 + ".csv"])
def test_a_text_in_place_of_a_file_is_told_where_texts_go(text: str) -> None:
    with pytest.raises(DataError, match=r"There is no data file.*echo 'TEXT' \| newslora predict RUN -") as caught:
        parse_source(text)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "~nobody-of-this-name/a.csv"])
def test_a_name_that_can_be_no_path_is_a_data_error(name: str) -> None:
    with pytest.raises(DataError, match="There is no data file"):
        parse_source(name)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match="no regular file but a pipe or device"):
        parse_source(str(tmp_path / "a.csv"))


@pytest.mark.parametrize("name", ["a.txt", "a.xlsx", "a", "a.csv.bz2"])
def test_an_unknown_suffix_names_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot tell the format.*\.csv.*\.parquet.*\.gz or \.zst"):
        open_file(write(tmp_path / name, "x"))


def test_a_folder_of_split_files(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", as_csv())
    write(tmp_path / "dev.jsonl.gz", gzip.compress(as_lines().encode()))
    parquet(tmp_path / "test.parquet")
    write(tmp_path / "notes.txt", "x")
    write(tmp_path / "other.csv", as_csv())
    source = parse_source(str(tmp_path))
    assert source.kind == "folder"
    assert available_splits(source) == ("dev", "test", "train")
    assert [split_for(source, role) for role in ("train", "validation", "test")] == ["train", "dev", "test"]
    for split in ("train", "dev", "test", None):
        assert fields(read(tmp_path, split)[1]) == ROWS
    assert fields(read(f"{tmp_path}:dev")[1]) == ROWS
    with pytest.raises(DataError, match=r"no split 'tets'.*dev, test, train.*Did you mean 'test'"):
        read(f"{tmp_path}:tets")


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "train.old.csv"),
        ("train.csv", "train.jsonl"),
        ("Train.csv", "train.csv.gz"),
        ("train-00000-of-00002.csv", "train-00001-of-00002.csv"),
    ],
)
def test_several_files_of_one_split_are_refused_by_name(names: Sequence[str], tmp_path: Path) -> None:
    for name in (*names, "test.csv"):
        write(tmp_path / name, as_csv())
    with pytest.raises(DataError, match=r"2 files of its split 'train'") as caught:
        read(tmp_path, "test")
    assert all(name in str(caught.value) for name in names)


def test_the_only_part_of_a_split_is_the_split(tmp_path: Path) -> None:
    parquet(tmp_path / "train-00000-of-00001.parquet")
    assert fields(read(tmp_path)[1]) == ROWS


def test_a_folder_without_a_train_split_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no train split.*train\.csv.*nothing readable"):
        read(tmp_path)


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", as_csv())
    assert available_splits(parse_source(str(path))) == ()
    with pytest.raises(DataError, match="no split 'train': it has no splits"):
        read(f"{path}:train")


def test_a_colon_in_a_file_name_is_part_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a:b.csv", as_csv())
    assert parse_source(str(path)).split is None
    assert fields(read(path)[1]) == ROWS


def test_the_bundled_corpus() -> None:
    source = parse_source("corpus")
    assert [split_for(source, role) for role in ("train", "validation", "test")] == ["train", "validation", "test"]
    assert parse_source("corpus:test").split == "test"
    assert len(read("corpus:test")[1]) > 50


@pytest.mark.parametrize(
    ("text", "location", "split"),
    [
        ("someone/news:train[:10%]", "someone/news", "train[:10%]"),
        ("news:train[10:-5]", "news", "train[10:-5]"),
        ("news:train[:33%](pct1_dropremainder)", "news", "train[:33%](pct1_dropremainder)"),
        ("news:train[:10%]+test[5:]", "news", "train[:10%]+test[5:]"),
        ("news:train+test", "news", "train+test"),
        ("news:train[:10%", "news", "train[:10%"),  # for `datasets` to refuse
    ],
)
def test_slices_are_parted_from_a_hub_name(text: str, location: str, split: str) -> None:
    found = parse_source(text)
    assert (found.kind, found.location, found.split) == ("hub", location, split)
    assert (found.whole.text, found.whole.split) == (location, None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A save_to_disk folder of 120 and 30 rows, with brackets and a colon in its name."""
    folder = tmp_path_factory.mktemp("saved") / "news[1]:all"
    splits = {"train": range(120), "test": range(1000, 1030)}
    rows = {name: {"text": [str(n) for n in some], "label": ["A"] * len(some)} for name, some in splits.items()}
    made = {name: datasets.Dataset.from_dict(one) for name, one in rows.items()}
    datasets.disable_progress_bars()
    datasets.DatasetDict(made).save_to_disk(folder)
    return folder


def sliced(saved: Path, spec: str) -> tuple[str, list[str]]:
    table, rows = read(f"{saved}:{spec}")
    return table.sha256, [row["text"] for row in fields(rows)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train[:10%]", range(12)),
        ("train[-5%:]", range(114, 120)),
        ("train[100:110]", range(100, 110)),
        ("train[:-110]", range(10)),
        ("train[118:1_000]", range(118, 120)),
        ("train[:33%](pct1_dropremainder)", range(33)),
        ("train[:]", range(120)),
        ("test[:2] + train[5:7]", [1000, 1001, 5, 6]),
        ("test+train[:1]", [*range(1000, 1030), 0]),
    ],
)
def test_slices_of_a_saved_data_set_are_those_of_datasets(saved: Path, spec: str, expected: Sequence[int]) -> None:
    digest, texts = sliced(saved, spec)
    assert texts == [str(number) for number in expected]
    assert sliced(saved, spec) == (digest, texts)  # the hash is of the rows, and the same each time
    assert digest != sliced(saved, "train[1:2]")[0]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("train[:10%", "Unrecognized instruction format"),
        ("train[10%]", "Unrecognized instruction format"),
        ("train[:1.5%]", "Unrecognized instruction format"),
        ("train[a:b]", "Unrecognized instruction format"),
        ("[:10%]", "Unrecognized instruction format"),
        ("train[:200%]", "Percent slice boundaries"),
        ("train[:5](pct1_dropremainder)", "rounding"),
        ("tran[:10%]", "Unknown split"),
        ("train+tset", "Unknown split"),
        ("train[:0]", "rows 0 to 0 of 'train' are none"),
        ("train[9:5]+test", "rows 9 to 5 of 'train' are none"),
    ],
)
def test_a_slice_that_cannot_be_read_says_why_and_how_to_write_it(saved: Path, spec: str, reason: str) -> None:
    with pytest.raises(DataError, match=r"The slice of '.*' cannot be read.*NAME:train\[:10%\]") as caught:
        read(f"{saved}:{spec}")
    assert reason in str(caught.value)


@pytest.mark.parametrize("spec", ["train[:10%]", "train+dev", "[:1]"])
def test_only_data_sets_of_datasets_are_sliced(spec: str, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", as_csv())
    write(tmp_path / "dev.csv", as_csv())
    for place in (tmp_path, tmp_path / "dev.csv", "corpus"):
        with pytest.raises(
            DataError, match=r"Only data sets of the hub or of save_to_disk can be sliced; data\.train_rows"
        ):
            read(f"{place}:{spec}")


def test_a_hub_name_is_told_from_a_path() -> None:
    assert parse_source("someone/some_news").kind == "hub"
    assert parse_source("someone/some_news:test").split == "test"


def with_class_labels() -> datasets.Dataset:
    features = datasets.Features(
        {"label": datasets.ClassLabel(names=["World", "Sports"]), "title": datasets.Value("string"),
         "text": datasets.Value("string")}
    )  # fmt: skip
    coded = [row | {"label": ["World", "Sports"].index(row["label"])} for row in ROWS]
    return datasets.Dataset.from_list(coded, features=features)


def test_a_saved_data_set_gives_label_names(tmp_path: Path) -> None:
    with_class_labels().save_to_disk(tmp_path / "saved")
    source = parse_source(str(tmp_path / "saved"))
    assert source.kind == "arrow"
    assert available_splits(source) == ()
    table, rows = read(tmp_path / "saved")
    assert fields(rows) == ROWS
    assert table.columns == COLUMNS
    assert table.label_names == ("World", "Sports")


def test_an_unlabelled_row_of_a_saved_data_set_has_no_label(tmp_path: Path) -> None:
    saved = with_class_labels()
    coded = saved.with_format("arrow")[:].set_column(0, "label", pa.array([0, -1, None], pa.int64()))
    datasets.Dataset(coded, info=saved.info).save_to_disk(tmp_path / "saved")
    assert [row.fields["label"] for row in read(tmp_path / "saved")[1]] == ["World", None, None]


def test_a_saved_data_set_with_splits(tmp_path: Path) -> None:
    data = with_class_labels()
    datasets.DatasetDict({"train": data, "val": data.select([1])}).save_to_disk(tmp_path / "saved")
    source = parse_source(str(tmp_path / "saved"))
    assert source.kind == "arrow"
    assert set(available_splits(source)) == {"train", "val"}
    assert [split_for(source, role) for role in ("train", "validation", "test")] == ["train", "val", None]
    assert fields(read(tmp_path / "saved")[1]) == ROWS
    assert fields(read(f"{tmp_path / 'saved'}:val")[1]) == [ROWS[1]]
    one, other = read(tmp_path / "saved", "train")[0].sha256, read(tmp_path / "saved", "val")[0].sha256
    assert one != other
    with pytest.raises(DataError, match="no split 'test'"):
        read(f"{tmp_path / 'saved'}:test")


def test_a_saved_data_set_without_a_train_split_names_those_it_has(tmp_path: Path) -> None:
    datasets.DatasetDict({"north": with_class_labels()}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"no train split.*north"):
        read(tmp_path / "saved")


@pytest.mark.parametrize("damage", ["state", "arrow cut", "arrow overwritten", "arrow gone"])
def test_a_damaged_saved_data_set_is_a_data_error(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    with_class_labels().save_to_disk(folder)
    (arrow,) = folder.glob("*.arrow")
    if damage == "state":
        write(folder / "state.json", "{")
    elif damage == "arrow cut":
        write(arrow, arrow.read_bytes()[:100])
    elif damage == "arrow overwritten":
        write(arrow, b"\xff" * arrow.stat().st_size)
    else:
        arrow.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read(folder)


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


def test_a_path_names_a_source_and_rows_in_memory_do_not(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,label\none,1\n")
    assert parse_source(source) == parse_source(str(source))
    for rows in (pa.table({"text": ["one"]}), [("one", "Sports")], None):
        with pytest.raises(
            DataError, match=r"not (Table|list|NoneType)\. Write rows in memory to a CSV or Parquet file"
        ):
            parse_source(rows)  # type: ignore[arg-type]
