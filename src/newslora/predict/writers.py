"""Finished rows -> CSV, JSON lines, Parquet, or lines for a terminal; in the order they come."""

import csv
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Protocol

OUTPUTS = (".csv", ".jsonl", ".parquet")


class Writer(Protocol):
    """Takes finished rows in order."""

    def __call__(self, rows: list[dict[str, Any]]) -> None: ...


def file_writer(
    path: Path, suffix: str, own: tuple[str, ...], added: Mapping[str, type], stack: ExitStack, separator: str = ";"
) -> Writer:
    """A writer of the format that `suffix` names; the stack closes the file.

    Args:
        path: file to write.
        suffix: one of `OUTPUTS`.
        own: the rows' own columns.
        added: columns of the answers, with the types of their values.
        stack: closes the file.
        separator: stands between the predicted labels of a row in a CSV file, where it may carry several.
    """
    names = [name for name in own if name not in added] + list(added)
    if suffix == ".parquet":
        return _parquet_writer(path, names, added, stack)
    # backslashreplace: a row that came in broken goes out without breaking the file
    stream = stack.enter_context(path.open("w", encoding="utf-8", errors="backslashreplace", newline=""))
    if suffix == ".jsonl":
        return json_writer(stream)
    table = csv.DictWriter(stream, names, restval="", extrasaction="ignore")
    table.writeheader()

    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if isinstance(row["predicted"], list):
                row = row | {"predicted": separator.join(row["predicted"])}
            table.writerow({name: _csv_cell(value) for name, value in row.items()})

    return write


def json_writer(output: IO[str]) -> Writer:
    """One JSON object a row and line."""

    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            output.write(_printable(json.dumps(row, ensure_ascii=False, default=str)) + "\n")
        output.flush()

    return write


def tab_writer(output: IO[str], text_columns: tuple[str, ...]) -> Writer:
    """`label TAB probability TAB text` a row; one that cannot be used says why."""

    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            text = " ".join(str(row[name]) for name in text_columns if row.get(name))
            text = _printable(" ".join(text.split()))
            if row["error"] is None:
                output.write(f"{row['predicted']}\t{row['probability']:.4f}\t{text}\n")
            else:
                output.write(f"-\t-\t{text}\t({row['error']})\n")
        output.flush()

    return write


def _parquet_writer(path: Path, names: list[str], added: Mapping[str, type], stack: ExitStack) -> Writer:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {float: pa.float64(), bool: pa.bool_(), list: pa.list_(pa.string())}
    schema = pa.schema([(name, kinds.get(added.get(name, str), pa.string())) for name in names])
    writer = stack.enter_context(pq.ParquetWriter(path, schema))

    def write(rows: list[dict[str, Any]]) -> None:
        columns = {name: [_parquet_cell(row.get(name), added.get(name, str)) for row in rows] for name in names}
        writer.write_table(pa.Table.from_pydict(columns, schema=schema))

    return write


def _parquet_cell(value: Any, kind: type) -> Any:
    return value if value is None or kind is not str else _printable(str(value))


def _csv_cell(value: Any) -> Any:
    """Truth values, lists and objects as JSON writes them, not as Python does."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (bool, list, dict)) else value


def _printable(text: str) -> str:
    """Undecodable bytes, which are lone surrogates here, made visible."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
