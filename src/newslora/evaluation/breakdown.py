"""Accuracy against length, confidence and a column of the data, such as the publisher."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.data.articles import ArticleSet, usable_text
from newslora.data.readers import RawRow, Table
from newslora.data.sources import Source, open_table
from newslora.errors import DataError, NewsloraError, RunError, near
from newslora.metrics.basic import Hits
from newslora.metrics.groups import accuracy_by_name, accuracy_by_number

SOURCES = ("source", "publisher", "domain", "agency", "outlet", "site", "feed")  # columns looked for unasked
NAME_LENGTH = 60  # characters kept of a value
NOTHING = "(none)"


def breakdowns(
    hits: Hits, confidence: NDArray[np.float64] | None, lengths: NDArray[np.int64], named: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """Accuracy in groups of rows: by length in tokens, by the answer's probability (None: a row has several), by columns.

    Returns:
        One dict a breakdown: `by`, `kind` ('number' or 'name') and `groups` (see newslora.metrics.groups).
    """
    found: list[dict[str, Any]] = []
    if confidence is not None:
        found.append({"by": "confidence", "kind": "number", "groups": accuracy_by_number(confidence, hits)})
    found.append({"by": "length", "kind": "number", "unit": "tokens", "groups": accuracy_by_number(lengths, hits)})
    return found + [by_name(column, values, hits) for column, values in named.items()]


def by_name(column: str, values: Sequence[str], hits: Hits) -> dict[str, Any]:
    """Accuracy by the values of a column."""
    return {"by": column, "kind": "name", "groups": accuracy_by_name(values, hits)}


def source_column(articles: ArticleSet, header: bool | None, wanted: str | None) -> dict[str, list[str]]:
    """Column -> its value in each article's row: the wanted column, else one that names the news' source, if any does.

    Args:
        articles: rows as read; their source is read once more, as articles do not carry other columns.
        header: as `data.header`.
        wanted: a column's name.

    Raises:
        DataError: no column of the wanted name, or a source that is gone or has changed since; unasked, that is no error.
    """
    try:
        return _source_column(articles, header, wanted)
    except NewsloraError:
        if wanted is not None:
            raise
        return {}  # a whole training may lie between, and is not to end without its evaluation for this


def _source_column(articles: ArticleSet, header: bool | None, wanted: str | None) -> dict[str, list[str]]:
    taken = {*articles.text_columns, articles.label_column}
    table = open_table(articles.source, articles.split, header)
    if table.sha256 != articles.sha256:  # its rows may be others now, or in another order
        raise DataError(
            f"'{articles.described}' has changed since its rows were read. Restore it, or score it as it is now."
        )
    column = find_column(table, articles.source, wanted, taken)
    if column is None:
        return {}
    values = column_values(table, column, articles.rows.tolist())
    # unasked, a column that differs in every row (an address, say) would only fill pages
    telling = 2 <= len(set(values)) <= len(values) // 2
    return {column: values} if wanted or telling else {}


def find_column(table: Table, source: Source, wanted: str | None, taken: set[str | None]) -> str | None:
    """The wanted column, or a known one that is neither text nor label.

    Raises:
        DataError: the wanted column is missing.
    """
    if wanted is None:
        return next((name for name in table.columns if name.casefold() in SOURCES and name not in taken), None)
    if wanted not in table.columns:
        raise DataError(
            f"There is no column '{wanted}' in '{source.text}': its columns are {', '.join(table.columns[:20])}."
            f"{near(wanted, table.columns)}"
        )
    return wanted


def column_values(table: Table, column: str, rows: Sequence[int]) -> list[str]:
    """The column's value in these rows (1-based numbers), in their order."""
    asked = set(rows)
    found = {row.number: row.fields.get(column) for row in table.rows if row.number in asked}
    texts = {number: "" if value is None else " ".join(str(value).split()) for number, value in found.items()}
    return [texts.get(number, "")[:NAME_LENGTH] or NOTHING for number in rows]


def as_scored(
    rows: Iterable[RawRow], texts: Mapping[int, str], columns: Sequence[str], source: str, by: str
) -> Iterator[RawRow]:
    """The rows, each seen to hold the text that was scored under its number: older newsloras parted some files otherwise.

    Raises:
        RunError: one holds another.
    """
    for row in rows:
        if row.number in texts and columns and usable_text(row, columns)[0] != texts[row.number].strip():
            raise RunError(
                f"Row {row.number:,} of '{source}' is read otherwise now than when it was scored. Score the rows as they are "
                f"read now, given as data (--data {source} --by {by})."
            )
        yield row
