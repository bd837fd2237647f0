"""Label names: learnt from the data or given, and every way the data may write them."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.config import DataSettings
from newslora.data.lines import UTF8_WAY
from newslora.data.readers import Table
from newslora.errors import DataError, listed, near

NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # '01' is a name: it and '1' may be two labels
WHOLE = re.compile(rf"({NUMBER.pattern})\.0+")  # as pandas writes whole numbers to CSV, once one label is missing
LABELS_SHOWN = 10


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


class OneLabel:
    """Reads rows of one label; the number of a row is its label id."""

    def __init__(self, labels: LabelSet | None) -> None:
        self.labels = labels
        self._seen: dict[str, int] = {}  # spelling -> number, until the labels are known

    def read(self, value: Any) -> int | str:
        """The number of a row with this label, or why it cannot be used."""
        if isinstance(value, list):
            return "a list of labels: where rows carry several, set data.multi_label=true"
        if isinstance(value, dict):
            return f"no label: the column holds {json_kind(value)}"
        found: int | None = None
        if self.labels is not None:
            found = self.labels.find(value)
        elif (key := label_key(value)) and is_unicode(key):
            found = self._seen.setdefault(key, len(self._seen))
        return label_reason(value, self.labels) if found is None else found

    def spellings(self) -> Iterable[str]:
        """Every label met, as written."""
        return self._seen

    def renumber(self, labels: LabelSet) -> NDArray[np.int64]:
        """Now that the labels are known: (seen,) the number given so far -> the label id."""
        return np.array([labels.find(key) for key in self._seen], dtype=np.int64)

    def combinations(self) -> None:
        """None: there is nothing to look up."""


def learn_labels(
    values: Iterable[Any], table: Table, settings: DataSettings, where: str, names: Sequence[str] | None = None
) -> LabelSet:
    """The label set of the training rows; `require_labels` says whether it is enough to train on.

    With `names`, those of a trained head, it is these, in their order: rows may lack some, and have no others.

    Words name themselves, in alphabetical order unless `data.label_names` (or the data set) gives the same words in
    another. Numbers start at 0 or 1 and take their names from there; without names they name themselves.

    Raises:
        DataError: numbers that the given names cannot name, or a label that is none of `names`.
    """
    if names is not None:
        return labels_of_head(_learnt(values, table, settings, where, "write the labels as words"), names, where)
    return _learnt(values, table, settings, where, "keep the numbers as names: --set 'data.label_names=[]'")


def _learnt(values: Iterable[Any], table: Table, settings: DataSettings, where: str, other_way: str) -> LabelSet:
    """`learn_labels` without a trained head; `other_way`: than naming numbers rightly."""
    found = {key for value in values if (key := label_key(value)) and is_unicode(key)}
    if settings.multi_label and (odd := [key for key in sorted(found) if settings.label_separator in key]):
        raise DataError(
            f"The label '{odd[0]}' of {where} holds data.label_separator, '{settings.label_separator}', which stands between "
            "labels in a CSV file. Set another, for example --set 'data.label_separator=\"|\"'."
        )
    given = table.label_names if settings.label_names is None else settings.label_names
    if len(found) < 2 or not all(NUMBER.fullmatch(key) for key in found):
        ordered = [name for name in given or () if name in found]
        return make_label_set(tuple(ordered if len(ordered) == len(found) else sorted(found)))
    numbers = sorted(int(key) for key in found)
    if not given:
        return make_label_set(tuple(str(number) for number in numbers))
    base = 0 if numbers[0] == 0 else 1
    # without a 0 or the last number nothing shows where counting starts, and a guess would name labels wrongly
    unlike = (base == 1 and numbers[-1] != len(given)) or (base == 0 and numbers[-1] >= len(given))
    # names of a recipe may belong to other data, unless the data set itself has them or every one is needed
    borrowed = settings.require_all_names and given != table.label_names and len(numbers) < len(given)
    if unlike or borrowed:
        raise DataError(
            f"data.label_names names {len(given)} labels ({', '.join(given)}), but {where} numbers its labels "
            f'{_listed(numbers)}. Give names in order of number, as in --set \'data.label_names=["a","b"]\', or {other_way}.'
        )
    return make_label_set(tuple(given), base)


def labels_of_head(learnt: LabelSet, names: Sequence[str], where: str) -> LabelSet:
    """The labels of a trained head (`names`, in order), and all ways that rows write them, those of the `learnt` among them.

    Raises:
        DataError: a label that is none of the head's.
    """
    head = make_label_set(tuple(names))
    if strange := [name for name in learnt.names if head.find(name) is None]:
        alike = next(filter(None, (near(name, names) for name in strange[:LABELS_SHOWN])), "")
        numbers = all(NUMBER.fullmatch(name) for name in strange)
        way = (
            "Name the numbers (--set 'data.label_names=[...]')" if numbers else "Take these rows out, rename the labels"
        )
        raise DataError(
            f"{where} has {_counted(len(strange))} that the adapter training starts from (model.adapter) does not know: "
            f"{listed(strange, LABELS_SHOWN)}. It knows {listed(names, LABELS_SHOWN)}, and its head "
            f"has room for no others.{alike} {way}, or leave model.adapter out to train a new head on all labels."
        )
    if learnt.names == head.names:
        return make_label_set(head.names, learnt.base)
    # numbers name places in another order, or of fewer labels: their spellings say which, one base would not
    own = {spelling: head.find(learnt.names[place]) for spelling, place in learnt.spellings.items()}
    return LabelSet(head.names, None, {key: place for key, place in own.items() if place is not None} | head.spellings)


def _counted(labels: int) -> str:
    return "1 label" if labels == 1 else f"{labels:,} labels"


def _listed(numbers: Sequence[int]) -> str:
    """'0 and 1', '0, 2 and 5', '0 to 12'."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    if len(numbers) > LABELS_SHOWN:
        return f"{', '.join(map(str, numbers[:LABELS_SHOWN]))} ... {numbers[-1]}"
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


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
    spellings |= {label_key(name): index for index, name in enumerate(names)}  # '1.0' was a name of its own once
    spellings |= {name: index for index, name in enumerate(names)}
    if base is not None:
        spellings |= {str(index + base): index for index in range(len(names))}
    return LabelSet(names, base, spellings)


def label_key(value: Any) -> str:
    """One spelling for 3, 3.0, '3', '3.0' and ' 3 '."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    key = "" if is_missing(value) else str(value).strip()
    return whole[1] if key.endswith("0") and (whole := WHOLE.fullmatch(key)) else key


def json_kind(value: dict[Any, Any] | list[Any] | bool) -> str:
    """What JSON calls a value that is neither a text nor a number."""
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "true or false"


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, as Parquet and JSON may write it, or a number too great to be one (1e999)."""
    return bool(value is None or value != value or value in (math.inf, -math.inf))


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8: undecodable bytes were read as lone surrogates, which cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def label_reason(value: Any, labels: LabelSet | None) -> str:
    """Why a label cannot be used."""
    key = label_key(value)
    if not key:
        return "no label"
    if labels is None or not is_unicode(key):
        return f"broken encoding: the label is not valid UTF-8; {UTF8_WAY}"
    return f"unknown label '{key[:60]}': not among the training labels ({listed(labels.names, LABELS_SHOWN)})"
