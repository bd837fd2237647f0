"""Dropout whose random bits cost little.

`bernoulli_` draws one 32-bit Mersenne number a decision on one core: a third of a packed MiniLM step. Here numpy's
SFC64 fills 64-bit words, each of which makes four decisions of 15 bits, and a decision is an integer of all ones or all
zeros that is ANDed onto the number it keeps or drops. Rates are therefore multiples of 1/32,768 (0.1 becomes 0.100006);
the scale 1 / (1 - rate) is of the rate as drawn, so the expectation is exact.

A GPU draws for itself, one counter-based number a decision (torch's Philox generator), in one kernel that writes booleans.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

STEPS = 1 << 15  # decisions have this many levels


def drawn_rate(rate: float) -> float:
    """The nearest rate that 15 bits can draw."""
    return round(rate * STEPS) / STEPS


def keep_scale(rate: float) -> float:
    """What kept numbers are multiplied by, so that dropout leaves the expectation as it is."""
    return 1.0 / (1.0 - drawn_rate(rate))


class DropoutBits:
    """Decisions of dropout as a pure function of the seed."""

    def __init__(self, seed: Sequence[int]) -> None:
        self._generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence(tuple(seed))))

    def keep_mask(self, shape: Sequence[int], rate: float, like: "torch.Tensor") -> "torch.Tensor | None":
        """Integers as wide as the numbers of `like`: all ones to keep, zero to drop. None where nothing is dropped."""
        import torch

        if not rate:
            return None
        drawn = torch.from_numpy(self._draw(int(np.prod(shape)))).view(*shape)
        # 15 random bits, uniform in [-16384, 16383]; minus the threshold they are negative in `rate` of all cases
        dropped = drawn.bitwise_right_shift_(1).sub_(round(rate * STEPS) - STEPS // 2).bitwise_right_shift_(15)
        mask = dropped.bitwise_not_()
        if like.element_size() == 4:
            mask = mask.to(torch.int32)  # the sign extends: all ones stay all ones
        return mask.to(like.device, non_blocking=True)

    def _draw(self, count: int) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
        """`count` random 16-bit numbers."""
        words = self._generator.integers(0, 2**64, size=-(-count // 4), dtype=np.uint64)
        return words.view(np.int16)[:count]


class DeviceBits(DropoutBits):
    """Decisions drawn where the numbers are, by a torch generator that the caller seeds for each step.

    Nothing is seeded here: a captured GPU step (training/graphs.py) draws anew at every replay, from what the generator
    was seeded with before it.
    """

    def __init__(self, generator: "torch.Generator | None" = None) -> None:
        """Draw from a generator on the device of the numbers; None: torch's own of that device."""
        self._device_generator = generator

    def keep_mask(self, shape: Sequence[int], rate: float, like: "torch.Tensor") -> "torch.Tensor | None":
        """Booleans: true to keep. None where nothing is dropped."""
        import torch

        if not rate:
            return None
        mask = torch.empty(tuple(shape), dtype=torch.bool, device=like.device)
        return mask.bernoulli_(1.0 - drawn_rate(rate), generator=self._device_generator)


def masked(x: "torch.Tensor", mask: "torch.Tensor | None") -> "torch.Tensor":
    """Kept numbers of `x`, zeros elsewhere; not scaled. `x` itself where there is no mask."""
    import torch

    if mask is None:
        return x
    return x * mask if mask.dtype == torch.bool else (x.view(mask.dtype) & mask).view(x.dtype)


def masked_(x: "torch.Tensor", mask: "torch.Tensor | None") -> "torch.Tensor":
    """As `masked`, in place."""
    import torch

    if mask is None:
        return x
    if mask.dtype == torch.bool:
        return x.mul_(mask)
    x.view(mask.dtype).bitwise_and_(mask)
    return x
