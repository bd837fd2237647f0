"""A local file -> raw rows, one at a time, bad ones included and marked: CSV, JSON lines, Parquet, plain or compressed."""

import contextlib
import csv
import itertools
import json
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from newslora.data.csvfile import CsvRecord, csv_records, find_delimiter
from newslora.data.jsontypes import column_type, kind_of
from newslora.data.lines import OVERLONG, UTF8_WAY, Line, LineReader, Meter, printable
from newslora.data.parquetfile import open_parquet, parquet_rows
from newslora.errors import DataError, NewsloraError
from newslora.files import sha256_file

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
PACKED = (".gz", ".zst")
CELL_LIMIT = 10_000_000  # characters; a longer cell is a lost quote, not an article
COLUMN_LIMIT = 10_000  # keys of all rows; more are no columns but values, and every row would be as wide
PEEK = 100  # rows one of which can be read, where any can
DAMAGE = (OSError, EOFError, ValueError, OverflowError, NotImplementedError, zlib.error)  # Arrow's own are among them
Behind = Callable[[int, int], Iterator["RawRow"]]  # number and end of a row -> the rows behind it


@dataclass(frozen=True, slots=True)
class RawRow:
    """One record as found. `problem` says why its fields cannot be trusted, if they cannot."""

    number: int  # 1-based, header not counted
    fields: dict[str, Any]
    problem: str | None = None
    end: int = field(default=0, compare=False)  # bytes of the text up to the row's end, where rows are lines of text


@dataclass(frozen=True, slots=True)
class Table:
    """An opened source: column names, rows to be read once, and a hash of what is read."""

    columns: tuple[str, ...]
    rows: Iterator[RawRow]
    has_header: bool
    sha256: str
    # of a classes.txt beside the file, as AG News is shipped, or a data set's own
    label_names: tuple[str, ...] | None = None
    behind: Behind | None = None  # where a row can be found again without reading those before it
    meter: Meter = field(default_factory=Meter, compare=False)
    # of a Parquet file's columns, as Arrow has them; of JSON's, bool, int, float or None
    types: dict[str, Any] = field(default_factory=dict)

    def rows_behind(self, number: int, end: int) -> Iterator[RawRow]:
        """The rows behind row `number`, which ends at `end`; all of them behind row 0."""
        if number and self.behind is not None:
            return self.behind(number, end)
        return itertools.islice(self.rows, number, None)


def open_file(path: Path, header: bool | None = None) -> Table:
    """Open a local file by its suffix; see `open_table`."""
    kind = file_format(path)
    if kind is None:
        raise DataError(
            f"Cannot tell the format of {path}: its name ends in none of {', '.join(SUFFIXES)} "
            f"(all but .parquet also with {' or '.join(PACKED)}). Rename it or convert it."
        )
    if kind == ".parquet" and path.suffix.lower() in PACKED:
        raise DataError(f"The file {path} is packed twice, for Parquet packs by itself. Unpack it.")
    with _reading(path):
        before = path.stat()
        if before.st_size == 0:
            raise DataError(f"The file {path} is empty: nothing in it names a column. Make or copy it again.")
        digest, meter = sha256_file(path), Meter()
        types: dict[str, Any] = {}
        if kind == ".parquet":
            types, behind = _parquet_rows(path, meter)
            columns, has_header = tuple(types), True
        elif kind in (".csv", ".tsv"):
            columns, has_header, behind = _csv_rows(path, kind, header, meter)
        else:
            types = _json_types(path)
            columns, has_header, behind = tuple(types), True, partial(json_rows, path, meter)
        label_names = _class_names(path.parent / "classes.txt")

    def guarded(number: int, end: int) -> Iterator[RawRow]:
        with _reading(path):
            yield from behind(number, end)
            if _changed(before, path.stat()):
                raise DataError(f"The file {path} changed while it was read. Give a file that nothing writes to.")

    return Table(columns, guarded(0, 0), has_header, digest, label_names, guarded, meter, types)


def _changed(before: os.stat_result, now: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns)


def _json_types(path: Path) -> dict[str, type | None]:
    """All columns of all rows, in the order they are met: one that begins in the last row is one; and their types."""
    rows = json_rows(path)
    first = list(itertools.islice(rows, PEEK))
    if not first:
        raise DataError(f"The file {path} holds no rows, and only rows name columns in JSON. Make or copy it again.")
    if all(row.problem or not row.fields for row in first):
        reason = first[0].problem or "an object without fields"
        raise DataError(f"No row of {path} can be read; the first is {reason}. Give one object a line, or one array.")
    if len(first) == 1 and all(isinstance(value, (dict, list)) for value in first[0].fields.values()):
        raise DataError(
            f"The file {path} is one object of lists or objects: a table by columns, or rows under a name. Give one object a "
            "line, or one array of objects (in pandas, to_json with orient='records', lines=True)."
        )
    kinds: defaultdict[str, set[type | str]] = defaultdict(set)
    for row in itertools.chain(first, rows):
        for name, value in row.fields.items():
            kinds[name].add(kind_of(value))
        if len(kinds) > COLUMN_LIMIT:
            raise DataError(
                f"The rows of {path} name over {COLUMN_LIMIT:,} columns, the last in row {row.number:,}. Give every row "
                "the same few keys."
            )
    return {name: column_type(found) for name, found in kinds.items()}


def json_rows(path: Path, meter: Meter | None = None, number: int = 0, end: int = 0) -> Iterator[RawRow]:
    """JSON lines, or one JSON array of objects -> rows behind row `number`, which ends at `end`; a line that is no object
    becomes a marked row."""
    at_start = end == 0
    with LineReader(path, end, meter) as lines:
        for line in lines:
            end += line.size
            if not line.text.strip():
                continue
            if at_start and line.text.lstrip().startswith("["):
                yield from itertools.islice(_array_rows(path), number, None)
                return
            at_start = False
            number += 1
            yield _line_row(number, line, end)


def _array_rows(path: Path) -> Iterator[RawRow]:
    """The rows of an array, which is read whole; none has an end to go on from."""
    with LineReader(path) as lines:
        text = lines.rest().lstrip()
    try:
        values = _decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"The file {path} is not valid JSON: {error}. Give one object a line, or one array of objects."
        ) from None
    return (_json_row(number, value, 0) for number, value in enumerate(values, 1))


def _line_row(number: int, line: Line, end: int) -> RawRow:
    if line.overlong:
        return RawRow(number, {"line": line.text[:200]}, f"not readable as JSON: {OVERLONG}", end)
    try:
        value = _decode(line.text)
    except (ValueError, RecursionError) as error:
        return RawRow(number, {"line": line.text.rstrip("\n")}, f"not JSON: {error}", end)
    return _json_row(number, value, end, line.text.isascii() and "\\u" not in line.text)


class _Repeating(dict[str, Any]):
    """An object one of whose keys stands twice; which value is meant cannot be known."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeating = _Repeating(found)
    repeating.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return repeating


_decode = json.JSONDecoder(object_pairs_hook=_object).decode


def _json_row(number: int, value: Any, end: int, plain: bool = False) -> RawRow:
    """The row of a value; `plain` where its text can hold no broken key."""
    if isinstance(value, dict):
        problem = f"the key {value.key!r} stands twice" if isinstance(value, _Repeating) else None
        if not plain and any(printable(name) != name for name in value):
            value = {printable(name): one for name, one in value.items()}
            problem = f"broken encoding: a key is not valid UTF-8; {UTF8_WAY}"
        return RawRow(number, value, problem, end)
    try:
        line = json.dumps(value)[:200]
    except RecursionError:
        line = "(nested too deeply to show)"
    return RawRow(number, {"line": line}, f"not a JSON object but {type(value).__name__}", end)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged or locked file makes its reader raise into a DataError."""
    try:
        yield
    except NewsloraError:
        raise
    except DAMAGE as error:
        raise DataError(f"The file {path} cannot be read to its end: {error}. Make or copy it again.") from error


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


def _csv_rows(path: Path, kind: str, header: bool | None, meter: Meter) -> tuple[tuple[str, ...], bool, Behind]:
    """Column names ('1', '2', ... without a header), whether there is one, and the rows."""
    from newslora.data.columns import NO_HEADER, is_header

    delimiter, begin = find_delimiter(path, kind)
    csv.field_size_limit(CELL_LIMIT)
    first = next(csv_records(path, delimiter, begin), None)
    if first is None:
        raise DataError(f"The file {path} holds no rows, and no header either. Make or copy it again.")
    if first.problem is not None:
        raise DataError(f"The first row of {path} is {first.problem}. Repair or remove it.")
    has_header = is_header(first.cells) if header is None else header
    if has_header:
        begin, columns = first.end, _header(first.cells)
        _check_names(path, columns, "" if header else f" {NO_HEADER}")
    else:
        columns = tuple(str(number) for number in range(1, len(first.cells) + 1))
    unnamed = len(first.cells) - len(columns)

    def behind(number: int, end: int) -> Iterator[RawRow]:
        return _csv_fields(csv_records(path, delimiter, end or begin, meter), columns, delimiter, number, unnamed)

    return columns, has_header, behind


def _header(cells: list[str]) -> tuple[str, ...]:
    """The names of a header, without several empty ones at its end, which spreadsheets write without need."""
    names = tuple(name.strip() for name in cells)
    if names.count("") > 1:
        names = names[: max((place for place, name in enumerate(names, 1) if name), default=len(names))]
    return names


def _csv_fields(
    records: Iterator[CsvRecord], columns: tuple[str, ...], delimiter: str, number: int, unnamed: int
) -> Iterator[RawRow]:
    """Records as rows. Surplus cells stay in the last column, so that none is lost; a lone column takes whole lines.

    Of as many cells as there are unnamed columns, the empty ones at a record's end are left out.
    """
    width = len(columns)
    for place, (cells, problem, end) in enumerate(records, number + 1):
        if unnamed and problem is None:
            while len(cells) > width and not cells[-1]:
                cells.pop()
        if problem is None and len(cells) != width:
            if width > 1:
                problem = f"ragged line: {len(cells)} cells where {width} are expected"
            if len(cells) > width:
                cells[width - 1 :] = [delimiter.join(cells[width - 1 :])]
        yield RawRow(place, dict(zip(columns, cells, strict=False)), problem, end)


def _check_names(path: Path, columns: tuple[str, ...], way: str = "") -> None:
    """Refuse a header that names a column twice or in no UTF-8; `way` is another way out, with a space before it."""
    if broken := [printable(name) for name in columns if printable(name) != name]:
        raise DataError(f"The header of {path} is not valid UTF-8 in '{broken[0]}'. To go on, {UTF8_WAY}.")
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise DataError(f"The file {path} names the column '{twice}' twice. Give each column its own name.{way}")


def _parquet_rows(path: Path, meter: Meter) -> tuple[dict[str, Any], Behind]:
    """Arrow type of each column, and the rows."""
    file = open_parquet(path)
    _check_names(path, tuple(file.schema_arrow.names))

    def behind(number: int, end: int) -> Iterator[RawRow]:
        for place, fields in enumerate(parquet_rows(file, number, meter), number + 1):
            yield RawRow(place, fields)

    return {column.name: column.type for column in file.schema_arrow}, behind
