"""A local file -> raw rows, one at a time, bad ones included and marked: CSV, JSON lines, Parquet, plain or compressed."""

import contextlib
import csv
import gzip
import io
import itertools
import json
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from newslora.errors import DataError, NewsloraError
from newslora.files import sha256_file

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
PACKED = (".gz", ".zst")
CELL_LIMIT = 10_000_000  # characters; a longer cell is a lost quote, not an article
CsvRecord = tuple[list[str], str | None]  # cells, and why they cannot be trusted, if they cannot


@dataclass(frozen=True, slots=True)
class RawRow:
    """One record as found. `problem` says why its fields cannot be trusted, if they cannot."""

    number: int  # 1-based, header not counted
    fields: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """An opened source: column names, rows to be read once, and a hash of what was read."""

    columns: tuple[str, ...]
    rows: Iterator[RawRow]
    has_header: bool
    sha256: str
    label_names: tuple[str, ...] | None = None  # a classes.txt beside the file, as AG News is shipped


def open_file(path: Path, header: bool | None = None) -> Table:
    """Open a local file by its suffix; see `open_table`."""
    kind = file_format(path)
    if kind is None:
        raise DataError(
            f"Cannot tell the format of {path}: its name ends in none of {', '.join(SUFFIXES)} "
            f"(each also with {' or '.join(PACKED)}). Rename it or convert it."
        )
    with _reading(path):
        if path.stat().st_size == 0:
            raise DataError(f"The file {path} is empty. A data file has at least one row of text and label.")
        digest = sha256_file(path)
        label_names = _class_names(path.parent / "classes.txt")
        if kind == ".parquet":
            columns, rows = _parquet_rows(path)
            return Table(columns, _guarded(path, rows), True, digest, label_names)
        if kind in (".csv", ".tsv"):
            found, has_header, rows = _csv_rows(path, kind, header)
            return Table(found, _guarded(path, rows), has_header, digest, label_names)
        rows = json_rows(path)
        first = list(itertools.islice(rows, 100))
    if not first:
        raise DataError(f"The file {path} holds no rows. A data file has at least one row of text and label.")
    columns = tuple(dict.fromkeys(name for row in first for name in row.fields))
    if all(row.problem or not row.fields for row in first):
        reason = first[0].problem or "an object without fields"
        raise DataError(f"No row of {path} can be read; the first is {reason}. Give one object a line, or one array.")
    return Table(columns, _guarded(path, itertools.chain(first, rows)), True, digest, label_names)


def json_rows(path: Path) -> Iterator[RawRow]:
    """JSON lines, or one JSON array of objects -> rows; a line that is no object becomes a marked row."""
    with _open_text(path) as stream:
        start = stream.read(1)
        while start.isspace():
            start = stream.read(1)
        if start == "[":
            try:
                values = json.loads(start + stream.read())
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"The file {path} is not valid JSON: {error}. Give one object a line, or one array of objects."
                ) from None
            yield from (_json_row(number, value) for number, value in enumerate(values, 1))
            return
        number = 0
        for line in itertools.chain([start + stream.readline()], stream):
            if not line.strip():
                continue
            number += 1
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield RawRow(number, {"line": line.rstrip("\n")}, f"not JSON: {error}")
            else:
                yield _json_row(number, value)


def _json_row(number: int, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(number, value)
    try:
        line = json.dumps(value)[:200]
    except RecursionError:
        line = "(nested too deeply to show)"
    return RawRow(number, {"line": line}, f"not a JSON object but {type(value).__name__}")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged or locked file makes its reader raise into a DataError."""
    try:
        yield
    except NewsloraError:
        raise
    except (OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:  # Arrow's own are among them
        raise DataError(f"The file {path} cannot be read to its end: {error}. Make or copy it again.") from error


def _guarded(path: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    with _reading(path):
        yield from rows


def _class_names(path: Path) -> tuple[str, ...] | None:
    """The lines of a classes.txt; None where there is none."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"The label names in {path} are not valid UTF-8. Save it as UTF-8, or remove it.") from None
    return tuple(line.strip() for line in lines if line.strip()) or None


def file_format(path: Path) -> str | None:
    """The suffix that names the format, compression looked through; None when unknown."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def _open_text(path: Path) -> IO[str]:
    """UTF-8 text of a possibly compressed file; undecodable bytes become lone surrogates, found row by row later."""
    raw: Any
    if path.suffix.lower() == ".gz":
        raw = gzip.open(path, "rb")  # noqa: SIM115  # closed with the text stream over it
    elif path.suffix.lower() == ".zst":
        import pyarrow as pa

        raw = pa.input_stream(path, compression="zstd")  # zstandard.open ends a truncated file without a word
    else:
        raw = path.open("rb")
    stream = io.BufferedReader(raw)
    try:
        if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"The file {path} is UTF-16. Save it as UTF-8.")
    except BaseException:
        stream.close()
        raise
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_rows(path: Path, kind: str, header: bool | None) -> tuple[tuple[str, ...], bool, Iterator[RawRow]]:
    """Column names ('1', '2', ... without a header), whether there is one, and the rows."""
    from newslora.data.columns import is_header

    with _open_text(path) as peek:
        line = next((line for line in peek if line.strip()), "")
    # csv.Sniffer guesses wrongly on prose; the delimiter a first line holds most of is right for tables of text
    delimiter = "\t" if kind == ".tsv" else max(",;\t", key=line.count)
    csv.field_size_limit(CELL_LIMIT)
    records: Iterator[CsvRecord] = filter(any, _csv_records(path, delimiter))  # ([], None), a blank line, is not a row
    first, problem = next(records, (None, None))
    if first is None:
        raise DataError(f"The file {path} holds no rows. A data file has at least one row of text and label.")
    if problem is not None:
        raise DataError(f"The first row of {path} is {problem}. Repair or remove it.")
    has_header = is_header(first) if header is None else header
    if has_header:
        columns = tuple(name.strip() for name in first)
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise DataError(f"The file {path} names the column '{twice}' twice. Give each column its own name.")
    else:
        columns = tuple(str(number) for number in range(1, len(first) + 1))
        records = itertools.chain([(first, None)], records)
    return columns, has_header, _csv_fields(records, columns)


def _csv_records(path: Path, delimiter: str) -> Iterator[CsvRecord]:
    """Records, and why one cannot be trusted.

    A lost quote swallows lines until the cell limit or the end of the file: only the line that opens it is given up,
    the swallowed ones are read again.
    """
    with _open_text(path) as stream:
        again: deque[str] = deque()  # lines to be read once more
        taken: list[str] = []  # lines of the record being read
        ended = False

        def lines() -> Iterator[str]:
            nonlocal ended
            while line := again.popleft() if again else stream.readline():
                taken.append(line)
                yield line
            ended = True

        while True:
            for cells in _until_error(csv.reader(lines(), delimiter=delimiter)):
                if ended or cells is None:  # a record that wants more lines than there are has an open quote
                    break
                yield cells, None
                taken.clear()
            if not taken:
                return
            problem = f"not readable as CSV: a quote is never closed, or a cell has over {CELL_LIMIT:,} characters"
            yield [taken[0].rstrip("\r\n")[:200]], problem
            again.extendleft(reversed(taken[1:]))
            taken.clear()
            ended = False


def _until_error(reader: Iterator[list[str]]) -> Iterator[list[str] | None]:
    try:
        yield from reader
    except csv.Error:
        yield None


def _csv_fields(records: Iterator[CsvRecord], columns: tuple[str, ...]) -> Iterator[RawRow]:
    for number, (cells, problem) in enumerate(records, 1):
        if problem is None and len(cells) != len(columns):
            problem = f"ragged line: {len(cells)} cells where {len(columns)} are expected"
        yield RawRow(number, dict(zip(columns, cells, strict=False)), problem)


def _parquet_rows(path: Path) -> tuple[tuple[str, ...], Iterator[RawRow]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The file {path} cannot be read as Parquet: {error}.") from None

    def as_bytes(field: pa.Field) -> pa.Field:
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        return field.with_type(pa.large_binary()) if text else field

    def rows() -> Iterator[RawRow]:
        number = itertools.count(1)
        for batch in file.iter_batches(batch_size=4096):
            # as bytes, for pyarrow refuses a whole batch over one broken text; columns without a text type hold bytes too
            for fields in batch.cast(pa.schema(map(as_bytes, batch.schema))).to_pylist():
                yield RawRow(next(number), {name: _decoded(value) for name, value in fields.items()})

    return tuple(file.schema_arrow.names), rows()


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
