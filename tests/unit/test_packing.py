"""Packed batches: every token of every row once, positions from 0 in each, and rows found again in attention."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from newslora.data.batches import Rows
from newslora.data.packing import FEW, FINE_STEP, TOKENS_STEP, next_fine_step, pack
from newslora.data.tokens import TokenTable
from newslora.model.packed.grouped import LENGTH_STEP, Groups


def make_rows(lengths: list[int]) -> Rows:
    """Row i holds i * 1000, i * 1000 + 1, ...; so every token names its row and place."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.concatenate([row * 1000 + np.arange(length) for row, length in enumerate(lengths)]).astype(np.int32)
    return Rows(TokenTable(ids, offsets), np.arange(len(lengths), dtype=np.int64) % 4, pad_id=99)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60), data=st.data())
def test_every_row_is_whole_and_there_once(lengths: list[int], data: st.DataObject) -> None:
    rows = make_rows(lengths)
    chosen = data.draw(st.permutations(range(len(lengths))))[: data.draw(st.integers(1, len(lengths)))]
    batch = pack(rows, chosen)
    starts = np.cumsum(batch.lengths) - batch.lengths
    assert list(batch.lengths) == sorted((lengths[row] for row in chosen), reverse=True)
    assert sorted(batch.order.tolist()) == list(range(len(chosen)))
    for place, row in zip(batch.order.tolist(), chosen, strict=True):
        here = slice(starts[place], starts[place] + batch.lengths[place])
        assert batch.input_ids[here].tolist() == rows.tokens[row].tolist()
        assert batch.positions[here].tolist() == list(range(lengths[row]))
    assert batch.labels.tolist() == [row % 4 for row in chosen]
    assert len(batch) == len(chosen)
    filler = len(batch.input_ids) - sum(batch.lengths)
    assert 0 <= filler < TOKENS_STEP
    assert len(batch.input_ids) == len(batch.positions)
    assert len(batch.input_ids) % TOKENS_STEP == 0


def test_a_batch_to_be_answered_has_little_filler() -> None:
    for tokens in range(1, 2 * FEW):
        filler = next_fine_step(tokens) - tokens
        assert 0 <= filler < (FINE_STEP if tokens <= FEW else TOKENS_STEP)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60), filler=st.integers(0, TOKENS_STEP - 1))
def test_segments_find_every_token_and_mask_the_rest(lengths: list[int], filler: int) -> None:
    lengths = sorted(lengths, reverse=True)
    total = sum(lengths)
    segments = Groups.of(lengths, total + filler).ready(2, torch.float32)
    assert sum(group.rows for group in segments.groups) == len(lengths)
    place = 0
    for group in segments.groups:
        own = lengths[place : place + group.rows]
        assert group.rows & (group.rows - 1) == 0
        assert group.length % LENGTH_STEP == 0
        assert max(own) <= group.length < max(own) + LENGTH_STEP
        tokens = group.tokens.view(group.rows, group.length)
        for row, length in enumerate(own):
            start = sum(lengths[: place + row])
            assert tokens[row, :length].tolist() == list(range(start, start + length))
            if group.bias is not None:
                for head in range(2):
                    wanted = [0.0] * length + [float("-inf")] * (group.length - length)
                    assert group.bias[2 * row + head, 0].tolist() == wanted
            else:
                assert length == group.length
        place += group.rows
    numbers = torch.full((segments.padded, 1), -1.0)
    for group in segments.groups:
        numbers[group.start : group.start + len(group.tokens), 0] = group.tokens.float()
    assert segments.packed(numbers)[:, 0].tolist() == [*range(total), *[0] * filler]
    assert segments.firsts.tolist() == (np.cumsum(lengths) - lengths).tolist()


def test_like_lengths_share_a_group_and_others_do_not() -> None:
    segments = Groups.of([100, 99, 98, 97, 40, 39, 10], 483)
    assert [group.rows for group in segments.groups] == [4, 2, 1]


def test_an_empty_choice_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="at least one array"):
        pack(make_rows([3]), [])
