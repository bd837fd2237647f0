"""Raw rows -> articles with label ids; rows that cannot be used go to quarantine with a reason."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora import files
from newslora.config import DataSettings
from newslora.data.columns import find_label_column, find_text_columns
from newslora.data.readers import RawRow, Table
from newslora.data.sources import Source, open_table
from newslora.data.store import gathered, kept, read_columns
from newslora.data.texts import Quarantine, RowSpool, Texts
from newslora.errors import DataError
from newslora.runtime import cache_folder

NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # '01' is a name: it and '1' may be two labels
PEEK = 100  # rows looked at to tell a headerless file's label column
REASONS_SHOWN = 3  # commonest reasons an error names
FORMAT = "newslora articles 1"


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Label names in id order, and every way the data may write them."""

    names: tuple[str, ...]
    base: int | None  # the number the data gives the first label, where it numbers them
    spellings: dict[str, int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def find(self, value: Any) -> int | None:
        """A label as the data writes it (name, number) -> id; None when unknown."""
        key = label_key(value)
        found = self.spellings.get(key)
        return found if found is not None else self.spellings.get(key.casefold())


@dataclass(frozen=True, slots=True)
class ArticleSet:
    """The usable and unusable rows of one split. R, the usable ones, may be more than memory holds."""

    source: Source
    split: str | None
    sha256: str
    text_columns: tuple[str, ...]
    label_column: str | None
    texts: Texts  # R
    labels: NDArray[np.int64]  # (R,) label ids
    rows: NDArray[np.int64]  # (R,) 1-based rows of the source
    quarantined: Quarantine

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def described(self) -> str:
        return self.source.text if self.split in (None, self.source.split) else f"{self.source.text}:{self.split}"

    def take(self, places: NDArray[np.int64]) -> "ArticleSet":
        """Some of the usable rows, in this order."""
        labels, rows = gathered(self.labels, places), gathered(self.rows, places)
        return replace(self, texts=self.texts[places], labels=labels, rows=rows)

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
    source: Source, split: str | None, settings: DataSettings, labels: LabelSet | None
) -> tuple[ArticleSet, LabelSet]:
    """Read one split; with `labels` None (the training rows), learn the label set from it.

    Rows that outgrow memory are kept in the cache, under the hash of everything they depend on.

    Raises:
        DataError: nothing readable, or columns that cannot be found.
    """
    table = open_table(source, split, settings.header)
    where = f"'{source.text}'"
    first = list(itertools.islice(table.rows, PEEK))
    shown = [[str(value) for value in row.fields.values()] for row in first if row.problem is None]
    label = find_label_column(table.columns, settings.label_column, table.has_header, shown, where)
    columns = find_text_columns(table.columns, settings.text_columns, table.has_header, label, where)
    if labels is not None:
        labels = numbered(labels, [label_key(row.fields.get(label)) for row in first], settings.label_names)
    path = cache_folder() / "articles" / f"{_fingerprint(table, columns, label, settings, labels)}.safetensors"
    found = read_columns(path)
    if found is None:
        spool = RowSpool()
        keys = _read_rows(itertools.chain(first, table.rows), columns, label, labels, spool)
        held = spool.columns()
        if labels is None:
            labels = learn_labels(keys, table, settings, where)
            held["labels"] = _numbered_anew(held["labels"], keys, labels)
        notes: dict[str, Any] = {
            "names": labels.names,
            "base": labels.base,
            "reasons": dict(spool.reasons.most_common(REASONS_SHOWN)),
        }
        found = (kept(path, held, notes) if spool.spilled else held), notes
    held, notes = found
    if labels is None:
        labels = make_label_set(tuple(notes["names"]), notes["base"])
    aside = Quarantine(source.text, Texts(held["aside"], held["aside_offsets"]), notes["reasons"])
    texts = Texts(held["text"], held["text_offsets"])
    if not texts and not aside:
        raise DataError(f"The source {where} holds no rows. A data file has at least one row of text and label.")
    return ArticleSet(source, split, table.sha256, columns, label, texts, held["labels"], held["rows"], aside), labels


def _read_rows(
    rows: Iterable[RawRow], columns: Sequence[str], label: str, labels: LabelSet | None, spool: RowSpool
) -> list[str]:
    """Every row into the spool; without `labels`, each spelling gets the next number, and the spellings are returned."""
    seen: dict[str, int] = {}
    for row in rows:
        text, reason = usable_text(row, columns)
        value = row.fields.get(label)
        found: int | None = None
        if reason is None and labels is not None:
            found = labels.find(value)
        elif reason is None and (key := label_key(value)) and _is_unicode(key):
            found = seen.setdefault(key, len(seen))
        if found is not None:
            spool.add(row.number, text, found)
        else:
            spool.set_aside(row.number, reason or _label_reason(value, labels), excerpt(row))
    return list(seen)


def _numbered_anew(numbers: NDArray[np.int64], keys: Sequence[str], labels: LabelSet) -> NDArray[np.int64]:
    """Places in `keys` -> label ids."""
    ids = np.array([labels.find(key) for key in keys], dtype=np.int64)
    return gathered(ids, numbers)


def _fingerprint(
    table: Table, columns: Sequence[str], label: str, settings: DataSettings, labels: LabelSet | None
) -> str:
    """Hex SHA-256 of all that decides what is read: the bytes, how they are taken, and the labels or what names them."""
    known = [table.label_names, settings.label_names] if labels is None else sorted(labels.spellings.items())
    facts = [FORMAT, table.sha256, table.columns, table.has_header, columns, label, known]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def usable_text(row: RawRow, columns: Sequence[str]) -> tuple[str, str | None]:
    """The row's text (non-empty columns joined with a space) and, if it cannot be used, why."""
    if row.problem is not None:
        return "", row.problem
    parts = [str(value).strip() for name in columns if not _missing(value := row.fields.get(name))]
    text = " ".join(part for part in parts if part)
    if not text:
        return "", "empty text"
    return (text, None) if _is_unicode(text) else ("", "broken encoding: not valid UTF-8")


def excerpt(row: RawRow) -> str:
    """The row's first 200 characters as JSON that any tool can read, damage made visible."""
    try:
        shown = json.dumps(row.fields, ensure_ascii=False, default=str)[:200]
    except RecursionError:
        shown = "(nested too deeply to show)"
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def label_key(value: Any) -> str:
    """One spelling for 3, 3.0, '3' and ' 3 '."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if _missing(value) else str(value).strip()


def _missing(value: Any) -> bool:
    return value is None or value != value  # NaN, as Parquet and JSON may write a missing cell


def _is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8: undecodable bytes were read as lone surrogates, which cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def learn_labels(values: Iterable[Any], table: Table, settings: DataSettings, where: str) -> LabelSet:
    """The label set of the training rows; `require_labels` says whether it is enough to train on.

    Words name themselves, in alphabetical order unless `data.label_names` (or the data set) gives the same words in
    another. Numbers start at 0 or 1 and take their names from there; without names they name themselves.

    Raises:
        DataError: numbers that the given names cannot name.
    """
    found = {key for value in values if (key := label_key(value)) and _is_unicode(key)}
    given = table.label_names if settings.label_names is None else settings.label_names
    if len(found) < 2 or not all(NUMBER.fullmatch(key) for key in found):
        ordered = [name for name in given or () if name in found]
        return make_label_set(tuple(ordered if len(ordered) == len(found) else sorted(found)))
    numbers = sorted(int(key) for key in found)
    if not given:
        return make_label_set(tuple(str(number) for number in numbers))
    base = 0 if numbers[0] == 0 else 1
    # without a 0 or the last number nothing shows where counting starts, and a guess would name labels wrongly
    if (base == 1 and numbers[-1] != len(given)) or (base == 0 and numbers[-1] >= len(given)):
        raise DataError(
            f"data.label_names names {len(given)} labels ({', '.join(given)}), but {where} numbers its labels "
            f"{numbers[0]} to {numbers[-1]}. Give {len(numbers)} names in order, or --set 'data.label_names=[]'."
        )
    return make_label_set(tuple(given), base)


def require_labels(labels: LabelSet, train: ArticleSet) -> None:
    """Stop where there is nothing to tell apart.

    Raises:
        DataError: fewer than two labels.
    """
    seen = np.flatnonzero(np.bincount(train.labels))
    if len(seen) < 2:
        only = f"only '{labels.names[seen[0]]}'" if len(seen) else "none"
        raise DataError(
            f"Training needs at least two labels; '{train.described}' has {only}. Check data.label_column "
            f"(now '{train.label_column}')."
        )


def numbered(labels: LabelSet, keys: Sequence[str], names: Sequence[str] | None) -> LabelSet:
    """Let rows that number their labels be read with a label set learnt from words, where `data.label_names` says how.

    Args:
        labels: learnt from the training rows.
        keys: labels of the first rows, as written.
        names: `data.label_names`, in order of number.
    """
    seen = {key for key in keys if key}
    if labels.base is not None or not names or not set(labels.names) <= set(names):
        return labels
    first, last = "0" in seen, str(len(names)) in seen
    if first == last or not all(NUMBER.fullmatch(key) for key in seen):
        return labels  # nothing shows whether the numbers start at 0 or at 1: better unknown than mistaken
    base = 0 if first else 1
    spelt = {str(number): labels.spellings[name] for number, name in enumerate(names, base) if name in labels.names}
    return LabelSet(labels.names, base, labels.spellings | spelt)


def make_label_set(names: tuple[str, ...], base: int | None = None) -> LabelSet:
    """Names in id order; `base` is the number the data gives the first one, if it numbers them."""
    spellings = {name.casefold(): index for index, name in enumerate(names)}
    spellings |= {name: index for index, name in enumerate(names)}
    if base is not None:
        spellings |= {str(index + base): index for index in range(len(names))}
    return LabelSet(names, base, spellings)


def write_quarantine(path: Path, sets: Iterable[ArticleSet]) -> None:
    """All rows set aside, one JSON object a line: source, row, reason, excerpt."""
    # a reason may quote a broken label: its lone surrogates become \\u escapes, which JSON knows
    how: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}
    with files.atomic_path(path) as temporary, temporary.open("w", **how) as stream:
        for one in sets:
            stream.writelines(json.dumps(asdict(bad), ensure_ascii=False) + "\n" for bad in one.quarantined)


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
        f"data.max_quarantine_share allows {limit:.1%}): {listed}.{where} Repair the rows, or raise the limit with --set."
    )


def _label_reason(value: Any, labels: LabelSet | None) -> str:
    key = label_key(value)
    if not key:
        return "no label"
    if labels is None or not _is_unicode(key):
        return "broken encoding: the label is not valid UTF-8"
    shown = ", ".join(labels.names[:10]) + (" ..." if len(labels) > 10 else "")
    return f"unknown label '{key[:60]}': not among the training labels ({shown})"
