"""Losses on their way from the device.

Reading a number from a GPU waits until everything before it is done, and meanwhile nothing new is queued. So losses are read
one step late: while step k + 1 runs, the loss of step k has long arrived.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newslora.errors import RunError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class StepLoss:
    """What one optimiser step lost."""

    rows: int
    total: float  # summed over rows


class LateLosses:
    """A queue of losses: put in as device tensors, taken out as numbers, in order."""

    def __init__(self) -> None:
        self._queue: deque[tuple[int, int, torch.Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, rows: int, total: "torch.Tensor") -> None:
        """The loss of step number `step` (from 0), summed over rows; the tensor may be overwritten afterwards."""
        import torch

        kept = total.to("cpu", non_blocking=True, copy=True)  # into page-locked memory, when the device gets there
        event = None
        if total.is_cuda:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._queue.append((step, rows, kept, event))

    def take(self, keep: int = 0) -> Iterator[StepLoss]:
        """All but the newest `keep`.

        Raises:
            RunError: one that is not finite.
        """
        while len(self._queue) > keep:
            step, rows, total, event = self._queue.popleft()
            if event is not None:
                event.synchronize()  # waits for the device, with `keep` steps still queued
            loss = float(total)
            if not math.isfinite(loss):
                raise RunError(
                    f"The loss became {loss} at step {step + 1:,}; the step is not applied. Try a lower "
                    "train.learning_rate, more train.warmup_steps, or train.precision=fp32."
                )
            yield StepLoss(rows, loss)
