"""Finished rows -> CSV, JSON lines, Parquet, or lines for a terminal; in the order they come."""

import csv
import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from newslora import files
from newslora.data.lines import printable, visible
from newslora.data.readers import PACKED
from newslora.predict.arrow_types import cell_of, kept_type, told

OUTPUTS = (".csv", ".jsonl", ".parquet", *(kind + packed for kind in (".csv", ".jsonl") for packed in PACKED))
GROUP_ROWS, GROUP_BYTES = 65_536, 64_000_000  # of a Parquet file's row groups, whichever comes first


class Writer(Protocol):
    """Takes finished rows in order."""

    def __call__(self, rows: list[dict[str, Any]]) -> None: ...


@dataclass(frozen=True, slots=True)
class Format:
    """How rows become bytes that can be appended, and those a file.

    What rows become does not depend on the rows before, so a file may be made in several sittings.
    """

    head: bytes  # before the first row
    encode: Callable[[list[dict[str, Any]]], bytes]
    convert: Callable[[Path, Path], None] | None = None  # appended bytes -> file; None: they are the file


def file_format(
    suffix: str,
    own: tuple[str, ...],
    added: Mapping[str, type],
    separator: str = ";",
    types: Mapping[str, Any] | None = None,
) -> Format:
    """The format that `suffix` names.

    Args:
        suffix: one of `OUTPUTS`. What is packed is packed piece by piece, as members of one file, which any reader joins.
        own: the rows' own columns, under the names they are kept as.
        added: columns of the answers, with the types of their values.
        separator: stands between the predicted labels of a row in a CSV file, where it may carry several.
        types: of the rows' own columns, as `Table` has them, which a Parquet file keeps; of others it holds text.
    """
    names = [*own, *added]
    if suffix == ".parquet":
        return _parquet(own, added, types or {})
    if suffix.endswith(PACKED):
        kind, _, packing = suffix.rpartition(".")
        return _packed(file_format(kind, own, added, separator), packing)
    if suffix == ".jsonl":
        return Format(b"", lambda rows: "".join(map(_json_line, rows)).encode())
    head = _csv_bytes(names, [dict(zip(names, names, strict=True))])
    return Format(head, lambda rows: _csv_bytes(names, [_joined(row, separator) for row in rows]))


def _packed(plain: Format, packing: str) -> Format:
    import pyarrow as pa

    def pack(data: bytes) -> bytes:
        if packing == "zst":
            return bytes(pa.compress(data, codec="zstd", asbytes=True))
        return gzip.compress(data, mtime=0)  # no time in it: the same rows are the same bytes

    return Format(pack(plain.head), lambda rows: pack(plain.encode(rows)))


def json_writer(output: IO[str]) -> Writer:
    """One JSON object a row and line."""

    def write(rows: list[dict[str, Any]]) -> None:
        output.writelines(map(_json_line, rows))
        output.flush()

    return write


def tab_writer(output: IO[str], text_columns: tuple[str, ...]) -> Writer:
    """`label TAB probability TAB text` a row; one that cannot be used says why."""

    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            text = _shown(" ".join(str(row[name]) for name in text_columns if row.get(name)))
            if row["error"] is None:
                output.write(f"{_shown(row['predicted'])}\t{row['probability']:.4f}\t{text}\n")
            else:
                output.write(f"-\t-\t{text}\t({_shown(row['error'])})\n")
        output.flush()

    return write


def _shown(text: str) -> str:
    """In a line of a terminal."""
    return printable(visible(" ".join(text.split())))


def _json_line(row: dict[str, Any]) -> str:
    return files.json_line(row, default=str)


def _joined(row: dict[str, Any], separator: str) -> dict[str, Any]:
    labels = row["predicted"]
    return row | {"predicted": separator.join(labels)} if isinstance(labels, list) else row


def _csv_bytes(names: list[str], rows: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, names, restval="", extrasaction="ignore")
    table.writerows({name: told(value) for name, value in row.items()} for row in rows)
    # a row that came in broken goes out without breaking the file
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _parquet(own: tuple[str, ...], added: Mapping[str, type], types: Mapping[str, Any]) -> Format:
    """Arrow's stream format, whose messages can be appended, then Parquet, which cannot."""
    import pyarrow as pa

    words = pa.list_(pa.struct([("word", pa.string()), ("score", pa.float64())]))
    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_(), list: pa.list_(pa.string()), dict: words}
    kept = {name: kept_type(types.get(name)) for name in own} | {name: kinds[kind] for name, kind in added.items()}
    schema, cells = pa.schema(list(kept.items())), {name: cell_of(kind) for name, kind in kept.items()}

    def encode(rows: list[dict[str, Any]]) -> bytes:
        columns = {name: [cell(row.get(name)) for row in rows] for name, cell in cells.items()}
        return bytes(pa.RecordBatch.from_pydict(columns, schema=schema).serialize())

    return Format(bytes(schema.serialize()), encode, _stream_to_parquet)


def _stream_to_parquet(stream: Path, output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with (
        pa.OSFile(str(stream)) as source,
        pa.ipc.open_stream(source) as batches,
        pq.ParquetWriter(output, batches.schema) as writer,
    ):
        held: list[Any] = []
        for batch in batches:
            held.append(batch)
            if sum(map(len, held)) >= GROUP_ROWS or sum(one.nbytes for one in held) >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held))
                held = []
        if held:
            writer.write_table(pa.Table.from_batches(held))
