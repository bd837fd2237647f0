"""Row by row: the CSV of every prediction, and the wrong ones, most confident first."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from newslora import files
from newslora.data.articles import ArticleSet
from newslora.metrics.basic import Labels, Probabilities
from newslora.metrics.groups import surest_errors

MOST_ERRORS = 50  # in the JSON; the CSV holds all
TEXT_LENGTH = 500  # characters of a text in the JSON
DIGITS = 6


def write_rows(path: Path, articles: ArticleSet, names: tuple[str, ...], probabilities: Probabilities) -> None:
    """One line a row: row number, text, true label, predicted label, its probability, all probabilities."""
    lines = (
        [number, text, names[label], names[int(row.argmax())], short(row.max()), *map(short, row)]
        for number, text, label, row in zip(articles.rows, articles.texts, articles.labels, probabilities, strict=True)
    )
    heads = ["row", "text", "label", "predicted", "probability", *(f"p({name})" for name in names)]
    write_lines(path, heads, lines)


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
    heads = ["row", "text", "label", "predicted", "confidence", "probability of label"]
    lines = (
        [*(error[key] for key in heads[:4]), short(error["confidence"]), short(error["probability"])]
        for error in errors
    )
    write_lines(path, heads, lines)


def write_lines(path: Path, heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """A CSV file, atomically."""
    with files.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(heads)
        writer.writerows(lines)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + " ..."


def short(value: float) -> str:
    """A probability as the CSV files have it."""
    return f"{value:.{DIGITS}f}"
