"""A file (or lines of text) -> the same rows with predictions; bad rows come out as rows with an error."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from newslora import files
from newslora.config import DataSettings
from newslora.data.articles import usable_text
from newslora.data.columns import find_text_columns
from newslora.data.readers import RawRow
from newslora.data.sources import open_table, parse_source, split_for
from newslora.errors import SettingsError, near
from newslora.predict.classifier import Classifier

CHUNK = 1024  # rows in memory at once; enough for batches of like length
ADDED = ("predicted", "probability", "error")
OUTPUTS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows went in and how they came out; rows == predicted + failed."""

    rows: int
    predicted: int
    failed: int


class Writer(Protocol):
    """Takes finished rows in order."""

    def __call__(self, rows: list[dict[str, Any]]) -> None: ...


def predict_source(
    classifier: Classifier,
    source: str,
    output: Path,
    settings: DataSettings,
    progress: Callable[[int], None] = lambda rows: None,
) -> Counted:
    """Classify every row of a source into `output` (CSV, JSON lines or Parquet by its suffix), which appears when whole.

    Args:
        classifier: a loaded run.
        source: as `data.source`; the test split of one that has splits.
        output: file to make.
        settings: for column names and header; the text columns default to those found.
        progress: told the rows of each finished chunk.

    Raises:
        SettingsError: an output suffix that names no format.
        DataError: an unreadable source.
        StorageError: the disk refuses.
    """
    if output.suffix.lower() not in OUTPUTS:
        raise SettingsError(
            f"The output '{output}' ends in '{output.suffix}'. Allowed: {', '.join(OUTPUTS)}.{near(output.suffix, OUTPUTS)}"
        )
    columns, rows, text_columns = _opened(source, settings)
    with files.atomic_path(output) as temporary, ExitStack() as stack:
        write = _writer(temporary, output.suffix.lower(), columns, stack)
        return _run(classifier, rows, text_columns, write, progress)


def predict_lines(classifier: Classifier, lines: Iterable[str], output: IO[str]) -> Counted:
    """One text a line -> one line `label TAB probability TAB text`; a line that cannot be used says why."""
    rows = (RawRow(number, {"text": line.rstrip("\r\n")}) for number, line in enumerate(lines, 1))
    return _run(classifier, rows, ("text",), _tab_writer(output, ("text",)), lambda rows: None)


def print_source(classifier: Classifier, source: str, output: IO[str], settings: DataSettings) -> Counted:
    """Like `predict_source`, printed as `predict_lines` prints."""
    _, rows, text_columns = _opened(source, settings)
    return _run(classifier, rows, text_columns, _tab_writer(output, text_columns), lambda rows: None)


def _opened(source: str, settings: DataSettings) -> tuple[tuple[str, ...], Iterator[RawRow], tuple[str, ...]]:
    parsed = parse_source(source)
    split = split_for(parsed, "test") or split_for(parsed, "train")
    table = open_table(parsed, split, settings.header)
    label = settings.label_column
    if label is None and not table.has_header and len(table.columns) >= 3:
        label = table.columns[0]  # AG News' own form: class, title, description
    text_columns = find_text_columns(table.columns, settings.text_columns, table.has_header, label, f"'{source}'")
    return table.columns, table.rows, text_columns


def _run(
    classifier: Classifier,
    rows: Iterable[RawRow],
    text_columns: tuple[str, ...],
    write: Writer,
    progress: Callable[[int], None],
) -> Counted:
    total = failed = 0
    source = iter(rows)
    while chunk := list(itertools.islice(source, CHUNK)):
        checked = [usable_text(row, text_columns) for row in chunk]
        answers = iter(classifier([text for text, problem in checked if problem is None]))
        finished = []
        for row, (_, problem) in zip(chunk, checked, strict=True):
            fields = {name: value for name, value in row.fields.items() if name not in ADDED}
            if problem is None:
                answer = next(answers)
                added = {"predicted": answer.label, "probability": round(answer.probability, 6), "error": None}
            else:
                failed += 1
                added = {"predicted": None, "probability": None, "error": problem}
            finished.append({**fields, **added})
        write(finished)
        total += len(chunk)
        progress(len(chunk))
    return Counted(total, total - failed, failed)


def _writer(path: Path, suffix: str, columns: tuple[str, ...], stack: ExitStack) -> Writer:
    names = [name for name in columns if name not in ADDED] + list(ADDED)
    if suffix == ".parquet":
        return _parquet_writer(path, names, stack)
    # backslashreplace: a row that came in broken goes out without breaking the file
    stream = stack.enter_context(path.open("w", encoding="utf-8", errors="backslashreplace", newline=""))
    if suffix == ".jsonl":

        def write_json(rows: list[dict[str, Any]]) -> None:
            stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

        return write_json
    table = csv.DictWriter(stream, names, restval="", extrasaction="ignore")
    table.writeheader()

    def write_csv(rows: list[dict[str, Any]]) -> None:
        table.writerows(rows)

    return write_csv


def _parquet_writer(path: Path, names: list[str], stack: ExitStack) -> Writer:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.float64() if name == "probability" else pa.string()) for name in names])
    writer = stack.enter_context(pq.ParquetWriter(path, schema))

    def write(rows: list[dict[str, Any]]) -> None:
        writer.write_table(
            pa.Table.from_pydict({name: [_cell(row.get(name), name) for row in rows] for name in names}, schema=schema)
        )

    return write


def _cell(value: Any, name: str) -> Any:
    if value is None or name == "probability":
        return value
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _tab_writer(output: IO[str], text_columns: tuple[str, ...]) -> Writer:
    def write(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            text = " ".join(str(row[name]) for name in text_columns if row.get(name))
            text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")
            if row["error"] is None:
                output.write(f"{row['predicted']}\t{row['probability']:.4f}\t{text}\n")
            else:
                output.write(f"-\t-\t{text}\t({row['error']})\n")
        output.flush()

    return write
