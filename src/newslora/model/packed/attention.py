"""Attention of rows of one length, forward and backward: in pieces that stay in cache, or by torch's fused kernel.

torch's kernel for CPUs never writes the scores down, which a long row has many of, but it drops none. Where probabilities of
long rows are dropped, scores are computed of so few rows and heads at a time that what is done to them one after the other
finds them in cache; the random numbers are the same, however they are cut. Both in fp32 on a CPU, where they were measured;
shorter rows, other types and other devices compute all scores of a group together.

Letters: m rows times heads, L tokens of each, d numbers a head. Queries are q (m, L or 1, d).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newslora.model.packed.dropout import DropoutBits, keep_scale, masked, masked_

if TYPE_CHECKING:
    import torch

LONG = 96  # tokens of a long row
PIECE = 2**19  # scores of long rows that are computed together
AT_ONCE = 2**22  # decisions of dropout that are drawn in one call

Shape = tuple[int, int, int]
Draw = Callable[[Shape], "torch.Tensor"]  # -> what is kept of so many probabilities


@dataclass(slots=True)
class Attended:
    """What the backward needs of pieces."""

    q: "torch.Tensor"
    k: "torch.Tensor"
    v: "torch.Tensor"
    pieces: "list[tuple[slice, torch.Tensor, torch.Tensor | None]]"  # of m; probabilities; which of them are kept
    kept: float  # what those are multiplied by


@dataclass(slots=True)
class AttendedFused:
    """What the backward needs of torch's kernel."""

    parts: "tuple[torch.Tensor, ...]"  # q, k, v
    out: "torch.Tensor"


def draws(shapes: Sequence[Shape], rate: float, bits: DropoutBits | None, like: "torch.Tensor") -> Draw | None:
    """What is kept of probabilities of these shapes, asked for in their order, whole or a part after the other.

    Parts must be multiples of 4 numbers, which is what one random word decides. None where nothing is dropped.
    """
    if not (bits and rate):
        return None
    numbers = sum(map(math.prod, shapes))
    if numbers > AT_ONCE:
        return lambda shape: _drawn(bits, shape, rate, like)
    drawn, start = _drawn(bits, (numbers,), rate, like), 0

    def draw(shape: Shape) -> "torch.Tensor":
        nonlocal start
        start += math.prod(shape)
        return drawn[start - math.prod(shape) : start].view(shape)

    return draw


def attend(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", bias: "torch.Tensor | None", rate: float, draw: Draw | None
) -> "tuple[torch.Tensor, Attended | AttendedFused]":
    """softmax(q k^T / sqrt(d) + bias) v, with dropout of the probabilities.

    Args:
        q: (m, L or 1, d).
        k, v: (m, L, d).
        bias: (m, 1 or L, L); where q is of first tokens, their part of it is read.
        rate: of dropout.
        draw: from `draws`; None drops nothing.

    Returns:
        As q, and what `backward` needs.
    """
    import torch

    bias = bias if bias is None else bias[:, : q.shape[1]]
    long = k.shape[1] >= LONG and q.dtype == torch.float32 and q.device.type == "cpu"
    if long and draw is None and q.shape[1] > 1:
        return _attend_fused(q, k, v, bias)
    scale, out = q.shape[-1] ** -0.5, torch.empty_like(q)
    held = Attended(q, k, v, [], 1.0 if draw is None else keep_scale(rate))
    for some in _pieces(len(q), q.shape[1] * k.shape[1] if long else 0):
        scores = _scores(q[some], k[some], None if bias is None else bias[some], scale)
        probabilities = torch.softmax(scores, dim=-1)
        mask = None if draw is None else draw((len(scores), q.shape[1], k.shape[1]))
        torch.bmm(masked(probabilities, mask), v[some], out=out[some])
        held.pieces.append((some, probabilities, mask))
    return out if draw is None else out.mul_(held.kept), held


def backward(
    d_out: "torch.Tensor",
    held: Attended | AttendedFused,
    d_q: "torch.Tensor",
    d_k: "torch.Tensor",
    d_v: "torch.Tensor",
) -> None:
    """Gradient of `attend`'s result -> those of q, k and v, which are written."""
    import torch

    if isinstance(held, AttendedFused):
        for into, gradient in zip((d_q, d_k, d_v), torch.autograd.grad(held.out, held.parts, d_out), strict=True):
            into.copy_(gradient)
        return
    scale = held.kept * held.q.shape[-1] ** -0.5
    for some, p, mask in held.pieces:
        torch.bmm(masked(p, mask).transpose(1, 2), d_out[some], out=d_v[some])
        d_p = masked_(torch.bmm(d_out[some], held.v[some].transpose(1, 2)), mask)
        d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype).mul_(scale)
        torch.bmm(d_scores, held.k[some], out=d_q[some])
        torch.bmm(d_scores.transpose(1, 2), held.q[some], out=d_k[some])
    if held.kept != 1:
        d_v.mul_(held.kept)


def _attend_fused(
    q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", bias: "torch.Tensor | None"
) -> "tuple[torch.Tensor, AttendedFused]":
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    bias = None if bias is None else bias[None]
    if torch.is_inference_mode_enabled():  # nothing is asked for later
        out = scaled_dot_product_attention(q[None], k[None], v[None], bias)[0]
        return out, AttendedFused((), out)
    with torch.enable_grad():
        q, k, v = (part.detach().requires_grad_() for part in (q, k, v))
        out = scaled_dot_product_attention(q[None], k[None], v[None], bias)[0]
    return out.detach(), AttendedFused((q, k, v), out)


def _scores(q: "torch.Tensor", k: "torch.Tensor", bias: "torch.Tensor | None", scale: float) -> "torch.Tensor":
    import torch

    keys = k.transpose(1, 2)
    return torch.bmm(q, keys).mul_(scale) if bias is None else torch.baddbmm(bias, q, keys, alpha=scale)


def _pieces(many: int, scores: int) -> Iterator[slice]:
    """Parts of m that have so many scores each; all at once where that is 0."""
    step = max(1, PIECE // scores) if scores else many
    for start in range(0, many, step):
        yield slice(start, min(start + step, many))


def _drawn(bits: DropoutBits, shape: Sequence[int], rate: float, like: "torch.Tensor") -> "torch.Tensor":
    mask = bits.keep_mask(shape, rate, like)
    assert mask is not None, "asked for at a rate of 0"
    return mask
