"""Self-attention inside each row of a packed batch.

Rows lie longest first, so rows of like length are neighbours; each such group is one batched product of (rows x heads)
matrices, padded to its longest row. That beats a fused kernel a row on a CPU for news-length rows, and unlike torch's
fused kernels it can drop attention probabilities as the stock modules do (docs/performance.md).

Letters: n rows of a group, h heads, d numbers a head, L tokens of the group's longest row, S the padded tokens of all
groups together.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from newslora.model.packed.dropout import DropoutBits, keep_scale, masked, masked_

if TYPE_CHECKING:
    import torch

SHORTEST_SHARE = 0.75  # a row joins a group if it is at least this share of the group's longest
LENGTH_STEP = 8  # L is a multiple of this, and n a power of two: new shapes cost code generation


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of like length."""

    rows: int  # n
    length: int  # L
    start: int  # of this group in S
    tokens: "torch.Tensor"  # (n * L,) int64: packed place of each padded token; padding points at some real token
    padding: "torch.Tensor | None"  # int64 places in n * L that are padding; None: none
    bias: "torch.Tensor | None"  # (n h, 1, L): minus infinity on padded keys


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the rows of a packed batch are."""

    groups: tuple[Group, ...]
    padded: int  # S
    packed_from: "torch.Tensor"  # (T,) int64: padded place of each packed token
    firsts: "torch.Tensor"  # (B,) int64: packed place of each row's first token
    row_of: "torch.Tensor"  # (T - filler,) int64: row of each token
    filler: int  # packed tokens after the last row, which answer nothing and get no gradient

    def packed(self, padded: "torch.Tensor") -> "torch.Tensor":
        """(S, ...) -> (T, ...), zeros in the filler."""
        found = padded.index_select(0, self.packed_from)
        if self.filler:
            found[-self.filler :] = 0
        return found


@dataclass(slots=True)
class SavedGroup:
    """What the backward of one group needs."""

    q: "torch.Tensor"  # (n h, L or 1, d)
    k: "torch.Tensor"  # (n h, L, d)
    v: "torch.Tensor"  # (n h, L, d)
    probabilities: "torch.Tensor"  # (n h, L or 1, L)
    mask: "torch.Tensor | None"


def find_segments(
    lengths: Sequence[int], total: int, heads: int, dtype: "torch.dtype", device: "torch.device"
) -> Segments:
    """Group rows of like length.

    Args:
        lengths: tokens of each row, longest first.
        total: T, filler after the last row included.
        heads: h.
        dtype, device: of the queries to come.
    """
    import torch

    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    groups, packed_from, padded = [], np.zeros(total, dtype=np.int64), 0
    for first, last in _like_lengths(lengths):
        n, longest = last - first, -(-int(sizes[first]) // LENGTH_STEP) * LENGTH_STEP
        grid = np.arange(longest)[None, :]
        real = grid < sizes[first:last, None]  # (n, L)
        tokens = np.where(real, starts[first:last, None] + grid, 0)
        packed_from[tokens[real]] = padded + np.flatnonzero(real)
        padding = bias = None
        if not real.all():
            padding = torch.from_numpy(np.flatnonzero(~real)).to(device)
            closed = torch.from_numpy(np.where(real, 0.0, -np.inf)).to(device, dtype)
            bias = closed[:, None].expand(n, heads, longest).reshape(n * heads, 1, longest)
        groups.append(Group(n, longest, padded, torch.from_numpy(tokens.ravel()).to(device), padding, bias))
        padded += n * longest
    row_of = np.repeat(np.arange(len(sizes)), sizes)
    source, firsts, owner = (torch.from_numpy(part).to(device) for part in (packed_from, starts, row_of))
    return Segments(tuple(groups), padded, source, firsts, owner, filler=total - len(row_of))


def _like_lengths(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first row, end) of each group."""
    first = 0
    while first < len(lengths):
        end = first + 1
        while end < len(lengths) and lengths[end] >= SHORTEST_SHARE * lengths[first]:
            end += 1
        end = first + (1 << (end - first).bit_length() - 1)
        yield first, end
        first = end


def attend(
    qkv: "torch.Tensor", segments: Segments, heads: int, rate: float, bits: DropoutBits | None
) -> "tuple[torch.Tensor, list[SavedGroup]]":
    """Every token attends to its row.

    Args:
        qkv: (T, 3 h d) queries, keys and values side by side.
        segments: where the rows are.
        heads: h.
        rate: dropout of the probabilities.
        bits: None drops nothing.

    Returns:
        (T, h d), and what the backward needs.
    """
    width = qkv.shape[1] // 3
    padded = qkv.new_empty(segments.padded, width)
    saved = []
    masks = _masks([(group.rows * heads, group.length, group.length) for group in segments.groups], rate, bits, qkv)
    for group, mask in zip(segments.groups, masks, strict=True):
        n, length = group.rows, group.length
        q, k, v = _heads_first(qkv.index_select(0, group.tokens), n, length, heads, 3)
        out, held = _attend_group(q, k, v, group, rate, mask)
        _tokens_first(out[None], padded, group)
        saved.append(held)
    return segments.packed(padded), saved


def attend_backward(
    d_out: "torch.Tensor", saved: list[SavedGroup], segments: Segments, heads: int, rate: float
) -> "torch.Tensor":
    """(T, h d) gradient of `attend`'s result -> (T, 3 h d) gradient of qkv."""
    width = d_out.shape[1]
    padded = d_out.new_empty(segments.padded, 3 * width)
    for group, held in zip(segments.groups, saved, strict=True):
        n, length = group.rows, group.length
        rows = d_out.index_select(0, group.tokens)
        if group.padding is not None:
            rows.index_fill_(0, group.padding, 0)  # what padding answers is thrown away
        (d_rows,) = _heads_first(rows, n, length, heads, 1)
        grads = d_out.new_empty(3, n * heads, length, width // heads)
        _group_backward(d_rows, held, rate, grads[0], grads[1], grads[2])
        _tokens_first(grads, padded, group)
    return segments.packed(padded)


def attend_first(
    q: "torch.Tensor", kv: "torch.Tensor", segments: Segments, heads: int, rate: float, bits: DropoutBits | None
) -> "tuple[torch.Tensor, list[SavedGroup]]":
    """The first token of each row attends to its row: all that the last layer owes the head.

    Args:
        q: (B, h d) queries of the first tokens, in packed order.
        kv: (T, 2 h d) keys and values of all tokens.
        segments, heads, rate, bits: as in `attend`.

    Returns:
        (B, h d), and what the backward needs.
    """
    import torch

    outs, saved, start = [], [], 0
    masks = _masks([(group.rows * heads, 1, group.length) for group in segments.groups], rate, bits, q)
    for group, mask in zip(segments.groups, masks, strict=True):
        n = group.rows
        k, v = _heads_first(kv.index_select(0, group.tokens), n, group.length, heads, 2)
        q_rows = q[start : start + n].view(n * heads, 1, -1)
        out, held = _attend_group(q_rows, k, v, group, rate, mask)
        outs.append(out.view(n, -1))
        saved.append(held)
        start += n
    return torch.cat(outs), saved


def attend_first_backward(
    d_out: "torch.Tensor", saved: list[SavedGroup], segments: Segments, heads: int, rate: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """(B, h d) gradient of `attend_first`'s result -> gradients of q (B, h d) and kv (T, 2 h d)."""
    import torch

    width = d_out.shape[1]
    padded = d_out.new_empty(segments.padded, 2 * width)
    d_q, start = torch.empty_like(d_out), 0
    for group, held in zip(segments.groups, saved, strict=True):
        n, length = group.rows, group.length
        grads = d_out.new_empty(2, n * heads, length, width // heads)
        rows = slice(start, start + n)
        d_rows = d_out[rows].view(n * heads, 1, -1)
        _group_backward(d_rows, held, rate, d_q[rows].view(n * heads, 1, -1), grads[0], grads[1])
        _tokens_first(grads, padded, group)
        start += n
    return d_q, segments.packed(padded)


def _masks(
    shapes: list[tuple[int, int, int]], rate: float, bits: DropoutBits | None, like: "torch.Tensor"
) -> "list[torch.Tensor | None]":
    """What each group's probabilities keep, drawn at once."""
    import torch

    sizes = [math.prod(shape) for shape in shapes]
    drawn = bits.keep_mask((sum(sizes),), rate, like) if bits else None
    if drawn is None:
        return [None] * len(shapes)
    return [part.view(shape) for part, shape in zip(torch.split(drawn, sizes), shapes, strict=True)]


def _attend_group(
    q: "torch.Tensor",
    k: "torch.Tensor",
    v: "torch.Tensor",
    group: Group,
    rate: float,
    mask: "torch.Tensor | None",
) -> "tuple[torch.Tensor, SavedGroup]":
    import torch

    scale = q.shape[-1] ** -0.5
    if group.bias is None:
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
    else:
        scores = torch.baddbmm(group.bias, q, k.transpose(1, 2), alpha=scale)
    probabilities = torch.softmax(scores, dim=-1)
    out = torch.bmm(masked(probabilities, mask), v)
    if mask is not None:
        out.mul_(keep_scale(rate))
    return out, SavedGroup(q, k, v, probabilities, mask)


def _group_backward(
    d_out: "torch.Tensor",
    held: SavedGroup,
    rate: float,
    d_q: "torch.Tensor",
    d_k: "torch.Tensor",
    d_v: "torch.Tensor",
) -> None:
    """Writes the gradients of one group's queries, keys and values."""
    import torch

    kept = keep_scale(rate) if held.mask is not None else 1.0
    p = held.probabilities
    scale = kept * held.q.shape[-1] ** -0.5
    torch.bmm(masked(p, held.mask).transpose(1, 2), d_out, out=d_v)
    d_p = masked_(torch.bmm(d_out, held.v.transpose(1, 2)), held.mask)
    d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype).mul_(scale)
    torch.bmm(d_scores, held.k, out=d_q)
    torch.bmm(d_scores.transpose(1, 2), held.q, out=d_k)
    if held.mask is not None:
        d_v.mul_(kept)


def _heads_first(tokens: "torch.Tensor", rows: int, length: int, heads: int, parts: int) -> "tuple[torch.Tensor, ...]":
    """(n L, parts h d) -> parts of (n h, L, d)."""
    split = tokens.view(rows, length, parts, heads, -1).permute(2, 0, 3, 1, 4).contiguous()
    return split.view(parts, rows * heads, length, -1).unbind(0)


def _tokens_first(parts: "torch.Tensor", padded: "torch.Tensor", group: Group) -> None:
    """(parts, n h, L, d) -> this group's tokens in padded (S, parts h d): the way back from `_heads_first`."""
    count, many, length, size = parts.shape
    heads = many // group.rows
    here = padded[group.start : group.start + group.rows * length]
    here.view(group.rows, length, count, heads, size).copy_(
        parts.view(count, group.rows, heads, length, size).permute(1, 3, 0, 2, 4)
    )
