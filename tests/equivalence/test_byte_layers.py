"""Compiled kernels against torch's own operations, and encoders of them against their plain form."""

import copy
import math
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_eight_bits import HEADLINES, PACKED, needs_minilm, numbers
from test_families import TINY
from test_packed import BF16, FP32, classifier, rows_of, saved
from torch.nn.functional import gelu, layer_norm

from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable, tokenize
from newslora.model.backbones import resolve_backbone
from newslora.model.engine import make_byte_engine, make_engine
from newslora.model.inference import predict_logits
from newslora.model.packed.eight_bits import ByteProduct, token_bytes

pytest.importorskip("numba", reason="the extra 'int8' is not installed")
import numba

from newslora.model.packed import byte_layers, kernels, torch_calls

HEADS, SIZE = 3, 8
LENGTHS = np.array([13, 12, 10, 1], dtype=np.int64)
STARTS = np.array([0, 13, 25, 35], dtype=np.int64)
TOKENS = 40  # four of them filler
NOWHERE = np.zeros((0, 0), dtype=np.float32)


def empty(*shape: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    return np.zeros(shape, dtype=np.uint8), np.zeros(shape[0], dtype=np.float32)


def assert_bytes(got: tuple[NDArray[np.uint8], NDArray[np.float32]], wanted: torch.Tensor) -> None:
    """Those of the numbers wanted: scales to rounding, bytes but where rounding puts a number on the other side of a half."""
    whole, greatest = token_bytes(wanted)
    np.testing.assert_allclose(got[1], greatest[:, 0], rtol=1e-5, atol=1e-12)
    off = np.abs(got[0].astype(int) - whole.numpy().astype(int))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.002
    assert len(np.unique(whole)) > 20 or len(whole) < 2  # so that equal bytes mean something


def test_a_tokens_bytes_are_torchs() -> None:
    x = numbers(40, 96)
    x[3] = 0
    x[4, 5] = -300
    got = empty(40, 96)
    kernels.quantise(x.numpy(), *got)
    whole, greatest = token_bytes(x)
    np.testing.assert_array_equal(got[0], whole)
    np.testing.assert_array_equal(got[1], greatest[:, 0])


def test_gelu_is_torchs_over_its_whole_range() -> None:
    y = torch.linspace(-9, 9, 4 * 1001).view(1001, 4)  # each token's four numbers lie close: bytes tell them to a 127th
    y[:, 3] = 10.0
    scale, bias = torch.rand(1001) + 0.5, torch.tensor([0.1, -0.2, 0.3, 0.0])
    got = empty(1001, 4)
    kernels.gelu_and_quantise(y.numpy(), scale.numpy(), bias.numpy(), *got)
    wanted = gelu(y.double() * scale[:, None] + bias)
    read = (got[0].astype(float) - 128) * got[1][:, None] / 127
    assert (np.abs(read - wanted.numpy()) <= got[1][:, None] / 127 * 0.501 + 1e-6).all()
    assert_bytes(got, wanted.float())


@pytest.mark.parametrize("x", [-4.0, -1.0, -1e-3, 0.0, 0.5, 3.0, 40.0])
def test_erf_is_as_near_as_fp32_has_it(x: float) -> None:
    assert abs(float(kernels._erf.py_func(np.float32(x))) - math.erf(x)) < 1e-6


def test_adding_norming_and_quantising_is_torchs() -> None:
    y, hidden, bias = numbers(37, 96), numbers(37, 96, seed=1) + 3, torch.randn(96)
    weight, shift, scale = torch.randn(96), torch.randn(96), torch.rand(37)
    wanted = layer_norm(hidden + y * scale[:, None] + bias, (96,), weight, shift, 1e-5)
    got = empty(37, 96)
    kernels.add_norm_and_quantise(
        y.numpy(), scale.numpy(), bias.numpy(), hidden.numpy(), weight.numpy(), shift.numpy(), 1e-5, *got
    )
    torch.testing.assert_close(hidden, wanted, rtol=1e-5, atol=1e-5)
    assert_bytes(got, wanted)


def attended(qkv: torch.Tensor, by_distance: NDArray[np.float32]) -> torch.Tensor:
    """Every token attends to its row, by torch in fp64."""
    out = torch.zeros(len(qkv), HEADS * SIZE, dtype=torch.float64)
    for start, length in zip(STARTS, LENGTHS, strict=True):
        some = slice(start, start + length)
        q, k, v = qkv[some].double().view(length, 3, HEADS, SIZE).permute(1, 2, 0, 3)
        scores = q @ k.transpose(1, 2) / math.sqrt(SIZE)
        if len(by_distance):
            place = torch.arange(int(length))
            nearest = by_distance.shape[1] // 2
            scores += torch.from_numpy(by_distance)[:, nearest + place[None, :] - place[:, None]]
        out[some] = (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, -1)
    return out.float()


@pytest.mark.parametrize("biased", [False, True])
def test_attention_is_torchs(biased: bool) -> None:
    width = HEADS * SIZE
    by_distance = numbers(HEADS, 2 * 16 - 1, seed=3).numpy() if biased else NOWHERE
    y, scale, bias = numbers(TOKENS, 3 * width) / 4, torch.rand(TOKENS), torch.randn(3 * width)
    qkv = y * scale[:, None] + bias
    wanted = attended(qkv, by_distance)
    got = empty(TOKENS, width)
    kernels.attend_and_quantise(y.numpy(), scale.numpy(), bias.numpy(), STARTS, LENGTHS, HEADS, by_distance, *got)
    real = int(LENGTHS.sum())
    assert_bytes((got[0][:real], got[1][:real]), wanted[:real])
    assert not got[0][real:].any()  # filler is not touched
    firsts = empty(len(STARTS), width)
    kernels.attend_first_and_quantise(
        qkv[STARTS, :width].contiguous().numpy(),
        qkv[:, width:].contiguous().numpy(),
        STARTS,
        LENGTHS,
        HEADS,
        by_distance,
        *firsts,
    )
    assert_bytes(firsts, wanted[STARTS])


def test_a_softmax_of_far_apart_scores_stays_whole() -> None:
    far = [[-3e38, 0.0, 88.0], [1e4, -1e4, 9999.0], [-5.0, -5.0, -5.0], [-1.0, -300.0, -2.0]]
    scores = torch.tensor([[*row, row[1]] for row in far]).view(1, 4, 4)
    wanted = scores.double().softmax(-1).float()
    kernels.softmax(scores.numpy(), NOWHERE)
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-7)


def engines(merged: Any) -> tuple[Any, Any]:
    """The fused form and the plain one, in fp32 between the products."""
    return tuple(make_byte_engine(copy.deepcopy(merged), FP32, fused=fused) for fused in (True, False))


@pytest.mark.parametrize("family", PACKED)
def test_every_packed_family_is_its_plain_form(family: str, tmp_path: Path) -> None:
    """Rounding may put a number on the other side of a half: one byte of many, and a logit by a part of what bytes cost."""
    rows = rows_of([7, 30, 1, 12, 30, 29, 3, 18, 2], vocabulary=60)
    merged = classifier(saved(TINY[family], tmp_path), "query-value").merge_and_unload().eval()
    exact = predict_logits(make_engine(merged, "padded", FP32), rows)
    got, plain = (predict_logits(engine, rows) for engine in engines(merged))
    cost = np.abs(plain - exact).max()
    assert np.abs(got - plain).max() < 0.5 * cost
    assert np.abs(got - exact).max() < 1.5 * cost


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_long_rows_attend_in_bf16_where_asked(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What 8 bits round in scores and probabilities is less than what bytes round everywhere."""
    rows = rows_of([30, 12, 29, 3, 18], vocabulary=60)
    merged = classifier(saved(TINY[family], tmp_path), "query-value").merge_and_unload().eval()
    exact = predict_logits(make_engine(merged, "padded", FP32), rows)
    wanted = predict_logits(make_byte_engine(copy.deepcopy(merged), FP32, fused=True), rows)
    monkeypatch.setattr(byte_layers, "LONG", 15)
    monkeypatch.setattr(byte_layers, "SCORES", 1)  # a head at a time
    got = predict_logits(make_byte_engine(copy.deepcopy(merged), BF16, fused=True), rows)
    apart = np.abs(got - wanted).max(axis=1)
    assert (apart[[1, 3]] < 1e-6).all()  # short rows
    assert (apart[[0, 2, 4]] > 0).all()
    assert apart.max() < np.abs(wanted - exact).max()


def real_rows() -> Rows:
    tokens = tokenize(resolve_backbone("minilm").tokenizer(), HEADLINES, 128)
    return Rows(tokens, np.full(len(HEADLINES), -1, dtype=np.int64), 0)


@needs_minilm
def test_real_weights_are_their_plain_form() -> None:
    merged: Any = classifier("minilm", "query-value").merge_and_unload().eval()
    rows = real_rows()
    exact = predict_logits(make_engine(merged, "padded", FP32), rows)
    got, plain = (predict_logits(engine, rows) for engine in engines(merged))
    assert np.abs(got - plain).mean() < 0.5 * np.abs(plain - exact).mean()
    coarse = predict_logits(make_byte_engine(copy.deepcopy(merged), BF16, fused=False), rows)
    assert np.abs(got - plain).mean() < np.abs(coarse - plain).mean()  # nearer than bf16 between the products


@needs_minilm
def test_a_row_answers_alone_as_among_others() -> None:
    """Its layers compute it by itself; the head's product takes all rows at once, and sums of other sizes in another order."""
    merged: Any = classifier("minilm", "query-value").merge_and_unload().eval()
    engine, rows = make_byte_engine(merged, FP32, fused=True), real_rows()
    together = predict_logits(engine, rows)
    alone = [
        predict_logits(engine, Rows(TokenTable.of([rows.tokens[place]]), rows.labels[[place]], 0))
        for place in range(len(rows))
    ]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)


@needs_minilm
def test_no_thread_disturbs_another() -> None:
    from concurrent.futures import ThreadPoolExecutor

    merged: Any = classifier("minilm", "query-value").merge_and_unload().eval()
    engine, rows = make_byte_engine(merged, FP32, fused=True), real_rows()
    wanted = predict_logits(engine, rows)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: predict_logits(engine, rows), range(12)):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("tokens", [1, 40, 300])
def test_a_product_called_from_a_kernel_is_torchs(tokens: int) -> None:
    product = ByteProduct(numbers(48, 96), torch.float32)
    if product.parts is None or not torch_calls.linked():
        pytest.skip("this torch or chip multiplies no bytes")
    handles = torch_calls.Handles(*product.parts)
    whole, _ = token_bytes(numbers(tokens, 96))
    np.testing.assert_array_equal(multiplied(whole.numpy(), handles.array), product.sums(whole))
    with pytest.raises(RuntimeError, match="torch could not multiply bytes"):
        multiplied(whole.numpy()[:, :95].copy(), handles.array)


@numba.njit
def multiplied(whole: Any, handles: Any) -> Any:
    result = np.zeros(1, np.uint64)
    found = kernels.multiply(whole, handles, result).copy()
    kernels.release(result)
    return found


def doubled(row: Any) -> None:
    for i in range(len(row)):
        row[i] *= 2


@pytest.mark.parametrize("room", [True, False])
def test_a_disk_that_takes_no_code_costs_no_answer(room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kernel, row = kernels._compiled(doubled), np.ones(3, np.float32)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        kernel(row)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert row.tolist() == [2, 2, 2]
    assert len(list(tmp_path.rglob("*.nbc"))) == room


def test_handles_give_their_tensors_back() -> None:
    parts = torch.ones(4, 4), torch.ones(4), torch.zeros(4)
    before = [tensor._use_count() for tensor in parts]  # type: ignore[attr-defined]
    handles = torch_calls.Handles(*parts)
    assert [tensor._use_count() for tensor in parts] == [count + 1 for count in before]  # type: ignore[attr-defined]
    del handles
    assert [tensor._use_count() for tensor in parts] == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", PACKED)
def test_layers_in_one_call_are_those_in_many(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler adds and multiplies in another order, which may put a number on the other side of a half."""
    if not torch_calls.linked():
        pytest.skip("this torch has no such calls")
    rows = rows_of([7, 30, 1, 12, 30, 29, 3, 18, 2], vocabulary=60)
    merged = classifier(saved(TINY[family], tmp_path), "query-value").merge_and_unload().eval()
    cost = np.abs(
        predict_logits(engines(merged)[1], rows) - predict_logits(make_engine(merged, "padded", FP32), rows)
    ).max()
    monkeypatch.setattr(byte_layers, "TOGETHER", 16)  # several parts, the last one shorter
    called: list[str] = []
    for name in ("whole_layers", "whole_first_layer"):
        monkeypatch.setattr(kernels, name, counted(getattr(kernels, name), called))
    one = predict_logits(make_byte_engine(copy.deepcopy(merged), FP32, fused=True), rows)
    fused = family != "albert"  # whose activation goes through torch
    assert set(called) == ({"whole_layers", "whole_first_layer"} if fused else set())
    monkeypatch.setattr(torch_calls, "linked", lambda: False)
    called.clear()
    many = predict_logits(make_byte_engine(copy.deepcopy(merged), FP32, fused=True), rows)
    assert not called
    assert np.abs(one - many).max() < 0.5 * cost


def counted(function: Any, called: list[str]) -> Any:
    def call(*given: Any) -> None:
        called.append(function.__name__)
        function(*given)

    return call
