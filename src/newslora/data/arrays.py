"""What scikit-learn passes as X and y -> texts and labels, every row of them; what cannot be used is named by row."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from newslora.data.articles import is_empty
from newslora.data.labels import is_unicode
from newslora.errors import DataError, first_of

ROWS_NAMED = 10  # row numbers an error names before it only counts
SEVERAL = "an indicator matrix: sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y)"


def read_texts(X: Any) -> list[str]:  # noqa: N803
    """What scikit-learn passes as X -> R texts without the white space around them, empty ones included.

    Raises:
        DataError: one string, more than one column, no rows, or rows that are not (valid) text.
    """
    if isinstance(X, (str, bytes)):
        raise DataError(f"X is one {type(X).__name__}, not a list of texts. Give a list of strings: [text].")
    values = np.asarray(X, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"X is {type(X).__name__} of shape {values.shape}, not one text a row. Give a list or one column of strings; "
            "join several columns into one text first."
        )
    if len(values) == 0:
        raise DataError("X holds no text: it has 0 rows. Give at least one string.")
    rows = values.tolist()
    _refuse(rows, lambda value: not isinstance(value, str), "not str", "convert or drop these")
    _refuse(
        rows,
        lambda text: not is_unicode(text),
        "not valid Unicode (lone surrogates)",
        "read the data as UTF-8, or drop these",
    )
    return [str(value).strip() for value in rows]


def refuse_empty_texts(texts: Sequence[str]) -> None:
    """Refuse texts in which nothing can be seen.

    Raises:
        DataError: naming their rows.
    """
    _refuse(texts, is_empty, "empty", "`fit` trains on every row: drop these from X and y")


def read_labels(y: Any, rows: int) -> NDArray[Any]:
    """(R,) labels, or (R, C) bool of an indicator matrix, checked.

    Raises:
        DataError: no y, another length than X, or rows without a label.
        ValueError: labels that are no classes.
    """
    if y is None:
        raise DataError("NewsClassifier requires y to be passed, but the target y is None. Give one label a text.")
    shape = _shape(y)
    if shape is not None and len(shape) not in (1, 2):
        shown = " ".join(f"{y!r:.60}".split())
        raise DataError(f"y is {type(y).__name__}, not one label a text: {shown}. Give a list of labels.")
    if shape is not None and len(shape) == 2 and shape[1] > 1:
        return _read_indicators(y, rows)
    objects = isinstance(y, (list, tuple)) or getattr(getattr(y, "dtype", None), "kind", "") == "O"
    if objects and any(isinstance(label, (list, tuple, set, frozenset)) and len(label) != 1 for label in y):
        raise DataError(
            f"y holds lists or sets of labels. Give one label a text; or, where a text may carry several, {SEVERAL}."
        )
    # scikit-learn makes floats of pandas' nullable columns: of 1 the label '1.0', and of a row without one a number
    labels: NDArray[Any] = column_or_1d(np.asarray(y, dtype=object) if _is_nullable(y) else y, warn=True)
    if labels.dtype.kind == "O":
        labels = _plain_labels(labels)
    if len(labels) != rows:
        raise DataError(f"X has {rows:,} rows and y has {len(labels):,}. Give one label a text.")
    _refuse(labels.tolist(), _is_missing, "without a label", "label these or drop them", "y")
    _refuse(labels.tolist(), _is_foreign, "neither text nor plain numbers", "give labels as str, int or bool", "y")
    if labels.dtype.kind == "O":
        _refuse_kinds(labels.tolist())
    check_classification_targets(labels)
    return labels


def _refuse_kinds(labels: Sequence[Any]) -> None:
    """Refuse labels of several kinds, which have no order: scikit-learn takes them for numbers of a regression.

    Raises:
        DataError: naming the first row of each kind.
    """
    kinds: dict[str, int] = {}
    for row, label in enumerate(labels):
        kinds.setdefault("str" if isinstance(label, str) else type(label).__name__, row)
    if len(kinds) > 1:
        found = ", ".join(f"{kind} (row {row}: {labels[row]!r:.60})" for kind, row in kinds.items())
        raise DataError(
            f"y holds labels of several kinds, rows counted from 0: {found}. Give all as one kind, such as "
            "[str(label) for label in y]."
        )


def _is_nullable(y: Any) -> bool:
    """Whether y is, or is a table of, a column that pandas keeps beside a mask, or in Arrow's form."""
    kinds = [y.dtype] if hasattr(y, "dtype") else list(getattr(y, "dtypes", ()))
    return any(hasattr(kind, "numpy_dtype") for kind in kinds)


def _plain_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Objects -> Python's own, as an array of their kind where they are all truths, whole numbers or floats."""
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels.tolist()]
    kinds = {type(label) for label in plain}
    found = np.empty(len(plain), dtype=object)
    found[:] = plain
    return np.array(plain) if len(kinds) == 1 and kinds <= {bool, int, float} else found


def _shape(y: Any) -> tuple[int, ...] | None:
    """That of an array of y; None of rows of different lengths."""
    try:
        return tuple(y.shape if hasattr(y, "shape") else np.asarray(y).shape)
    except ValueError:
        return None


def _read_indicators(y: Any, rows: int) -> NDArray[np.bool_]:
    """(R, C) bool of a table of 0 and 1.

    Raises:
        DataError: another number of rows, cells without a value, or with another.
    """
    table = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    if len(table) != rows:
        raise DataError(f"X has {rows:,} rows and y has {len(table):,}. Give one row of labels a text.")
    cells = table.tolist()
    _refuse(cells, lambda row: any(map(_is_missing, row)), "missing a value", "label these or drop them", "y")
    # scikit-learn takes any two numbers for them: of -1 and 1, both would be true
    _refuse(
        cells, lambda row: not all(map(_is_bit, row)), "not of 0 and 1", f"give one label a text, or {SEVERAL}", "y"
    )
    return np.array(cells, dtype=bool)


def _is_bit(cell: Any) -> bool:
    return isinstance(cell, (bool, int, float)) and cell in (0, 1)


def to_classes(labels: NDArray[Any]) -> tuple[NDArray[Any], list[int] | list[list[int]]]:
    """What `read_labels` gives -> the classes, sorted, and each row's place among them; of an indicator matrix its column
    numbers, and those each row carries.

    Raises:
        DataError: a column without a 1, of which nothing can be learnt.
    """
    return _columns(labels) if labels.ndim == 2 else _classes(labels)


def _classes(labels: NDArray[Any]) -> tuple[NDArray[Any], list[int]]:
    classes, ids = np.unique(labels, return_inverse=True)
    return classes, ids.tolist()


def _columns(table: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[list[int]]]:
    if empty := np.flatnonzero(~table.any(axis=0)).tolist():
        raise DataError(f"Columns of y without a single 1 cannot be learnt: {empty[:ROWS_NAMED]}. Drop them.")
    return np.arange(table.shape[1]), [np.flatnonzero(row).tolist() for row in table]


def _refuse(values: Sequence[Any], test: Callable[[Any], bool], fault: str, remedy: str, name: str = "X") -> None:
    """Raise a DataError that names the rows `test` is true of."""
    bad = [row for row, value in enumerate(values) if test(value)]
    if bad:
        named = first_of([str(row) for row in bad], ROWS_NAMED)
        raise DataError(
            f"{len(bad):,} of {len(values):,} rows of {name} are {fault}: rows {named}, counted from 0 "
            f"(the first is {values[bad[0]]!r:.60}); {remedy}."
        )


def _is_missing(label: Any) -> bool:
    """A blank string, None, pandas' NA or NaT, NaN or infinity."""
    if isinstance(label, str):
        return not label.strip()
    if isinstance(label, float):
        return not math.isfinite(label)
    return label is None or type(label).__name__ in ("NAType", "NaTType")


def _is_foreign(label: Any) -> bool:
    """What is no label: a date, a list, any other object."""
    return not isinstance(label, (str, bytes, int, float))
