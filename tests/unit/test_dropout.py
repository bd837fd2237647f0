"""Cheap dropout is dropout: the right share, independent places, the same bits for the same seed."""

import math

import numpy as np
import pytest
import torch

from newslora.model.packed.dropout import DeviceBits, DropoutBits, drawn_rate, keep_scale, masked, masked_

RATES = [0.05, 0.1, 0.3, 0.5, 0.9]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_drawn_is_within_15_bits_of_the_rate_asked_for(rate: float) -> None:
    assert abs(drawn_rate(rate) - rate) <= 2**-16
    assert keep_scale(rate) == pytest.approx(1 / (1 - rate), rel=2e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", RATES)
def test_the_share_dropped_is_the_rate(rate: float, dtype: torch.dtype) -> None:
    """Within 5 standard errors of a million draws: one failure in two million if the share is right."""
    x = torch.ones(1000, 1000, dtype=dtype)
    mask = DropoutBits((1, 2)).keep_mask(x.shape, rate, x)
    dropped = 1 - masked(x, mask).double().mean().item()
    assert abs(dropped - drawn_rate(rate)) < 5 * math.sqrt(rate * (1 - rate) / x.numel())


@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbours_are_dropped_independently(dtype: torch.dtype) -> None:
    """Four decisions come out of one 64-bit word, so correlation at short distances is what to fear."""
    x = torch.ones(1_000_000, dtype=dtype)
    kept = masked(x, DropoutBits((7,)).keep_mask(x.shape, 0.1, x)).double().numpy()
    centred = (kept - kept.mean()) / kept.std()
    for distance in (1, 2, 3, 4, 8, 64, 768, 3072):
        correlation = float(np.mean(centred[:-distance] * centred[distance:]))
        assert abs(correlation) < 5 / math.sqrt(len(kept)), distance


def test_kept_numbers_stay_exactly_as_they_were() -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    mask = DropoutBits((3,)).keep_mask(x.shape, 0.4, x)
    got = masked(x, mask)
    assert 0 < (got == 0).float().mean() < 1
    assert torch.equal(got[got != 0], x[got != 0])
    assert torch.equal(masked_(x.clone(), mask), got)


def test_the_seed_decides_and_each_call_draws_anew() -> None:
    x = torch.ones(100, 100)
    one, two = DropoutBits((1, 5)), DropoutBits((1, 5))
    first, second = one.keep_mask(x.shape, 0.5, x), one.keep_mask(x.shape, 0.5, x)
    again = two.keep_mask(x.shape, 0.5, x)
    other = DropoutBits((1, 6)).keep_mask(x.shape, 0.5, x)
    assert first is not None
    assert second is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_rate_of_zero_draws_nothing() -> None:
    x = torch.ones(3)
    assert DropoutBits((1,)).keep_mask(x.shape, 0.0, x) is None
    assert masked(x, None) is x


def device_bits(seed: int) -> DeviceBits:
    """As on a GPU, with a generator of the CPU in the device's place."""
    return DeviceBits(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", RATES)
def test_a_devices_own_draws_have_the_rate_and_no_memory(rate: float, dtype: torch.dtype) -> None:
    x = torch.ones(1_000_000, dtype=dtype)
    kept = masked(x, device_bits(1).keep_mask(x.shape, rate, x)).double()
    assert abs(1 - kept.mean().item() - drawn_rate(rate)) < 5 * math.sqrt(rate * (1 - rate) / len(x))
    centred = ((kept - kept.mean()) / kept.std()).numpy()
    for distance in (1, 2, 4, 768):
        assert abs(float(np.mean(centred[:-distance] * centred[distance:]))) < 5 / math.sqrt(len(x)), distance


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_devices_mask_keeps_numbers_as_they_were(dtype: torch.dtype) -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = device_bits(3).keep_mask(x.shape, 0.4, x)
    got = masked(x, mask)
    assert got.dtype == dtype
    assert 0 < (got == 0).float().mean() < 1
    assert torch.equal(got[got != 0], x[got != 0])
    assert torch.equal(masked_(x.clone(), mask), got)


def test_a_devices_draws_follow_its_generator() -> None:
    x = torch.ones(100, 100)
    torch.manual_seed(5)
    by_default = [DeviceBits().keep_mask(x.shape, 0.5, x) for _ in range(2)]
    torch.manual_seed(5)
    again = DeviceBits().keep_mask(x.shape, 0.5, x)
    assert torch.equal(again, by_default[0])  # type: ignore[arg-type]
    assert not torch.equal(*by_default)  # type: ignore[arg-type]
    assert device_bits(1).keep_mask(x.shape, 0.0, x) is None
