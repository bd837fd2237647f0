"""Where the rows of a packed batch are: the seam between encoders and the two ways to attend inside a row.

Groups (grouped.py) is the way of CPUs, of fp32 and of anything else; Spans (spans.py) is one variable-length kernel for all
rows, the way of GPUs in half precision. Both have one signature, and `collate_for` is the one place that chooses.

Letters: T packed tokens, R rows, h heads, d numbers a head.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from newslora.data.batches import Chosen, Rows
from newslora.data.packing import PackedBatch, next_fine_step, next_step, pack
from newslora.model.packed.dropout import DropoutBits
from newslora.model.packed.grouped import Groups
from newslora.model.packed.spans import Spans, spare_bucket
from newslora.model.packed.varlen import Kernel, kernel_for

if TYPE_CHECKING:
    import torch


class Segments(Protocol):
    """Attention inside each row, forward and backward; what `attend` returns second is for `attend_backward`."""

    @property
    def firsts(self) -> "torch.Tensor":
        """(R,) int64: packed place of each row's first token."""

    @property
    def filler(self) -> int:
        """Packed tokens after the last row that belong to no row."""

    def to(self, device: "torch.device") -> Self:
        """On another device, without waiting where the memory is pinned."""

    def pin_memory(self) -> Self:
        """In page-locked memory."""

    def ready(self, heads: int, dtype: "torch.dtype", by_distance: "torch.Tensor | None" = None) -> Self:
        """With what attention needs of its device; before any of those below.

        Args:
            heads: h.
            dtype: of the scores.
            by_distance: (h, 2 M - 1) added to the scores of `attend` and `attend_first`, by the distance from query to
                key, from 1 - M to M - 1, where M is at least a row's length rounded up. Groups take it, Spans do not.
        """

    def owners(self, total: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """T -> (T - filler,) int64 row of each token, and (R,) tokens of each row."""

    def attend(
        self, qkv: "torch.Tensor", heads: int, rate: float, bits: DropoutBits | None
    ) -> "tuple[torch.Tensor, Any]":
        """Every token attends to its row.

        Args:
            qkv: (T, 3 h d) queries, keys and values side by side.
            heads: h.
            rate: dropout of the probabilities.
            bits: None drops nothing.

        Returns:
            (T, h d), and what the backward needs.
        """

    def attend_backward(self, d_out: "torch.Tensor", saved: Any, heads: int) -> "torch.Tensor":
        """(T, h d) gradient of `attend`'s result -> (T, 3 h d) gradient of qkv."""

    def attend_first(
        self, q: "torch.Tensor", kv: "torch.Tensor", heads: int, rate: float, bits: DropoutBits | None
    ) -> "tuple[torch.Tensor, Any]":
        """The first token of each row attends to its row: all that the last layer owes the head.

        Args:
            q: (R, h d) queries of the first tokens, in packed order.
            kv: (T, 2 h d) keys and values of all tokens.
            heads, rate, bits: as in `attend`.

        Returns:
            (R, h d), and what the backward needs.
        """

    def attend_first_backward(
        self, d_out: "torch.Tensor", saved: Any, heads: int
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """(R, h d) gradient of `attend_first`'s result -> gradients of q (R, h d) and kv (T, 2 h d)."""

    def attend_heads(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", scale: float, rate: float, window: int | None
    ) -> "torch.Tensor":
        """(1, h, T, d) each -> (1, T, h, d), differentiable: the form of transformers' attention interface.

        Args:
            q, k, v: queries, keys and values.
            scale: of the scores.
            rate: dropout of the probabilities, drawn by torch's generator.
            window: tokens this far apart or further do not see each other; None: all do.
        """


@dataclass(frozen=True, slots=True)
class SegmentedBatch:
    """A packed batch that brings its segments along, so that nothing of them is computed or waited for in a step."""

    packed: PackedBatch
    segments: Segments

    @property
    def labels(self) -> "torch.Tensor":
        return self.packed.labels

    @property
    def owners(self) -> "torch.Tensor | None":
        return self.packed.owners

    def to(self, device: "torch.device") -> "SegmentedBatch":
        return SegmentedBatch(self.packed.to(device), self.segments.to(device))

    def pin_memory(self) -> "SegmentedBatch":
        return SegmentedBatch(self.packed.pin_memory(), self.segments.pin_memory())

    def __len__(self) -> int:
        return len(self.packed)


def collate_groups(rows: Rows, chosen: Chosen, bucket: Callable[[int], int] = next_step) -> SegmentedBatch:
    """Row numbers -> a packed batch in groups of rows of like length."""
    packed = pack(rows, chosen, bucket)
    return SegmentedBatch(packed, Groups.of(packed.lengths, len(packed.input_ids)))


def collate_spans(rows: Rows, chosen: Chosen, kernel: Kernel) -> SegmentedBatch:
    """Row numbers -> a packed batch of few different sizes, its filler a row of its own."""
    packed = pack(rows, chosen, spare_bucket)
    return SegmentedBatch(packed, Spans.of(packed.lengths, len(packed.input_ids), kernel))


Collate = Callable[[Rows, Chosen], SegmentedBatch]


def collate_for(
    device: "torch.device", dtype: "torch.dtype", head_size: int, kernel: Kernel | None = None, trains: bool = True
) -> Collate:
    """How an encoder's batches are put together, and thereby how it attends.

    Args:
        device, dtype: that attention computes on and in.
        head_size: d.
        kernel: take this one; None: the device's own, or groups where it has none.
        trains: whether anything is learnt from the batches.
    """
    chosen = kernel or kernel_for(device, dtype, head_size)
    if chosen is not None:
        return functools.partial(collate_spans, kernel=chosen)
    return functools.partial(collate_groups, bucket=next_step if trains else next_fine_step)
