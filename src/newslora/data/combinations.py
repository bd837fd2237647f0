"""Rows of several labels: how data writes them, and the combinations that occur.

Where `data.multi_label` is true, the number kept of a row is the place of its combination of labels in a small table. So rows
of several labels are kept, drawn, shuffled and batched as those of one label are, also where they outgrow memory.
"""

import ast
import contextlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.data.labels import LabelSet, is_missing, is_unicode, label_key, label_reason
from newslora.data.lines import UTF8_WAY
from newslora.data.store import gathered
from newslora.errors import DataError

SEPARATORS = (",", "|", ";", "\t")  # those data is written with
Combination = tuple[int, ...]  # label ids, ascending
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PYTHON_LIST = re.compile(rf"\[\s*{_QUOTED}(?:\s*,\s*{_QUOTED})*\s*,?\s*\]", re.DOTALL)  # of texts, none run together
_LIKE_A_LIST = re.compile(r"\[\s*['\"].*\]|\[[^\[\]]*,[^\[\]]*\]", re.DOTALL)  # '[Sports]' and '[A];[B]' may be names


def split_labels(value: Any, separator: str) -> tuple[str, ...] | str:
    """A row's labels as data writes them -> each label's spelling once, sorted; or why they cannot be used.

    A list (JSON, Parquet) holds one label an entry, also where a text writes it out; another text (CSV) holds them with
    `separator` between; a number is one label. An empty list or text is a row without labels; a missing value is not.
    """
    if is_missing(value):
        return "no labels: an empty list says that none applies"
    if isinstance(value, str):
        value = value.split(separator) if (written := _written_list(value)) is None else written
        if isinstance(value, str):
            return value
    entries = value if isinstance(value, list) else [value]
    if any(isinstance(entry, (list, dict)) or is_missing(entry) for entry in entries):
        return "labels that are not a list of names or numbers"
    keys = {key for entry in entries if (key := label_key(entry))}
    if not all(map(is_unicode, keys)):
        return f"broken encoding: a label is not valid UTF-8; {UTF8_WAY}"
    return tuple(sorted(keys))


def _written_list(text: str) -> list[Any] | str | None:
    """The list that a text writes out in JSON or in Python, why it cannot be read, or None: it is none."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    found: list[Any] | None = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
    if found is None and _PYTHON_LIST.fullmatch(text):
        with contextlib.suppress(ValueError, SyntaxError):  # an escape that Python does not know
            found = ast.literal_eval(text)
    if found is None and _LIKE_A_LIST.fullmatch(text):
        return f'not readable as a list of labels: {text[:60]}; write ["a", "b"]'
    return found


class SeveralLabels:
    """Reads rows of several labels; the number of a row is the place of its combination."""

    def __init__(self, labels: LabelSet | None, separator: str) -> None:
        self.labels, self.separator = labels, separator
        self._unnamed: dict[tuple[str, ...], int] = {}  # spellings -> place, until the labels are known
        self._named: dict[Combination, int] = {}
        self._lists = False  # whether a row was a list, which needs no separator

    def read(self, value: Any) -> int | str:
        """The number of a row with these labels, or why they cannot be used."""
        keys = split_labels(value, self.separator)
        if isinstance(keys, str):
            return keys
        self._lists |= isinstance(value, list) or (isinstance(value, str) and isinstance(_written_list(value), list))
        if self.labels is None:
            return self._unnamed.setdefault(keys, len(self._unnamed))
        ids = [self.labels.find(key) for key in keys]
        if None in ids:
            return label_reason(keys[ids.index(None)], self.labels)
        return self._named.setdefault(_combination(ids), len(self._named))

    def spellings(self) -> Iterable[str]:
        """Every label met, as written."""
        return {key for keys in self._unnamed for key in keys}

    def check_separator(self, where: str) -> None:
        """Stop where rows join labels by another separator than the one looked for.

        A comma in a label proves nothing ('Arts, culture'), but that its parts recur does: there are fewer of them.

        Raises:
            DataError: no row holds two labels, and another separator splits what was read into fewer labels.
        """
        if self._lists or any(len(keys) > 1 for keys in self._unnamed):
            return
        whole = sorted(self.spellings())
        for other in SEPARATORS:
            joined = [label for label in whole if other in label]
            parts = {part.strip() for label in whole for part in label.split(other)} - {""}
            if joined and other != self.separator and len(parts) < len(whole):
                raise DataError(
                    f"No row of {where} holds two labels with data.label_separator, '{self.separator}', between, but "
                    f"{len(joined):,} of {len(whole):,} labels hold {other!r}, as '{joined[0][:60]}' does. Set it: "
                    f"--set 'data.label_separator={json.dumps(other)}'. Where these are single labels, give lists (JSON lines)."
                )

    def renumber(self, labels: LabelSet) -> NDArray[np.int64]:
        """Now that the labels are known: (seen,) the number given so far -> the place of the combination."""
        combinations = [_combination([labels.find(key) for key in keys]) for keys in self._unnamed]
        return np.array([self._named.setdefault(one, len(self._named)) for one in combinations], dtype=np.int64)

    def combinations(self) -> list[Combination]:
        """Those that occur, by place."""
        return list(self._named)


def _combination(ids: Iterable[int | None]) -> Combination:
    return tuple(sorted({number for number in ids if number is not None}))


def strata(places: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """(R,) combination of each row -> (R,) groups by whose shares `rows` rows are drawn: each combination that has a row to
    give by its share, and the rest as one."""
    counts = np.bincount(places)
    frequent = counts * rows >= len(places)
    rest = int(counts[~frequent].sum() == 1)  # one row alone cannot be shared out: it joins the first group
    return gathered(np.where(frequent, np.cumsum(frequent), rest), places)


def rows_of_labels(
    labels: NDArray[np.int64], combinations: NDArray[np.bool_] | None, classes: int
) -> NDArray[np.int64]:
    """(C,) rows that carry each label, out of (R,) label ids or places in the (K, C) table of which labels a combination
    holds."""
    if combinations is None:
        return np.bincount(labels, minlength=classes)
    found: NDArray[np.int64] = np.bincount(labels, minlength=len(combinations)) @ combinations.astype(np.int64)
    return found


def indicator_table(combinations: Sequence[Sequence[int]], labels: int) -> NDArray[np.bool_]:
    """(K, C) whether a combination holds a label."""
    table = np.zeros((len(combinations), labels), dtype=np.bool_)
    for place, ids in enumerate(combinations):
        table[place, list(ids)] = True
    return table
