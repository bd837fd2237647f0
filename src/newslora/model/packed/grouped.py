"""Self-attention inside each row of a packed batch, in groups of rows of like length.

Rows lie longest first, so rows of like length are neighbours; each such group is one batched product of (rows x heads)
matrices, padded to its longest row, which attention.py computes. That beats a kernel's call a row on a CPU for news-length
rows (docs/performance.md).

Letters: n rows of a group, h heads, d numbers a head, L tokens of the group's longest row, S the padded tokens of all
groups together, B rows, T packed tokens.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from newslora.model.packed.attention import Attended, AttendedFused, attend, backward, draws
from newslora.model.packed.dropout import DropoutBits

if TYPE_CHECKING:
    import torch

SHORTEST_SHARE = 0.75  # a row joins a group if it is at least this share of the group's longest
LENGTH_STEP = 8  # L is a multiple of this, and n a power of two: new shapes cost code generation


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one group."""

    rows: int  # n
    length: int  # L
    padding: int  # padded places in n * L


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of like length."""

    rows: int  # n
    length: int  # L
    start: int  # of this group in S
    tokens: "torch.Tensor"  # (n * L,) int64: packed place of each padded token; padding points at some real token
    padding: "torch.Tensor | None"  # int64 places in n * L that are padding; None: none
    bias: "torch.Tensor | None"  # (n h, 1 or L, L) of the scores: minus infinity on padded keys; made by `Groups.ready`


class Groups:
    """The groups of one packed batch."""

    def __init__(self, numbers: "torch.Tensor", shapes: tuple[Shape, ...], rows: int, total: int) -> None:
        """Read the groups out of one tensor, which moves between processes and devices in one piece.

        Args:
            numbers: int64: packed place of each padded token, padded place of each packed token, row of each token, first
                token of each row, then the padding of each group.
            shapes: of the groups.
            rows: B.
            total: T, filler included.
        """
        import torch

        self._parts = numbers, shapes, rows, total
        self.padded = sum(shape.rows * shape.length for shape in shapes)  # S
        paddings = [shape.padding for shape in shapes]
        real = self.padded - sum(paddings)
        self.filler = total - real  # packed tokens after the last row, which answer nothing and get no gradient
        tokens, self._packed_from, self._row_of, self.firsts, padding = torch.split(
            numbers, [self.padded, total, real, rows, sum(paddings)]
        )
        places_of = torch.split(tokens, [shape.rows * shape.length for shape in shapes])
        groups, start = [], 0
        for shape, places, closed in zip(shapes, places_of, torch.split(padding, paddings), strict=True):
            groups.append(Group(shape.rows, shape.length, start, places, closed if shape.padding else None, None))
            start += shape.rows * shape.length
        self.groups = tuple(groups)

    def __reduce__(self) -> Any:
        return Groups, self._parts

    @staticmethod
    def of(lengths: Sequence[int], total: int) -> "Groups":
        """Group rows of like length.

        Args:
            lengths: tokens of each row, longest first.
            total: T, filler after the last row included.
        """
        import torch

        sizes = np.asarray(lengths, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        shapes, places, paddings = [], [], []
        packed_from, padded = np.zeros(total, dtype=np.int64), 0
        for first, last in _like_lengths(lengths):
            n, longest = last - first, -(-int(sizes[first]) // LENGTH_STEP) * LENGTH_STEP
            grid = np.arange(longest)[None, :]
            real = grid < sizes[first:last, None]  # (n, L)
            tokens = np.where(real, starts[first:last, None] + grid, 0)
            packed_from[tokens[real]] = padded + np.flatnonzero(real)
            places.append(tokens.ravel())
            paddings.append(np.flatnonzero(~real))
            shapes.append(Shape(n, longest, len(paddings[-1])))
            padded += n * longest
        row_of = np.repeat(np.arange(len(sizes)), sizes)
        numbers = torch.from_numpy(np.concatenate([*places, packed_from, row_of, starts, *paddings]))
        return Groups(numbers, tuple(shapes), len(sizes), total)

    def to(self, device: "torch.device") -> "Groups":
        numbers, shapes, rows, total = self._parts
        return Groups(numbers.to(device, non_blocking=True), shapes, rows, total)

    def pin_memory(self) -> "Groups":
        numbers, shapes, rows, total = self._parts
        return Groups(numbers.pin_memory(), shapes, rows, total)

    def ready(self, heads: int, dtype: "torch.dtype", by_distance: "torch.Tensor | None" = None) -> "Groups":
        found = Groups(*self._parts)
        found.groups = tuple(_biased(group, heads, dtype, by_distance) for group in self.groups)
        return found

    def owners(self, total: int) -> "tuple[torch.Tensor, torch.Tensor]":
        ends = self.firsts.new_full((1,), total - self.filler)
        return self._row_of, self.firsts.diff(append=ends)

    def packed(self, padded: "torch.Tensor") -> "torch.Tensor":
        """(S, ...) -> (T, ...), zeros in the filler."""
        found = padded.index_select(0, self._packed_from)
        if self.filler:
            found[-self.filler :] = 0
        return found

    def attend(
        self, qkv: "torch.Tensor", heads: int, rate: float, bits: DropoutBits | None
    ) -> "tuple[torch.Tensor, list[Attended | AttendedFused]]":
        width = qkv.shape[1] // 3
        padded = qkv.new_empty(self.padded, width)
        saved = []
        draw = draws([(group.rows * heads, group.length, group.length) for group in self.groups], rate, bits, qkv)
        for group in self.groups:
            n, length = group.rows, group.length
            q, k, v = _heads_first(qkv.index_select(0, group.tokens), n, length, heads, 3)
            out, held = attend(q, k, v, group.bias, rate, draw)
            _tokens_first(out[None], padded, group)
            saved.append(held)
        return self.packed(padded), saved

    def attend_backward(
        self, d_out: "torch.Tensor", saved: list[Attended | AttendedFused], heads: int
    ) -> "torch.Tensor":
        width = d_out.shape[1]
        padded = d_out.new_empty(self.padded, 3 * width)
        for group, held in zip(self.groups, saved, strict=True):
            n, length = group.rows, group.length
            rows = d_out.index_select(0, group.tokens)
            if group.padding is not None:
                rows.index_fill_(0, group.padding, 0)  # what padding answers is thrown away
            (d_rows,) = _heads_first(rows, n, length, heads, 1)
            grads = d_out.new_empty(3, n * heads, length, width // heads)
            backward(d_rows, held, grads[0], grads[1], grads[2])
            _tokens_first(grads, padded, group)
        return self.packed(padded)

    def attend_first(
        self, q: "torch.Tensor", kv: "torch.Tensor", heads: int, rate: float, bits: DropoutBits | None
    ) -> "tuple[torch.Tensor, list[Attended | AttendedFused]]":
        import torch

        outs, saved, start = [], [], 0
        draw = draws([(group.rows * heads, 1, group.length) for group in self.groups], rate, bits, q)
        for group in self.groups:
            n = group.rows
            k, v = _heads_first(kv.index_select(0, group.tokens), n, group.length, heads, 2)
            q_rows = q[start : start + n].view(n * heads, 1, -1)
            out, held = attend(q_rows, k, v, group.bias, rate, draw)
            outs.append(out.view(n, -1))
            saved.append(held)
            start += n
        return torch.cat(outs), saved

    def attend_first_backward(
        self, d_out: "torch.Tensor", saved: list[Attended | AttendedFused], heads: int
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        width = d_out.shape[1]
        padded = d_out.new_empty(self.padded, 2 * width)
        d_q, start = torch.empty_like(d_out), 0
        for group, held in zip(self.groups, saved, strict=True):
            n, length = group.rows, group.length
            grads = d_out.new_empty(2, n * heads, length, width // heads)
            rows = slice(start, start + n)
            d_rows = d_out[rows].view(n * heads, 1, -1)
            backward(d_rows, held, d_q[rows].view(n * heads, 1, -1), grads[0], grads[1])
            _tokens_first(grads, padded, group)
            start += n
        return d_q, self.packed(padded)

    def attend_heads(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", scale: float, rate: float, window: int | None
    ) -> "torch.Tensor":
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        heads, size = q.shape[1], q.shape[3]
        padded = []
        for group in self.groups:
            queries, keys, values = (
                # rotary positions may leave queries and keys wider than the values
                part[0]
                .index_select(1, group.tokens)
                .view(heads, group.rows, group.length, size)
                .transpose(0, 1)
                .to(v.dtype)
                for part in (q, k, v)
            )
            bias = _within(group, heads, window)
            out = scaled_dot_product_attention(
                queries, keys, values, None if bias is None else bias.to(v.dtype), rate, scale=scale
            )
            padded.append(out.transpose(1, 2).reshape(-1, heads, size))
        return self.packed(torch.cat(padded))[None]


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


def _biased(group: Group, heads: int, dtype: "torch.dtype", by_distance: "torch.Tensor | None") -> Group:
    """The group with its bias, made where its places are, once for all layers."""
    if group.padding is None and by_distance is None:
        return group
    n, length = group.rows, group.length
    bias = group.tokens.new_zeros(n * length, dtype=dtype)
    if group.padding is not None:
        bias.index_fill_(0, group.padding, -math.inf)
    bias = bias.view(n, 1, 1, length).expand(n, heads, 1, length)
    if by_distance is not None:
        bias = bias + of_each_pair(by_distance, length)  # (n, h, L, L)
    return replace(group, bias=bias.reshape(n * heads, -1, length))


def of_each_pair(by_distance: "torch.Tensor", length: int) -> "torch.Tensor":
    """(h, 2 M - 1) by the distance from query to key, from 1 - M on -> (h, L, L) of a row's queries and keys."""
    nearest = by_distance.shape[1] // 2  # the place of distance 0
    # window w holds distances from w - L + 1 on, which are those of query L - 1 - w
    return by_distance[:, nearest - length + 1 : nearest + length].unfold(1, length, 1).flip(1)


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


def _within(group: Group, heads: int, window: int | None) -> "torch.Tensor | None":
    """(n, h or 1, L or 1, L) minus infinity where a token does not look."""
    import torch

    bias = None if group.bias is None else group.bias.view(group.rows, heads, 1, group.length)
    if window is None or group.length <= window:
        return bias
    place = torch.arange(group.length, device=group.tokens.device)
    far = (place[:, None] - place[None, :]).abs() >= window
    closed = torch.zeros(far.shape, device=far.device).masked_fill_(far, float("-inf"))
    if bias is None:
        return closed[None, None]
    # a padded token's window may hold nothing but padding: let it look at itself, for its answer is thrown away
    both = torch.minimum(bias.float(), closed)
    return both.masked_fill((both == float("-inf")).all(-1, keepdim=True), 0.0)
