"""Every row once, in an order that seed and epoch decide, padded and masked right, whoever prepares it."""

import hashlib
import os
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from newslora.data import batches
from newslora.data.batches import Batch, Rows, epoch_batches, load_batches, sorted_batches
from newslora.data.tokens import TokenTable

PAD = 99
ORDER = [[0, 8, 7, 4], [3, 1, 2, 9], [6, 5]]
ORDER_BY_LENGTH = [[7, 0, 8, 6], [9, 1, 5, 3], [2, 4]]
# (rows up to which the order is in memory, by length) -> hash of an epoch's rows in their order
ORDERS = {
    (3_000, False): "c0beafa853f3d52d", (3_000, True): "b1d43aed1517c8e4",
    (100, False): "885574d886022580", (100, True): "ff43620b08cada50",
}  # fmt: skip


def make_rows(lengths: Any) -> Rows:
    """Row i holds i * 1000, i * 1000 + 1, ...; so every token names its row and place."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    parts = [row * 1000 + np.arange(length) for row, length in enumerate(lengths)]
    ids = np.concatenate(parts).astype(np.int32)
    return Rows(TokenTable(ids, offsets), np.arange(len(lengths), dtype=np.int64) % 4, PAD)


def some_lengths(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(3, 200, rows)


def listed(plan: Any) -> list[list[int]]:
    return [list(map(int, batch)) for batch in plan]


def padded(lengths: Any, plan: Any) -> int:
    return sum(int(lengths[batch].max()) * len(batch) for batch in plan)


def equal(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("input_ids", "attention_mask", "labels")
    )


@settings(max_examples=200)
@given(
    lengths=st.lists(st.integers(1, 600), max_size=300),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 50),
    by_length=st.booleans(),
)
def test_every_row_exactly_once(lengths: list[int], batch_size: int, seed: int, epoch: int, by_length: bool) -> None:
    table = np.array(lengths, dtype=np.int64)
    for made in (epoch_batches(table, batch_size, seed, epoch, by_length), sorted_batches(table, batch_size)):
        plan = listed(made)
        assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
        assert len(plan) == -(-len(lengths) // batch_size)
        assert sum(len(batch) == batch_size for batch in plan) == len(lengths) // batch_size
        assert all(plan)


def test_grouping_by_length_over_several_stretches_loses_nothing() -> None:
    lengths = some_lengths(batches.STRETCH * 4 * 3 + 7)
    plan = epoch_batches(lengths, 4, 1, 0, by_length=True)
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 600), min_size=1, max_size=300),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
    by_length=st.booleans(),
)
def test_every_row_exactly_once_where_the_order_is_computed(
    lengths: list[int], batch_size: int, seed: int, by_length: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("newslora.data.order.FEW", 0)
        plan = epoch_batches(np.array(lengths), batch_size, seed, 0, by_length)
    batches = listed(plan)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(plan) == len(batches) == -(-len(lengths) // batch_size)
    assert [list(plan[place]) for place in range(len(plan))][::-1] == batches[::-1]


def test_ten_million_rows_are_planned_in_no_memory() -> None:
    class Lengths:
        def __len__(self) -> int:
            return 10_000_000

        def __getitem__(self, rows: Any) -> Any:
            return rows % 50 + 3

    tracemalloc.start()
    try:
        for by_length in (False, True):
            plan = epoch_batches(Lengths(), 16, 42, 3, by_length)
            rows = np.concatenate([plan[place] for place in (0, 1, 400_000, len(plan) - 1)])
            assert len(plan) == 625_000
            assert len(set(rows.tolist())) == 64
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20  # by length, numpy's order of 625,000 batches
    finally:
        tracemalloc.stop()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = some_lengths(100)
    for by_length in (False, True):
        plans = {
            (seed, epoch): listed(epoch_batches(lengths, 8, seed, epoch, by_length))
            for seed in (0, 1)
            for epoch in (0, 1, 2)
        }
        for one, plan in plans.items():
            assert plan == listed(epoch_batches(lengths, 8, *one, by_length))
            assert all(plan != other for two, other in plans.items() if two != one)


def test_the_order_stays_as_it_was() -> None:
    """Resuming an older run, or repeating a published one, needs this very order."""
    lengths = np.array([5, 9, 2, 7, 1, 8, 3, 6, 4, 10])
    assert listed(epoch_batches(lengths, 4, 42, 1)) == ORDER
    assert listed(epoch_batches(lengths, 4, 42, 1, by_length=True)) == ORDER_BY_LENGTH


@pytest.mark.parametrize(("few", "by_length"), ORDERS)
def test_an_order_of_many_rows_stays_as_it_was(few: int, by_length: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several stretches, with many rows of one length; kept in memory, and computed where it is looked at."""
    monkeypatch.setattr("newslora.data.order.FEW", few)
    plan = epoch_batches(np.arange(3_000) * 7 % 40, 16, 42, 1, by_length)
    digest = hashlib.sha256(np.concatenate(list(plan)).astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == ORDERS[few, by_length]


def test_grouping_by_length_pads_less_and_stays_shuffled() -> None:
    lengths = some_lengths(2_000)
    plain = epoch_batches(lengths, 16, 0, 0)
    grouped = epoch_batches(lengths, 16, 0, 0, by_length=True)
    assert padded(lengths, grouped) < 0.7 * padded(lengths, plain)
    assert padded(lengths, grouped) < 1.1 * lengths.sum()
    longest = np.array([lengths[batch].max() for batch in grouped])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3  # not from long to short


def test_sorted_batches_go_from_long_to_short() -> None:
    lengths = some_lengths(50)
    order = [row for batch in sorted_batches(lengths, 8) for row in batch]
    assert lengths[order].tolist() == sorted(lengths.tolist(), reverse=True)


@given(lengths=st.lists(st.integers(1, 600), max_size=200), rows=st.integers(1, 40), tokens=st.integers(1, 3000))
def test_sorted_batches_keep_to_both_limits(lengths: list[int], rows: int, tokens: int) -> None:
    table = np.array(lengths, dtype=np.int64)
    plan = sorted_batches(table, rows, tokens)
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
    for batch in plan:
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * table[batch].max() <= tokens
    fuller = [len(batch) + 1 for batch in plan[:-1]]
    firsts = [int(table[batch[0]]) for batch in plan[:-1]]
    assert all(more > rows or more * first > tokens for more, first in zip(fuller, firsts, strict=True))


def test_padding_and_mask() -> None:
    rows = make_rows([3, 1, 5])
    batch = rows.batch([2, 0])
    assert batch.input_ids.tolist() == [[2000, 2001, 2002, 2003, 2004], [0, 1, 2, PAD, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.labels.tolist() == [2, 0]
    assert {t.dtype for t in (batch.input_ids, batch.attention_mask, batch.labels)} == {torch.int64}
    assert len(batch) == 2
    assert equal(batch.to(torch.device("cpu")), batch)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20), data=st.data())
def test_a_batch_holds_its_rows_and_nothing_else(lengths: list[int], data: st.DataObject) -> None:
    rows = make_rows(lengths)
    chosen = data.draw(st.permutations(range(len(lengths))))[: data.draw(st.integers(1, len(lengths)))]
    batch = rows.batch(chosen)
    assert batch.input_ids.shape == (len(chosen), max(lengths[row] for row in chosen))
    for place, row in enumerate(chosen):
        kept = batch.attention_mask[place].bool()
        assert batch.input_ids[place][kept].tolist() == rows.tokens[row].tolist()
        assert set(batch.input_ids[place][~kept].tolist()) <= {PAD}
        assert kept.tolist() == sorted(kept.tolist(), reverse=True)  # padding on the right


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_plans_order(workers: int) -> None:
    rows = make_rows(some_lengths(30))
    plan = epoch_batches(rows.tokens.lengths, 4, 0, 0)
    loaded = list(load_batches(rows, plan, Rows.batch, workers, pin=False))
    assert len(loaded) == len(plan) == 8
    assert all(equal(batch, rows.batch(chosen)) for batch, chosen in zip(loaded, plan, strict=True))
    rest = list(load_batches(rows, plan, Rows.batch, workers, pin=False, first=5))
    assert len(rest) == 3
    assert all(equal(one, other) for one, other in zip(rest, loaded[5:], strict=True))


def test_an_empty_plan_gives_nothing() -> None:
    assert list(load_batches(make_rows([3]), [], Rows.batch, workers=0, pin=False)) == []
    assert listed(epoch_batches(np.zeros(0, dtype=np.int64), 4, 0, 0)) == []
    assert listed(epoch_batches(np.zeros(0, dtype=np.int64), 4, 0, 0, by_length=True)) == []


def test_more_workers_than_cores_are_not_started_and_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    real = torch.utils.data.DataLoader

    def loader(*arguments: Any, **more: Any) -> Any:
        started.append(more["num_workers"])
        return real(*arguments, **more)

    monkeypatch.setattr(torch.utils.data, "DataLoader", loader)
    rows = make_rows([3, 4, 5])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = list(load_batches(rows, [[0], [1, 2]], Rows.batch, workers=64, pin=False))
    assert started == [min(64, cores or 1)]
    assert [len(batch) for batch in loaded] == [1, 2]
    list(load_batches(rows, [[0]], Rows.batch, workers=0, pin=False))
    assert started[-1] == 0


def test_batches_for_a_gpu_are_made_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handed over from a process, a batch comes later than a GPU is done with the one before."""
    asked: list[dict[str, Any]] = []
    real = torch.utils.data.DataLoader

    def loader(*arguments: Any, **more: Any) -> Any:
        asked.append(dict(more))
        return real(*arguments, **more | {"pin_memory": False})  # there may be no GPU to pin for

    monkeypatch.setattr(torch.utils.data, "DataLoader", loader)
    monkeypatch.setattr(batches, "_cores", lambda: 8)
    assert len(list(load_batches(make_rows([3, 4, 5]), [[0], [1, 2]], Rows.batch, workers=4, pin=True))) == 2
    assert (asked[0]["num_workers"], asked[0]["pin_memory"]) == (0, True)


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert batches._cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert batches._cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert batches._cores() == 1


def test_where_processes_cannot_hand_batches_over_they_are_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FileNotFoundError(2, "No such file or directory")  # as a system without /dev/shm says it

    monkeypatch.setattr("multiprocessing.Lock", refuse)
    rows = Rows.unlabelled(TokenTable.of([np.arange(length, dtype=np.int32) for length in (1, 2, 3)]), 0)
    found = list(load_batches(rows, [[2, 0], [1]], lambda of, chosen: [os.getpid(), *chosen], 2, pin=False))
    assert found == [[os.getpid(), 2, 0], [os.getpid(), 1]]
