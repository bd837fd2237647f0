"""Labels as pandas' nullable columns and numpy's numbers among objects hold them: what they are, and none is made up."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import ARTICLES
from newslora import NewsClassifier
from newslora.data.arrays import read_labels
from newslora.errors import DataError

WHOLE = [2, 1, 2, 1]
SHAPES: dict[str, Callable[[Any, str], Any]] = {
    "Series": lambda values, dtype: pd.Series(values, dtype=dtype, index=[9, 8, 7, 6]),
    "Index": lambda values, dtype: pd.Index(values, dtype=dtype),
    "array": lambda values, dtype: pd.array(values, dtype=dtype),
}


@pytest.mark.parametrize("dtype", ["Int64", "UInt8", "int64[pyarrow]"])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_numbers_of_a_nullable_column_stay_whole(shape: str, dtype: str) -> None:
    found = read_labels(SHAPES[shape](WHOLE, dtype), 4)
    assert found.dtype.kind == "i"
    assert [str(label) for label in found.tolist()] == ["2", "1", "2", "1"]
    with pytest.raises(DataError, match=re.escape("1 of 4 rows of y are without a label: rows 2, counted from 0")):
        read_labels(SHAPES[shape]([2, 1, None, 1], dtype), 4)


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")  # scikit-learn's own
def test_a_table_of_one_nullable_column_is_read_alike() -> None:
    found = read_labels(pd.DataFrame({"y": pd.Series(WHOLE, dtype="Int64")}), 4)
    assert (found.dtype.kind, found.tolist()) == ("i", WHOLE)
    with pytest.raises(DataError, match="rows 1, counted from 0"):
        read_labels(pd.DataFrame({"y": pd.Series([2, None, 2, 1], dtype="Int64")}), 4)


def test_truths_and_texts_of_nullable_columns_stay_what_they_are() -> None:
    truths = read_labels(pd.Series([True, False, True, False], dtype="boolean"), 4)
    assert (truths.dtype.kind, truths.tolist()) == ("b", [True, False, True, False])
    assert read_labels(pd.Series(["b", "a", "b", "a"], dtype="string"), 4).tolist() == ["b", "a", "b", "a"]
    with pytest.raises(DataError, match=r"2 of 4 rows of y are without a label: rows 1, 3"):
        read_labels(pd.Series([True, None, True, None], dtype="boolean"), 4)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([np.int64(2), np.int64(1)], "i"),
        ([np.int8(2), 1], "i"),
        ([2, 1], "i"),
        ([np.True_, np.False_], "b"),
        ([np.str_("b"), "a"], "O"),
    ],
    ids=repr,
)
def test_numbers_of_numpy_among_objects_are_labels(values: list[Any], kind: str) -> None:
    found = read_labels(np.array(values, dtype=object), 2)
    assert (found.dtype.kind, found.tolist()) == (kind, values)
    with pytest.raises(DataError, match=r"1 of 3 rows of y are without a label: rows 2"):
        read_labels(np.array([*values, pd.NA], dtype=object), 3)


def test_a_classifier_fitted_on_them_answers_with_them(tiny_bert: Path) -> None:
    texts = [text for many in ARTICLES.values() for text in many] * 4
    labels = pd.Series([10 if text in ARTICLES["World"] else 9 for text in texts], dtype="Int64")
    news = NewsClassifier(backbone=tiny_bert, epochs=1, batch_size=8, warmup_steps=0, precision="fp32").fit(
        texts, labels
    )
    assert (news.classes_.dtype.kind, news.classes_.tolist()) == ("i", [9, 10])
    assert news.adapter_.classifier().labels == ("9", "10")
    assert set(news.predict(texts).tolist()) <= {9, 10}
