"""Products with fixed weights that oneDNN multiplies in its own order, against torch's plain ones, on any chip."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_families import TINY
from test_packed import DISTINCT, FP32, LOGIT_TOLERANCE, classifier, rows_of, saved
from torch.nn.functional import linear

from newslora.model.engine import PaddedEngine, make_engine
from newslora.model.inference import predict_logits
from newslora.model.packed import projection
from newslora.model.packed.interface import INTERFACE_FAMILIES

ORDERS = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
needs_onednn = pytest.mark.skipif(not ORDERS, reason="this torch has no oneDNN")


def in_order(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Let every fp32 product of answers go by oneDNN; the results are told."""
    made: list[torch.Tensor] = []
    plain = projection.multiplier

    def told(weight: torch.Tensor, trains: bool = False) -> Any:
        multiply = plain(weight, trains)

        def multiplied(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            made.append(multiply(x, bias))
            return made[-1]

        return multiplied

    monkeypatch.setattr(projection, "_orders", lambda dtype, trains: dtype == torch.float32 and not trains)
    monkeypatch.setattr(projection, "multiplier", told)
    return made


@needs_onednn
@pytest.mark.parametrize("rows", [1, 4, 51, 200])
@pytest.mark.parametrize("biased", [True, False])
def test_a_product_in_onednns_order_is_the_plain_one(rows: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(rows, 96), torch.randn(160, 96)
    bias = torch.randn(160) if biased else None
    monkeypatch.setattr(projection, "_orders", lambda dtype, trains: True)
    exact = linear(x.double(), weight.double(), None if bias is None else bias.double())
    # 96 numbers are added up one after the other, each sum rounded by half of 2e-6 where it lies between 16 and 32
    assert (projection.multiplier(weight)(x, bias) - exact).abs().max() < 96 * 1e-6


@needs_onednn
@pytest.mark.parametrize("family", DISTINCT)
def test_packed_is_padded_with_products_in_order(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(saved(TINY[family], tmp_path / family), "all-linear")
    rows = rows_of([7, 1, 19, 64, 12], TINY[family].vocab_size)
    wanted = predict_logits(PaddedEngine(model, FP32), rows, batch_size=2)
    made = in_order(monkeypatch)
    got = predict_logits(make_engine(model, "packed", FP32), rows, batch_size=3)
    assert made or family in INTERFACE_FAMILIES  # which are computed by their stock modules
    assert abs(wanted - got).max() < LOGIT_TOLERANCE


@needs_onednn
@pytest.mark.parametrize(
    ("chip", "trains", "ordered"), [("AVX2", False, True), ("AVX2", True, False), ("AVX512", False, False)]
)
def test_fp32_is_ordered_where_it_was_measured(
    chip: str, trains: bool, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: chip)
    assert projection._orders(torch.float32, trains) is ordered
    assert projection._orders(torch.float16, trains) is False
