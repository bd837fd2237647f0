"""A file (or lines of text) -> the same rows with predictions; bad rows come out as rows with an error."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from newslora import files
from newslora.config import DataSettings
from newslora.data.articles import usable_text
from newslora.data.columns import find_text_columns
from newslora.data.readers import RawRow
from newslora.data.sources import open_table, parse_source, split_for
from newslora.errors import SettingsError, near
from newslora.predict.answers import Answers
from newslora.predict.classifier import Classifier
from newslora.predict.writers import OUTPUTS, Writer, file_writer, json_writer, tab_writer

CHUNK = 1024  # rows in memory at once; enough for batches of like length


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows went in and how they came out; rows == predicted + abstained + failed."""

    rows: int
    predicted: int
    abstained: int  # left undecided, where that was asked for
    failed: int


def predict_source(
    classifier: Classifier,
    source: str,
    output: Path,
    settings: DataSettings,
    progress: Callable[[int], None] = lambda rows: None,
    answers: Answers | None = None,
) -> Counted:
    """Classify every row of a source into `output` (CSV, JSON lines or Parquet by its suffix), which appears when whole.

    Args:
        classifier: a loaded run.
        source: as `data.source`; the test split of one that has splits.
        output: file to make.
        settings: for column names and header; the text columns default to those found.
        progress: told the rows of each finished chunk.
        answers: what to tell of each row; None: label and probability.

    Raises:
        SettingsError: an output suffix that names no format, or a level of abstention the run cannot tell.
        DataError: an unreadable source.
        MissingExtraError: abstaining needs the extra 'abstain'.
        StorageError: the disk refuses.
    """
    if output.suffix.lower() not in OUTPUTS:
        raise SettingsError(
            f"The output '{output}' ends in '{output.suffix}'. Allowed: {', '.join(OUTPUTS)}.{near(output.suffix, OUTPUTS)}"
        )
    told = answers or Answers(classifier.labels, multi_label=classifier.multi_label)
    columns, rows, text_columns = open_texts(source, settings)
    with files.atomic_path(output) as temporary, ExitStack() as stack:
        separator = classifier.card.label_separator
        write = file_writer(temporary, output.suffix.lower(), columns, told.columns(), stack, separator)
        return _run(classifier, rows, text_columns, told, write, progress)


def predict_lines(
    classifier: Classifier, lines: Iterable[str], output: IO[str], answers: Answers | None = None
) -> Counted:
    """One text a line -> one line `label TAB probability TAB text`; a line that cannot be used says why.

    Where `answers` asks for more, each line is a JSON object, as in a .jsonl file.
    """
    rows = (RawRow(number, {"text": line.rstrip("\r\n")}) for number, line in enumerate(lines, 1))
    return _print(classifier, rows, ("text",), output, answers)


def print_source(
    classifier: Classifier, source: str, output: IO[str], settings: DataSettings, answers: Answers | None = None
) -> Counted:
    """Like `predict_source`, printed as `predict_lines` prints."""
    _, rows, text_columns = open_texts(source, settings)
    return _print(classifier, rows, text_columns, output, answers)


def open_texts(source: str, settings: DataSettings) -> tuple[tuple[str, ...], Iterator[RawRow], tuple[str, ...]]:
    """A source (its test split where it has splits) -> its columns, its rows, and which columns hold the text.

    Raises:
        DataError: an unreadable source, or no column of text.
    """
    parsed = parse_source(source)
    split = split_for(parsed, "test") or split_for(parsed, "train")
    table = open_table(parsed, split, settings.header)
    label = settings.label_column
    if label is None and not table.has_header and len(table.columns) >= 3:
        label = table.columns[0]  # AG News' own form: class, title, description
    text_columns = find_text_columns(table.columns, settings.text_columns, table.has_header, label, f"'{source}'")
    return table.columns, table.rows, text_columns


def _print(
    classifier: Classifier,
    rows: Iterable[RawRow],
    text_columns: tuple[str, ...],
    output: IO[str],
    answers: Answers | None,
) -> Counted:
    told = answers or Answers(classifier.labels, multi_label=classifier.multi_label)
    write = tab_writer(output, text_columns) if told.plain else json_writer(output)
    return _run(classifier, rows, text_columns, told, write, lambda rows: None)


def _run(
    classifier: Classifier,
    rows: Iterable[RawRow],
    text_columns: tuple[str, ...],
    answers: Answers,
    write: Writer,
    progress: Callable[[int], None],
) -> Counted:
    total = abstained = failed = 0
    source, added = iter(rows), answers.columns()
    while chunk := list(itertools.islice(source, CHUNK)):
        checked = [usable_text(row, text_columns) for row in chunk]
        found = iter(classifier([text for text, problem in checked if problem is None], answers.abstain))
        finished = []
        for row, (_, problem) in zip(chunk, checked, strict=True):
            fields = {name: value for name, value in row.fields.items() if name not in added}
            if problem is None:
                prediction = next(found)
                abstained += prediction.abstained
                finished.append(fields | answers.of(prediction))
            else:
                failed += 1
                finished.append(fields | answers.of_failed(problem))
        write(finished)
        total += len(chunk)
        progress(len(chunk))
    return Counted(total, total - abstained - failed, abstained, failed)
