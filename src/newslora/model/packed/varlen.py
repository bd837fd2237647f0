"""Attention kernels over rows of any length: torch's flash attention, and the plain form it is compared with.

`torch.nn.attention.varlen.varlen_attn` has no dropout; the operators under it, which torch's own scaled dot-product
attention calls too, take a rate. They are called here directly, with the arguments that torch 2.11 to 2.13 share. Flash
attention draws 8 bits a decision: at 0.1 it drops 26 of 256 and scales by 1 / 0.9, 0.2 % less than the expectation.

The CUDA branch has not run on a GPU yet; benchmarks/gpu.py checks it on the first one it meets.

Letters: T tokens, h heads, d numbers a head.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

EVERYWHERE = -1  # a window without borders


@dataclass(frozen=True, slots=True)
class Call:
    """Which queries meet which keys, and how: row i's lie between borders i and i + 1."""

    q_borders: "torch.Tensor"  # (R + 1,) int32
    k_borders: "torch.Tensor"
    longest_q: int  # at least as long as any row's
    longest_k: int
    scale: float  # of the scores
    rate: float = 0.0  # dropout of the probabilities
    reach: int = EVERYWHERE  # keys at most this many places away are seen


class Kernel(Protocol):
    """Attention inside each row. Tensors are (T, h, d), and borders cover all T."""

    def forward(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", call: Call
    ) -> "tuple[torch.Tensor, Any]":
        """The result, and what the backward needs besides the inputs."""

    def backward(
        self, d_out: "torch.Tensor", q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", saved: Any, call: Call
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """Gradients of q, k and v."""


class Flash:
    """torch's flash attention: CUDA, fp16 or bf16, d a multiple of 8 up to 256."""

    def forward(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", call: Call
    ) -> "tuple[torch.Tensor, Any]":
        import torch

        out, sums, random_state, unused, _ = torch.ops.aten._flash_attention_forward(
            q, k, v, call.q_borders, call.k_borders, call.longest_q, call.longest_k, call.rate, False, False,
            scale=call.scale, window_size_left=call.reach, window_size_right=call.reach,
        )  # fmt: skip
        return out, (out, sums, random_state, unused)

    def backward(
        self, d_out: "torch.Tensor", q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", saved: Any, call: Call
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        import torch

        out, sums, random_state, unused = saved
        with _same_order():
            d_q, d_k, d_v = torch.ops.aten._flash_attention_backward(
                d_out, q, k, v, out, sums, call.q_borders, call.k_borders, call.longest_q, call.longest_k, call.rate,
                False, random_state, unused,
                scale=call.scale, window_size_left=call.reach, window_size_right=call.reach,
            )  # fmt: skip
        return d_q, d_k, d_v


class RowByRow:
    """The plain reference, on any device and in any type: a row at a time, and it waits for the device to learn where."""

    def forward(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", call: Call
    ) -> "tuple[torch.Tensor, Any]":
        masks = [self._mask(q, rows, call) for rows in self._rows(call)]
        return self._attend(q, k, v, masks, call), masks

    def backward(
        self, d_out: "torch.Tensor", q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", saved: Any, call: Call
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        import torch

        with torch.enable_grad():
            q, k, v = (part.detach().requires_grad_() for part in (q, k, v))
            d_q, d_k, d_v = torch.autograd.grad(self._attend(q, k, v, saved, call), (q, k, v), d_out)
        return d_q, d_k, d_v

    def _attend(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", masks: "list[torch.Tensor | None]", call: Call
    ) -> "torch.Tensor":
        import torch

        outs = []
        for (ours, theirs), mask in zip(self._rows(call), masks, strict=True):
            scores = torch.einsum("qhd,khd->hqk", q[ours], k[theirs]) * call.scale
            if call.reach != EVERYWHERE:
                places = torch.arange(scores.shape[-1], device=q.device)
                scores = scores.masked_fill((places[:, None] - places).abs() > call.reach, float("-inf"))
            p = torch.softmax(scores, dim=-1)
            outs.append(torch.einsum("hqk,khd->qhd", p if mask is None else p * mask, v[theirs]))
        return torch.cat(outs)

    def _mask(self, q: "torch.Tensor", rows: tuple[slice, slice], call: Call) -> "torch.Tensor | None":
        if not call.rate:
            return None
        ours, theirs = rows
        shape = q.shape[1], ours.stop - ours.start, theirs.stop - theirs.start
        return q.new_empty(shape).bernoulli_(1 - call.rate).div_(1 - call.rate)

    def _rows(self, call: Call) -> list[tuple[slice, slice]]:
        ours, theirs = call.q_borders.tolist(), call.k_borders.tolist()
        return [
            (slice(*pair[:2]), slice(*pair[2:]))
            for pair in zip(ours[:-1], ours[1:], theirs[:-1], theirs[1:], strict=True)
        ]


def kernel_for(device: "torch.device", dtype: "torch.dtype", head_size: int) -> Kernel | None:
    """The device's kernel for this type and head size; None where there is none."""
    import torch

    fits = dtype in (torch.bfloat16, torch.float16) and head_size % 8 == 0 and head_size <= 256
    return Flash() if device.type == "cuda" and fits and _flash_runs(device, dtype, head_size) else None


@functools.cache
def _flash_runs(device: "torch.device", dtype: "torch.dtype", head_size: int) -> bool:
    """Asks the device itself, once: old chips and some builds of torch have no flash attention."""
    import torch

    flash, borders = Flash(), torch.tensor([0, 3, 8], dtype=torch.int32, device=device)
    x = torch.ones(8, 1, head_size, dtype=dtype, device=device)
    call = Call(borders, borders, 128, 128, scale=1.0, rate=0.1)
    try:
        out, saved = flash.forward(x, x, x, call)
        flash.backward(out, x, x, x, saved, call)
        torch.cuda.synchronize(device)  # an error on the device shows itself here
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def _same_order() -> Iterator[None]:
    """Have flash attention add up its gradients in one order: a run must end with the same bits each time.

    Its only choice is torch's global switch, under which torch would also fill every new tensor. The public setters of both
    are thin, but one imports the compiler and sets it up too.
    """
    from torch import _C, are_deterministic_algorithms_enabled, is_deterministic_algorithms_warn_only_enabled

    before, warns = are_deterministic_algorithms_enabled(), is_deterministic_algorithms_warn_only_enabled()
    fills = _C._get_deterministic_fill_uninitialized_memory()
    _C._set_deterministic_fill_uninitialized_memory(False)
    _C._set_deterministic_algorithms(True)
    try:
        yield
    finally:
        _C._set_deterministic_algorithms(before, warn_only=warns)
        _C._set_deterministic_fill_uninitialized_memory(fills)
