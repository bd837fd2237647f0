"""What comes out of Parquet and goes back into it: types, values and the size of its groups."""

import json
import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bulk_parts import given_file, run
from bulk_parts import small as small  # a fixture

from newslora.errors import InterruptedRun
from newslora.predict import writers


def typed_rows(number: int) -> pa.Table:
    """Columns of many types, each with a row that holds nothing, behind those of text."""
    held: dict[str, Any] = {
        "id": pa.array(range(number - 1), pa.int64()), "small": pa.array(range(number - 1), pa.uint8()),
        "yes": [place % 2 == 0 for place in range(number - 1)], "share": [0.1] * (number - 1),
        "tags": [["a", "b"]] * (number - 1), "wide": pa.array([[1, 2]] * (number - 1), pa.list_(pa.int32(), 2)),
        "by": [{"name": "x", "ids": [1]}] * (number - 1), "when": pa.array(range(number - 1), pa.timestamp("ns", "UTC")),
        "day": [date(2026, 11, 27)] * (number - 1), "price": [Decimal("1.20")] * (number - 1),
        "bytes": [b"\xff\x00"] * (number - 1), "pairs": pa.array([[("a", 1)]] * (number - 1), pa.map_(pa.string(), pa.int64())),
        "predicted": pa.array(range(number - 1), pa.int16()),
    }  # fmt: skip
    whole = {name: pa.array(values) if isinstance(values, list) else values for name, values in held.items()}
    columns = {name: pa.concat_arrays([values, pa.nulls(1, values.type)]) for name, values in whole.items()}
    return pa.table({"text": [f"text {place}" for place in range(number)], **columns})


def test_columns_of_parquet_keep_their_types_and_values(tmp_path: Path) -> None:
    given, source = typed_rows(20), tmp_path / "in.parquet"
    pq.write_table(given, source)
    run(source, tmp_path / "out.parquet")
    kept = pq.read_table(tmp_path / "out.parquet")
    assert kept["day"].to_pylist() == ["2026-11-27"] * 19 + [None]  # dates and times are read as text
    assert kept["when"].type == pa.string()
    for name in set(given.schema.names) - {"day", "when"}:
        column = kept["input_predicted" if name == "predicted" else name]
        assert (column.type, column.to_pylist()) == (given[name].type, given[name].to_pylist()), name
    for cut in range(7):  # stopped after so many chunks and one
        with pytest.raises(InterruptedRun):
            run(source, tmp_path / "cut.parquet", stop=[2, *[None] * cut].pop)
        run(source, tmp_path / "cut.parquet")
        assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "out.parquet").read_bytes()


def test_broken_texts_in_lists_and_objects_of_parquet_come_out(tmp_path: Path) -> None:
    """Texts with an escape for what is broken, as in a column of texts; bytes as they were."""
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"K\xfcche"]).buffers())
    raw, ends = pa.array([b"fine", b"\xff\x00"]), pa.array([0, 1, 2], pa.int32())
    columns = {
        "tags": pa.ListArray.from_arrays(ends, texts),
        "by": pa.StructArray.from_arrays([texts, pa.ListArray.from_arrays(ends, texts)], ["name", "all"]),
        "data": pa.ListArray.from_arrays(ends, raw),
        "held": pa.StructArray.from_arrays([raw], ["raw"]),
    }
    whole = {name: pa.concat_arrays([values, pa.nulls(1, values.type)]) for name, values in columns.items()}
    given = pa.table({"text": ["one", "two", "three"], **whole})
    pq.write_table(given, tmp_path / "in.parquet")
    assert run(tmp_path / "in.parquet", tmp_path / "out.parquet").predicted == 3
    kept = pq.read_table(tmp_path / "out.parquet").select(given.schema.names)
    assert kept.schema.types == given.schema.types
    assert kept["tags"].to_pylist() == [["fine"], ["K\\udcfcche"], None]
    assert kept["by"].to_pylist() == [
        {"name": "fine", "all": ["fine"]}, {"name": "K\\udcfcche", "all": ["K\\udcfcche"]}, None,
    ]  # fmt: skip
    assert kept["data"].to_pylist() == [[b"fine"], [b"\xff\x00"], None]
    assert kept["held"].to_pylist() == [{"raw": b"fine"}, {"raw": b"\xff\x00"}, None]


def test_parquet_of_other_values_is_text_as_json_writes_it(tmp_path: Path) -> None:
    rows = [
        {"text": "one", "x": True, "y": ["a", None], "z": {"k": 1}, "n": 5},
        {"text": "two", "x": float("nan"), "n": None},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(
        pa.table({"text": pa.array(["a", "b"]).dictionary_encode(), "x": pa.array([0.5, math.nan])}),
        tmp_path / "n.parquet",
    )
    run(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    one, two = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [one[name] for name in "xyzn"] == ["true", '["a", null]', '{"k": 1}', 5]
    assert [two[name] for name in "xyzn"] == [None] * 4
    run(tmp_path / "n.parquet", tmp_path / "m.parquet")
    kept = pq.read_table(tmp_path / "m.parquet")
    assert kept.schema.field("text").type == pa.string()
    assert math.isnan(kept["x"].to_pylist()[1])


LATE: dict[str, Any] = {"id": 7, "share": 2, "yes": False, "none": None, "mixed": 0, "long": 2**53 + 1, "huge": 2**63}


@pytest.mark.parametrize("form", ["lines", "array"])
def test_columns_of_json_keep_the_type_that_all_their_rows_have(form: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": f"text {place}",
            "id": place,
            "share": 0.5,
            "yes": True,
            "none": None,
            "mixed": "a",
            "long": 0.5,
            "huge": 1,
        }
        for place in range(20)
    ]
    rows[3] = {"text": "text 3", "id": None}
    rows[-1] |= LATE  # the last row decides as much as the first
    source, output = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    lines = [json.dumps(row) for row in rows]
    source.write_text("\n".join(lines) if form == "lines" else f"[{','.join(lines)}]")
    run(source, output)
    kept = pq.read_table(output)
    types = {"id": pa.int64(), "share": pa.float64(), "yes": pa.bool_()}
    for name in LATE:
        assert kept[name].type == types.get(name, pa.string()), name
    for name in types:
        assert kept[name].to_pylist() == [row.get(name) for row in rows], name
    assert kept["long"].to_pylist()[-2:] == ["0.5", str(2**53 + 1)]
    assert kept["huge"].to_pylist()[-2:] == ["1", str(2**63)]
    for cut in range(7):
        with pytest.raises(InterruptedRun):
            run(source, tmp_path / "cut.parquet", stop=[2, *[None] * cut].pop)
        run(source, tmp_path / "cut.parquet")
        assert (tmp_path / "cut.parquet").read_bytes() == output.read_bytes()


def test_parquet_row_groups_are_large_though_chunks_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = given_file(tmp_path, "in.csv")
    run(source, tmp_path / "one.parquet")
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1
    monkeypatch.setattr(writers, "GROUP_ROWS", 7)
    run(source, tmp_path / "more.parquet")
    file = pq.ParquetFile(tmp_path / "more.parquet")
    assert [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)] == [9, 9, 2]
    assert file.read().equals(pq.read_table(tmp_path / "one.parquet"))
