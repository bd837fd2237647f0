"""Rows as spans of one tensor, attended by a variable-length kernel: no padding, no grouping, one launch.

The filler after the last row is a row of its own that nobody asks for. It attends to itself, so every number is defined;
its answer is left out, so its gradient is zero. T is rounded up to few different sizes and the longest row likewise: one
captured GPU graph serves each pair (training/graphs.py).

The letters are those of segments.py; R counts the filler's row.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from newslora.data.batches import Tensors
from newslora.model.packed.varlen import EVERYWHERE, Call, Kernel

if TYPE_CHECKING:
    import torch

    from newslora.model.packed.dropout import DropoutBits

STEP = 128  # T and the longest row are multiples of this: half a step of filler in AG News' 850 tokens a batch


def spare_bucket(tokens: int) -> int:
    """T of a batch of this many tokens; at least one is filler."""
    return (tokens // STEP + 1) * STEP


@dataclass(frozen=True, slots=True)
class Spans(Tensors):
    """Borders between rows."""

    borders: "torch.Tensor"  # (R + 1,) int32, from 0 to T
    longest: int  # no row is longer
    kernel: Kernel
    ones: "torch.Tensor | None" = None  # (R + 1,) int32 borders between the rows' first tokens laid end to end
    filler: int = 0  # the filler is a row

    @staticmethod
    def of(lengths: Sequence[int], total: int, kernel: Kernel) -> "Spans":
        """Rows of these lengths, longest first, and the filler up to `total`, which must be more than their sum."""
        import torch

        borders = np.cumsum([0, *lengths, total - sum(lengths)], dtype=np.int32)
        longest = max(lengths[0], total - sum(lengths))
        return Spans(torch.from_numpy(borders), -(-longest // STEP) * STEP, kernel)

    @property
    def firsts(self) -> "torch.Tensor":
        return self.borders[:-1].long()

    def ready(self, heads: int, dtype: "torch.dtype", by_distance: "torch.Tensor | None" = None) -> "Spans":
        import torch

        assert by_distance is None, "kernels take no bias"
        ones = torch.arange(len(self.borders), dtype=torch.int32, device=self.borders.device)
        return Spans(self.borders, self.longest, self.kernel, ones)

    def owners(self, total: int) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        places = torch.arange(total, dtype=torch.int32, device=self.borders.device)
        return torch.bucketize(places, self.borders[1:], right=True), self.borders.diff()

    def attend(
        self, qkv: "torch.Tensor", heads: int, rate: float, bits: "DropoutBits | None"
    ) -> "tuple[torch.Tensor, Any]":
        q, k, v = qkv.view(len(qkv), 3, heads, -1).unbind(1)
        call = self._call(q.shape[-1] ** -0.5, rate if bits else 0.0)
        out, saved = self.kernel.forward(q, k, v, call)
        return out.reshape(len(qkv), -1), (q, k, v, saved, call)

    def attend_backward(self, d_out: "torch.Tensor", saved: Any, heads: int) -> "torch.Tensor":
        import torch

        q, k, v, held, call = saved
        return torch.stack(self.kernel.backward(d_out.view_as(q), q, k, v, held, call), 1).view(len(d_out), -1)

    def attend_first(
        self, q: "torch.Tensor", kv: "torch.Tensor", heads: int, rate: float, bits: "DropoutBits | None"
    ) -> "tuple[torch.Tensor, Any]":
        assert self.ones is not None, "ready() comes first"
        firsts, (k, v) = q.view(len(q), heads, -1), kv.view(len(kv), 2, heads, -1).unbind(1)
        scale = firsts.shape[-1] ** -0.5
        call = Call(self.ones, self.borders, 1, self.longest, scale, rate if bits else 0.0)
        out, saved = self.kernel.forward(firsts, k, v, call)
        return out.reshape(q.shape), (firsts, k, v, saved, call)

    def attend_first_backward(
        self, d_out: "torch.Tensor", saved: Any, heads: int
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        q, k, v, held, call = saved
        d_q, d_k, d_v = self.kernel.backward(d_out.view_as(q), q, k, v, held, call)
        return d_q.reshape(d_out.shape), torch.stack((d_k, d_v), 1).view(len(d_k), -1)

    def attend_heads(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", scale: float, rate: float, window: int | None
    ) -> "torch.Tensor":
        call = self._call(scale, rate, EVERYWHERE if window is None else window - 1)
        # rotary positions may leave queries and keys wider than the values; the kernel wants one type
        by_token = [part[0].transpose(0, 1).to(v.dtype) for part in (q, k, v)]
        out: torch.Tensor = _differentiable().apply(by_token[0], by_token[1], by_token[2], self.kernel, call)
        return out

    def _call(self, scale: float, rate: float, reach: int = EVERYWHERE) -> Call:
        return Call(self.borders, self.borders, self.longest, self.longest, scale, rate, reach)


@functools.cache
def _differentiable() -> Any:
    """The kernel as an autograd function, made at first use so that importing this module does not import torch."""
    import torch

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", kernel: Kernel, call: Call
        ) -> "torch.Tensor":
            out, ctx.held = kernel.forward(q, k, v, call)
            ctx.kernel, ctx.call = kernel, call
            ctx.save_for_backward(q, k, v)
            return out[None]  # a view: what is held must not hold the result, which holds this context

        @staticmethod
        def backward(ctx: Any, d_out: "torch.Tensor") -> Any:
            q, k, v = ctx.saved_tensors
            return *ctx.kernel.backward(d_out[0], q, k, v, ctx.held, ctx.call), None, None

    return Attention
