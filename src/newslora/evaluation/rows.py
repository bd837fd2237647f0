"""Row by row: the CSV of every prediction, written and read back, and the wrong ones, most confident first."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from newslora import files
from newslora.data.articles import ArticleSet
from newslora.data.readers import CELL_LIMIT
from newslora.errors import RunError
from newslora.metrics.basic import Labels, Probabilities
from newslora.metrics.groups import surest_errors
from newslora.runfolder import SCORE_AGAIN

MOST_ERRORS = 50  # in the JSON; the CSV holds all
TEXT_LENGTH = 500  # characters of a text in the JSON
DIGITS = 6
COLUMNS = ("row", "text", "label", "predicted")  # what the CSV of every prediction begins with


def write_rows(path: Path, articles: ArticleSet, names: tuple[str, ...], probabilities: Probabilities) -> None:
    """One line a row: row number, text, true label, predicted label, its probability, all probabilities."""
    lines = (
        [number, text, names[label], names[int(row.argmax())], short(row.max()), *map(short, row)]
        for number, text, label, row in zip(articles.rows, articles.texts, articles.labels, probabilities, strict=True)
    )
    files.write_csv(path, [*COLUMNS, "probability", *(f"p({name})" for name in names)], lines)


def find_errors(
    articles: ArticleSet, names: tuple[str, ...], labels: Labels, probabilities: Probabilities
) -> list[dict[str, Any]]:
    """Every wrong row, the most confident first: `row`, `text`, `label`, `predicted`, `confidence`, and `probability`,
    what the right label was given."""
    return [
        {
            "row": int(articles.rows[place]),
            "text": articles.texts[place],
            "label": names[labels[place]],
            "predicted": names[int(probabilities[place].argmax())],
            "confidence": float(probabilities[place].max()),
            "probability": float(probabilities[place, labels[place]]),
        }
        for place in surest_errors(labels, probabilities)
    ]


def shortened(errors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first fifty for the JSON, long texts cut."""
    return [error | {"text": _cut(error["text"])} for error in errors[:MOST_ERRORS]]


def write_errors(path: Path, errors: Sequence[dict[str, Any]]) -> None:
    """One line a wrong row, whole text."""
    lines = (
        [*(error[key] for key in COLUMNS), short(error["confidence"]), short(error["probability"])] for error in errors
    )
    files.write_csv(path, [*COLUMNS, "confidence", "probability of label"], lines)


def read_lines(path: Path, columns: Sequence[str] = COLUMNS) -> Iterator[dict[str, str]]:
    """The lines of a CSV file that was written here, one at a time.

    Args:
        path: the file.
        columns: that it must have; others are read too.

    Raises:
        RunError: it is missing, lacks a column, or is damaged.
    """
    csv.field_size_limit(CELL_LIMIT)  # Python's own limit is shorter than many articles
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise ValueError(f"it has no column '{missing[0]}'")
            for line in reader:
                if None in line or None in line.values():
                    raise ValueError(f"line {reader.line_num:,} has not {len(reader.fieldnames or ())} cells")
                yield line
    except FileNotFoundError:
        raise RunError(f"There is no {path}. {SCORE_AGAIN}") from None
    except (ValueError, csv.Error) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> RunError:
    """What to raise of a stored evaluation that cannot be read."""
    told = error if str(error) else repr(error)
    return RunError(f"{path} is damaged ({told}). {SCORE_AGAIN}")


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + " ..."


def short(value: float) -> str:
    """A probability as the CSV files have it."""
    return f"{value:.{DIGITS}f}"
