"""Three rows, the forms they are written in, and how tests of sources read them."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from newslora.data.readers import RawRow, Table
from newslora.data.sources import open_table, parse_source

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
