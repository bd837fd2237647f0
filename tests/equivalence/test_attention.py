"""Attention in pieces, and by torch's fused kernel, is attention of whole groups, with the same dropout decisions."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import TINY
from test_packed import DISTINCT, FP32, LOGIT_TOLERANCE, assert_same, classifier, rows_of, saved

from newslora.model.engine import PaddedEngine, make_byte_engine, make_engine
from newslora.model.inference import predict_logits
from newslora.model.packed import attention, byte_layers
from newslora.model.packed.attention import Attended, AttendedFused
from newslora.model.packed.dropout import DropoutBits
from newslora.model.packed.grouped import Groups

HEADS, SIZE = 3, 16
LENGTHS = [70, 61, 58, 58, 44, 43, 30, 12, 9, 9]
# fp32 sums of at most 70 terms of about 1, added in another order
TOLERANCE = 1e-5


def attended(rate: float, biases: torch.Tensor | None = None) -> tuple[torch.Tensor, list[Any]]:
    """Results and gradients of all tokens and of first tokens, end to end, and what was held for the backward."""
    torch.manual_seed(0)
    total = sum(LENGTHS) + 3
    groups = Groups.of(LENGTHS, total).ready(HEADS, torch.float32, biases)
    qkv, d_out = torch.randn(total, 3 * HEADS * SIZE), torch.randn(total, HEADS * SIZE)
    bits = DropoutBits((4,))
    out, held = groups.attend(qkv, HEADS, rate, bits)
    back = groups.attend_backward(d_out, held, HEADS)
    q, kv = qkv[: len(LENGTHS), : HEADS * SIZE].contiguous(), qkv[:, HEADS * SIZE :].contiguous()
    first, held_first = groups.attend_first(q, kv, HEADS, rate, bits)
    d_q, d_kv = groups.attend_first_backward(d_out[: len(LENGTHS)], held_first, HEADS)
    return torch.cat([part.flatten() for part in (out, back, first, d_q, d_kv)]), held


@pytest.mark.parametrize("biased", [False, True])
def test_pieces_are_the_whole(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    biases = 3 * torch.randn(HEADS, 2 * 96 - 1) if biased else None
    wanted, held = attended(0.3, biases)
    assert all(len(one.pieces) == 1 for one in held)
    monkeypatch.setattr(attention, "LONG", 40)
    monkeypatch.setattr(attention, "PIECE", 64 * 64 * 2)  # two heads of such a row
    monkeypatch.setattr(attention, "AT_ONCE", 0)
    got, held = attended(0.3, biases)
    assert len(held[0].pieces) > HEADS
    assert len(held[-1].pieces) == 1  # short rows
    assert (got - wanted).abs().max() <= TOLERANCE


@pytest.mark.parametrize("biased", [False, True])
def test_the_fused_kernel_is_the_plain_form(biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    biases = 3 * torch.randn(HEADS, 2 * 96 - 1) if biased else None
    wanted, _ = attended(0.0, biases)
    monkeypatch.setattr(attention, "LONG", 40)
    got, held = attended(0.0, biases)
    assert type(held[0]) is AttendedFused
    assert type(held[-1]) is Attended  # short rows
    assert (got - wanted).abs().max() <= TOLERANCE
    assert all(type(one) is Attended for one in attended(0.3)[1])  # it drops nothing


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_in_bf16_groups_are_computed_whole(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LONG", 1)
    monkeypatch.setattr(attention, "PIECE", 1)
    groups = Groups.of(LENGTHS, sum(LENGTHS)).ready(HEADS, torch.bfloat16)
    qkv = torch.randn(sum(LENGTHS), 3 * HEADS * SIZE).bfloat16()
    _, held = groups.attend(qkv, HEADS, rate, DropoutBits((4,)))
    assert [len(one.pieces) for one in held] == [1] * len(held)


@pytest.mark.parametrize("family", DISTINCT)
def test_every_packed_family_learns_and_answers_the_same(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LONG", 8)
    rows = rows_of([7, 30, 1, 12, 30, 29, 3, 18, 2], vocabulary=60)
    model = classifier(saved(TINY[family], tmp_path), "query-value")
    assert_same(model, rows, [3, 1, 8, 0, 2, 4, 5, 7, 6])
    wanted = predict_logits(PaddedEngine(model, FP32), rows)
    assert np.abs(predict_logits(make_engine(model, "packed", FP32), rows) - wanted).max() <= LOGIT_TOLERANCE


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_long_rows_in_eight_bits(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 either way: only a number between two bytes may become the other, which moves a logit by part of what bytes cost."""
    pytest.importorskip("numba", reason="layers in eight bits are compiled by Numba, which is not installed")
    rows = rows_of([30, 12, 29, 3, 18], vocabulary=60)
    merged = classifier(saved(TINY[family], tmp_path), "query-value").merge_and_unload().eval()
    exact = predict_logits(PaddedEngine(merged, FP32), rows)
    wanted = predict_logits(make_byte_engine(copy.deepcopy(merged), FP32, fused=True), rows)
    alone: list[int] = []
    plain = byte_layers.ByteLayer._in_fp32
    monkeypatch.setattr(byte_layers, "LONG", 15)
    monkeypatch.setattr(
        byte_layers.ByteLayer, "_in_fp32", lambda self, q, k, v: alone.append(q.shape[1]) or plain(self, q, k, v)
    )
    got = predict_logits(make_byte_engine(copy.deepcopy(merged), FP32, fused=True), rows)
    assert set(alone) == {30, 29, 18}
    assert np.abs(got - wanted).max() < 0.2 * np.abs(wanted - exact).max()
