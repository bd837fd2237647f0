"""Tables in memory -> JSON lines: a run reads its rows again later, and has to find them in a file.

Whatever hands out its columns as an Arrow stream is a table: frames of pandas (from 2.2) and polars, tables of Arrow. The lines
are made of the rows' values alone, so that the same rows have the same hash, whatever library and version held them.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from newslora import files
from newslora.data.parquetfile import plain_rows
from newslora.data.sources import parse_source
from newslora.errors import DataError

DIGITS = 12  # of its hash, in a kept table's name
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index without a name, which says nothing of a row


class Frame(Protocol):
    """A table in memory."""

    columns: Any

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


def is_frame(given: object) -> TypeGuard[Frame]:
    """Whether it is a table in memory, rather than one column of it or anything else."""
    return hasattr(given, "__arrow_c_stream__") and hasattr(given, "columns")


def take_frames(settings: dict[str, Any], keys: Iterable[str]) -> dict[str, Frame]:
    """Tables in memory, by the setting that has a file's name otherwise; taken out of the settings.

    Raises:
        DataError: rows that are neither.
    """
    found = {}
    for key in keys:
        rows = settings.get(key)
        if is_frame(rows):
            found[key] = settings.pop(key)
        elif rows is not None and not isinstance(rows, (str, os.PathLike)):
            parse_source(rows)  # says what a source is
    return found


def write_frame(frame: Frame, path: Path) -> None:
    """Write its rows as JSON lines.

    Raises:
        DataError: a column holds values of several kinds, or shares its name with another.
        StorageError: the disk refuses.
    """
    with files.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(_lines(frame))


def keep_frame(frame: Frame, folder: Path) -> Path:
    """The file of its rows in `folder`, called by their hash: the same rows are kept once. Errors as in `write_frame`."""
    found = hashlib.sha256()
    for line in _lines(frame):
        found.update(line.encode("utf-8"))
    path = folder / f"table-{found.hexdigest()[:DIGITS]}.jsonl"
    if not path.exists():
        write_frame(frame, path)
    return path


def _lines(frame: Frame) -> Iterator[str]:
    return (files.json_line(row, str) for row in _rows(frame))


def _rows(frame: Frame) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    try:
        batches = pa.RecordBatchReader.from_stream(frame)
        if len(set(batches.schema.names)) < len(batches.schema.names):
            raise ValueError(f"two columns have one name: {', '.join(batches.schema.names)}")
        named = [name for name in batches.schema.names if not _INDEX.fullmatch(name)]
        for batch in batches:
            yield from plain_rows(batch.select(named))
    except (pa.ArrowException, ValueError, TypeError) as error:
        reason = " ".join(map(str, error.args)) or repr(error)
        raise DataError(
            f"The {type(frame).__name__} cannot be read as a table of columns of one kind each: {reason}. Convert that column "
            "or drop it."
        ) from error
