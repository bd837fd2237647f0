"""What is damaged in a file is said, never lost and never a traceback."""

import csv
import functools
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from source_parts import ROWS, as_csv, as_lines, read, write

from newslora.data import readers
from newslora.data.lines import UTF8_WAY
from newslora.data.readers import RawRow, open_file
from newslora.errors import DataError


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_stands_twice_costs_its_row_only(name: str, tmp_path: Path) -> None:
    lines = ['{"text": "x", "label": "A", "text": "y"}', '{"text": "z", "label": "B", "more": {"a": 1, "a": 2}}']
    content = "\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]"
    _, rows = read(write(tmp_path / name, content))
    assert [row.problem for row in rows] == ["the key 'text' stands twice", None]


def test_a_ragged_line_is_marked_and_the_next_is_read(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", "label,text\nA\nB,x,y\nC,z\n"))
    assert [row.problem for row in rows] == [
        "ragged line: 1 cells where 2 are expected",
        "ragged line: 3 cells where 2 are expected",
        None,
    ]
    assert rows[1].fields == {"label": "B", "text": "x,y"}
    assert rows[2] == RawRow(3, {"label": "C", "text": "z"})


def test_nul_and_broken_bytes_stay_in_their_row(tmp_path: Path) -> None:
    _, rows = read(write(tmp_path / "a.csv", b"label,text\nA,nul\x00here\nB,K\xfcche\nC,fine\n"))
    assert [row.fields["text"] for row in rows] == ["nul\x00here", "K\udcfcche", "fine"]
    _, rows = read(write(tmp_path / "a.jsonl", b'{"label": "B", "text": "K\xfcche"}\n{"label": "C", "text": "fine"}\n'))
    assert [row.fields["text"] for row in rows] == ["K\udcfcche", "fine"]


def test_a_header_in_no_utf8_is_refused_with_the_way_out(tmp_path: Path) -> None:
    told = rf"header of .*a\.csv is not valid UTF-8 in 'cat\\udce9gorie'.*{re.escape(UTF8_WAY)}\."
    with pytest.raises(DataError, match=told):
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
        (gzip.compress(b"text\nx\n", mtime=0), r"packed by gzip.*\.gz"),
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
        (pa.LargeListArray.from_arrays(pa.array([0, 1, 2], pa.int64()), broken(pa.string())), lambda text: [text]),
        (pa.FixedSizeListArray.from_arrays(broken(pa.string()), 1), lambda text: [text]),
    ],
    ids=["string", "large_string", "string_view", "struct", "list", "large_list", "fixed_size_list"],
)
def test_broken_utf8_in_parquet_costs_its_row_only(array: pa.Array, wrap: Callable[[str], Any], tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": ["A", "B"], "text": array}), tmp_path / "a.parquet")
    _, rows = read(tmp_path / "a.parquet")
    assert [row.fields["text"] for row in rows] == [wrap("fine"), wrap("K\udcfcche")]
