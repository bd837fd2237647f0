"""Raw rows -> articles with label ids; rows that cannot be used go to quarantine with a reason."""

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora import files
from newslora.config import DataSettings
from newslora.data.columns import find_label_column, find_text_columns
from newslora.data.combinations import SeveralLabels, indicator_table, rows_of_labels, split_labels
from newslora.data.labels import (
    LabelSet,
    OneLabel,
    is_missing,
    is_unicode,
    json_kind,
    label_key,
    learn_labels,
    make_label_set,
    numbered,
)
from newslora.data.lines import UTF8_WAY, printable
from newslora.data.readers import RawRow, Table
from newslora.data.sources import Source, open_table
from newslora.data.store import gathered, kept, read_columns
from newslora.data.texts import Quarantine, RowSpool, Texts
from newslora.errors import DataError
from newslora.runtime import cache_folder

PEEK = 100  # rows looked at to tell a headerless file's label column
UNSEEN = ("Cc", "Cf")  # control and format characters, to Unicode
REASONS_SHOWN = 3  # commonest reasons an error names
FORMAT = "newslora articles 4"  # raised with every change of what is read of the same bytes: tests/unit/test_other_versions.py


@dataclass(frozen=True, slots=True)
class ArticleSet:
    """The usable and unusable rows of one split. R, the usable ones, may be more than memory holds."""

    source: Source
    split: str | None
    sha256: str
    text_columns: tuple[str, ...]
    label_column: str | None
    texts: Texts  # R
    labels: NDArray[np.int64]  # (R,) label ids; where rows carry several labels, places in `combinations`
    rows: NDArray[np.int64]  # (R,) 1-based rows of the source
    quarantined: Quarantine
    combinations: NDArray[np.bool_] | None = None  # (K, C) which labels a combination holds
    reading: str | None = None  # hash of the bytes and of how they were read; None where these are a part of the rows

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def described(self) -> str:
        return self.source.text if self.split in (None, self.source.split) else f"{self.source.text}:{self.split}"

    @property
    def indicators(self) -> NDArray[np.bool_]:
        """(R, C) whether a row carries a label, where rows carry several."""
        if self.combinations is None:
            raise TypeError("rows of one label have no indicators")
        found: NDArray[np.bool_] = self.combinations[self.labels]
        return found

    def take(self, places: NDArray[np.int64]) -> "ArticleSet":
        """Some of the usable rows, in this order."""
        labels, rows = gathered(self.labels, places), gathered(self.rows, places)
        return replace(self, texts=self.texts[places], labels=labels, rows=rows, reading=None)

    def record(self) -> dict[str, Any]:
        """What data.json says of this split."""
        return {
            "source": self.described,
            "sha256": self.sha256,
            "text_columns": list(self.text_columns),
            "label_column": self.label_column,
            "rows": len(self),
            "quarantined": len(self.quarantined),
        }


def read_articles(
    source: Source,
    split: str | None,
    settings: DataSettings,
    labels: LabelSet | None,
    usual: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> tuple[ArticleSet, LabelSet]:
    """Read one split; with `labels` None (the training rows), learn the label set from it.

    Rows that outgrow memory are kept in the cache, under the hash of everything they depend on.

    Args:
        source, split: where the rows are, as `open_table` takes them.
        settings: how they are read.
        labels: those of the training rows.
        usual: the text columns of the training rows, taken where all are there and `settings` names none.
        names: where `labels` is None, the labels of a trained head, which then are the label set; None: it is learnt.

    Raises:
        DataError: nothing readable, columns that cannot be found, or a label that is none of `names`.
    """
    where = f"'{source.text}'"
    table, columns, label, first, labels = _found(source, split, settings, labels, usual)
    reading = _fingerprint(table, columns, label, settings, labels, names)
    path = cache_folder() / "articles" / f"{reading}.safetensors"
    found = read_columns(path)
    if found is None:
        spool = RowSpool()
        reader = SeveralLabels(labels, settings.label_separator) if settings.multi_label else OneLabel(labels)
        _read_rows(itertools.chain(first, table.rows), columns, label, reader, spool)
        held = spool.columns()
        if labels is None:
            if isinstance(reader, SeveralLabels):
                reader.check_separator(where)
            labels = learn_labels(reader.spellings(), table, settings, where, names)
            held["labels"] = gathered(reader.renumber(labels), held["labels"])
        notes: dict[str, Any] = {
            "names": labels.names,
            "base": labels.base,
            "spellings": labels.spellings,
            "combinations": reader.combinations(),
            "reasons": dict(spool.reasons.most_common(REASONS_SHOWN)),
        }
        found = (kept(path, held, notes) if spool.spilled else held), notes
    held, notes = found
    if labels is None:
        labels = make_label_set(tuple(notes["names"]), notes["base"])
        if names is not None:  # numbers may name them in another order, which a base would not say
            labels = replace(labels, spellings=notes["spellings"])
    aside = Quarantine(source.text, Texts(held["aside"], held["aside_offsets"]), notes["reasons"])
    texts = Texts(held["text"], held["text_offsets"])
    if not texts and not aside:
        raise DataError(f"The source {where} holds no rows. A data file has at least one row of text and label.")
    combinations = indicator_table(notes["combinations"], len(labels)) if settings.multi_label else None
    return ArticleSet(
        source, split, table.sha256, columns, label, texts, held["labels"], held["rows"], aside, combinations, reading
    ), labels


def reading_of(
    source: Source, split: str | None, settings: DataSettings, labels: LabelSet, usual: Sequence[str] = ()
) -> str:
    """What `read_articles` would give as `reading`, called with the same; only the first rows are read for it."""
    table, columns, label, _, known = _found(source, split, settings, labels, usual)
    return _fingerprint(table, columns, label, settings, known)


def _found(
    source: Source, split: str | None, settings: DataSettings, labels: LabelSet | None, usual: Sequence[str]
) -> tuple[Table, tuple[str, ...], str, list[RawRow], LabelSet | None]:
    """A split, opened: its columns of text, that of the label, its first rows, and the labels as it may write them."""
    table = open_table(source, split, settings.header)
    columns, label, first = find_columns(table, settings, f"'{source.text}'", usual)
    if labels is not None:
        labels = numbered(labels, _first_keys([row.fields.get(label) for row in first], settings), settings.label_names)
    return table, columns, label, first, labels


def find_columns(
    table: Table, settings: DataSettings, where: str, usual: Sequence[str] = ()
) -> tuple[tuple[str, ...], str, list[RawRow]]:
    """The columns of the text, that of the label, and the table's first rows, which are read to tell them.

    `where` is the source, for the error; `usual` as `read_articles` takes them.

    Raises:
        DataError: columns that cannot be found.
    """
    first = list(itertools.islice(table.rows, PEEK))
    shown = [[str(value) for value in row.fields.values()] for row in first if row.problem is None]
    label = find_label_column(table.columns, settings.label_column, table.has_header, shown, where)
    return find_text_columns(table.columns, settings.text_columns, table.has_header, label, where, usual), label, first


def _first_keys(values: Sequence[Any], settings: DataSettings) -> list[str]:
    """The labels of the first rows, as written."""
    if not settings.multi_label:
        return [label_key(value) for value in values]
    lists = [split_labels(value, settings.label_separator) for value in values]
    return [key for keys in lists if not isinstance(keys, str) for key in keys]


def _read_rows(
    rows: Iterable[RawRow], columns: Sequence[str], label: str, reader: OneLabel | SeveralLabels, spool: RowSpool
) -> None:
    """Every row into the spool, with the number its reader gives it."""
    for row in rows:
        text, reason = usable_text(row, columns)
        found = reader.read(row.fields.get(label)) if reason is None else reason
        if isinstance(found, str):
            spool.set_aside(row.number, found, excerpt(row))
        else:
            spool.add(row.number, text, found)


def _fingerprint(
    table: Table,
    columns: Sequence[str],
    label: str,
    settings: DataSettings,
    labels: LabelSet | None,
    names: Sequence[str] | None = None,
) -> str:
    """Hex SHA-256 of all that decides what is read: the bytes, how they are taken, and the labels or what names them."""
    naming = [table.label_names, settings.label_names, settings.require_all_names]
    naming += [] if names is None else [tuple(names)]
    known = naming if labels is None else sorted(labels.spellings.items())
    several = settings.label_separator if settings.multi_label else None
    facts = [FORMAT, table.sha256, table.columns, table.has_header, columns, label, known, several]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def usable_text(row: RawRow, columns: Sequence[str]) -> tuple[str, str | None]:
    """The row's text (non-empty columns joined with a space) and, if it cannot be used, why."""
    if row.problem is not None:
        return "", row.problem
    for name in columns:  # what Python would write for them is nobody's text
        if isinstance(value := row.fields.get(name), (dict, list, bool)):
            return "", f"no text: the column '{name}' holds {json_kind(value)}"
    parts = [str(value).strip() for name in columns if not is_missing(value := row.fields.get(name))]
    text = " ".join(part for part in parts if part)
    if is_empty(text):
        return "", "empty text"
    return (text, None) if is_unicode(text) else ("", f"broken encoding: not valid UTF-8; {UTF8_WAY}")


def is_empty(text: str) -> bool:
    """Whether nothing in it can be seen: white space, control and format characters, such as a zero-width space, at most."""
    # a text nearly always begins with something to see, and costs one look
    return all(one.isspace() or unicodedata.category(one) in UNSEEN for one in text)


def excerpt(row: RawRow) -> str:
    """The row's first 200 characters as JSON that any tool can read, damage made visible."""
    try:
        shown = json.dumps(row.fields, ensure_ascii=False, default=str)[:200]
    except RecursionError:
        shown = "(nested too deeply to show)"
    return printable(shown)


def require_labels(labels: LabelSet, train: ArticleSet) -> None:
    """Stop where there is nothing to tell apart.

    Raises:
        DataError: fewer than two labels.
    """
    seen = np.flatnonzero(rows_of_labels(train.labels, train.combinations, len(labels)))
    if len(seen) < 2:
        only = f"only '{labels.names[seen[0]]}'" if len(seen) else "none"
        raise DataError(
            f"Training needs at least two labels; '{train.described}' has {only}. Check data.label_column "
            f"(now '{train.label_column}')."
        )


def write_quarantine(path: Path, sets: Iterable[ArticleSet]) -> None:
    """All rows set aside, one JSON object a line: source, row, reason, excerpt."""
    with files.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        for one in sets:
            stream.writelines(files.json_line(asdict(bad)) for bad in one.quarantined)


def check_quarantine(one: ArticleSet, limit: float, kept_in: Path | None) -> None:
    """Stop when more than `limit` (a share) of the rows cannot be used, or none can.

    Raises:
        DataError: with the commonest reasons and where to read all of them.
    """
    bad, total = len(one.quarantined), len(one) + len(one.quarantined)
    if not bad or (bad / total <= limit and len(one)):
        return
    listed = "; ".join(f"{reason} ({count:,} rows)" for reason, count in one.quarantined.reasons.items())
    where = f" All of them with row numbers: {kept_in}." if kept_in else ""
    raise DataError(
        f"{bad:,} of {total:,} rows of '{one.described}' cannot be used ({bad / total:.1%}; "
        f"data.max_quarantine_share allows {limit:.1%}): {listed}.{where} Repair the rows, or raise the limit (--set)."
    )
