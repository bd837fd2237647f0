"""A computed order holds every row once, differs with its key, and looks like chance."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from newslora.data import order
from newslora.data.order import HALF_ROUNDS, Permutation, shuffled


def keyed(count: int, seed: int) -> Permutation:
    keys = np.random.default_rng(seed).integers(0, 2**64, HALF_ROUNDS, dtype=np.uint64)
    return Permutation(count, tuple(int(key) for key in keys))


@settings(deadline=None)
@given(count=st.integers(1, 5_000), seed=st.integers(0, 2**32))
def test_every_row_once(count: int, seed: int) -> None:
    rows = keyed(count, seed)[np.arange(count)]
    assert rows.dtype == np.int64
    assert np.array_equal(np.sort(rows), np.arange(count))


def test_any_part_is_the_same_part_of_the_whole() -> None:
    permutation = keyed(3_001, 5)
    whole = permutation[np.arange(3_001)]
    places = np.array([3_000, 0, 17, 17, 2_048])
    assert permutation[places].tolist() == whole[places].tolist()
    assert permutation[np.zeros(0, np.int64)].tolist() == []
    assert len(permutation) == 3_001


@pytest.mark.parametrize("count", [10, 1_000, 1_025])
def test_a_place_gets_each_row_equally_often(count: int) -> None:
    """Chi-square over 6,000 keys, at the first, a middle and the last place; and of the step from one place to the next."""
    drawn = np.array([keyed(count, seed)[np.array([0, 1, count // 2, count - 1])] for seed in range(6_000)])
    steps = (drawn[:, 1] - drawn[:, 0]) % count
    for column in (drawn[:, 0], drawn[:, 2], drawn[:, 3]):
        assert stats.chisquare(np.bincount(column, minlength=count)).pvalue > 1e-4
    assert stats.chisquare(np.bincount(steps, minlength=count)[1:]).pvalue > 1e-4  # the same row never follows itself


def test_neighbours_are_not_kept_together() -> None:
    rows = keyed(100_000, 1)[np.arange(100_000)]
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.01
    ascents = np.count_nonzero(rows[1:] > rows[:-1])  # mean n/2, standard deviation sqrt(n/12)
    assert abs(ascents - 50_000) < 4 * np.sqrt(100_000 / 12)


def test_another_key_is_another_order() -> None:
    assert not np.array_equal(keyed(1_000, 1)[np.arange(1_000)], keyed(1_000, 2)[np.arange(1_000)])


def test_few_rows_take_numpys_order_and_many_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    few = shuffled(1_000, np.random.default_rng((1, 2)))
    assert np.array_equal(few[np.arange(1_000)], np.random.default_rng((1, 2)).permutation(1_000))
    many = shuffled(10_000_000, np.random.default_rng((1, 2)))
    assert len(many) == 10_000_000
    assert len(pickle.dumps(many)) < 1_000
    some = many[np.arange(9_990_000, 10_000_000)]
    assert len(set(some.tolist())) == 10_000
    assert 0 <= some.min() < some.max() < 10_000_000
    monkeypatch.setattr(order, "FEW", 100)
    assert isinstance(shuffled(101, np.random.default_rng(0)), Permutation)
