"""Several labels a row as scikit-learn passes them: 0 and 1, whatever holds them, and nothing made up for what is missing."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from newslora.data.arrays import read_labels
from newslora.errors import DataError

ROWS = [[1, 0], [0, 1], [1, 1]]
FORMS: dict[str, Callable[[list[list[Any]]], Any]] = {
    "list": lambda rows: rows,
    "objects": lambda rows: np.array(rows, dtype=object),
    "floats": lambda rows: np.array(rows, dtype=np.float64),
    "sparse": lambda rows: csr_matrix(np.array(rows, dtype=np.float64)),
    "frame": lambda rows: pd.DataFrame(rows, index=[7, 8, 9]),
    "Int64": lambda rows: pd.DataFrame(rows).astype("Int64"),
    "boolean": lambda rows: pd.DataFrame(rows).astype("boolean"),
    "Arrow": lambda rows: pd.DataFrame(rows).astype("int64[pyarrow]"),
    "one kind a column": lambda rows: pd.DataFrame(rows).astype({0: "Int64", 1: "float64"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_table_of_several_labels_is_read_whatever_holds_it(form: str) -> None:
    found = read_labels(FORMS[form](ROWS), 3)
    assert (found.dtype, found.tolist()) == (np.bool_, [[True, False], [False, True], [True, True]])


@pytest.mark.parametrize("form", FORMS)
def test_a_table_with_a_value_missing_names_its_row(form: str) -> None:
    with pytest.raises(DataError, match=re.escape("1 of 3 rows of y are missing a value: rows 1, counted from 0")):
        read_labels(FORMS[form]([[1, 0], [None, 1], [1, 1]]), 3)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([[1, -1], [-1, 1], [1, 1]], "2 of 3 rows of y are not of 0 and 1: rows 0, 1,"),
        ([[1, 2], [2, 1], [1, 1]], "2 of 3 rows of y are not of 0 and 1: rows 0, 1,"),
        (
            [[0, 1], [0, 0.5], [1, 1]],
            r"1 of 3 rows of y are not of 0 and 1: rows 1, counted from 0 .* \[0(\.0)?, 0\.5\]",
        ),
        ([["a", "b"], ["a", "c"], ["b", "c"]], r"3 of 3 rows of y are not of 0 and 1.*MultiLabelBinarizer"),
    ],
)
def test_two_other_numbers_are_not_taken_for_0_and_1(rows: list[list[Any]], told: str) -> None:
    for table in (rows, np.array(rows), pd.DataFrame(rows)):
        with pytest.raises(DataError, match=told):
            read_labels(table, 3)


@pytest.mark.parametrize(
    "labels",
    [5, "World", {"a": 1}, {"World", "Sports"}, np.zeros((3, 2, 2))],
    ids=["number", "text", "mapping", "set", "cube"],
)
def test_what_holds_no_labels_is_said(labels: Any) -> None:
    kind = type(labels).__name__
    with pytest.raises(DataError, match=f"y is {kind}, not one label a text: .*Give a list of labels") as caught:
        read_labels(labels, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([1, "World", 2], "int (row 0: 1), str (row 1: 'World')"),
        (["World", True, "Sports"], "str (row 0: 'World'), bool (row 1: True)"),
        ([np.int64(1), 2.5, 1], "int (row 0: 1), float (row 1: 2.5)"),
    ],
)
def test_labels_of_several_kinds_are_not_called_a_regression(labels: list[Any], told: str) -> None:
    for objects in (np.array(labels, dtype=object), pd.Series(labels, dtype=object)):
        with pytest.raises(
            DataError, match=re.escape(f"y holds labels of several kinds, rows counted from 0: {told}.")
        ):
            read_labels(objects, 3)
