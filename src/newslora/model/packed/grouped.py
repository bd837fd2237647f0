"""Self-attention inside each row of a packed batch, in groups of rows of like length.

Rows lie longest first, so rows of like length are neighbours; each such group is one batched product of (rows x heads)
matrices, padded to its longest row. That beats a fused kernel a row on a CPU for news-length rows, and unlike torch's
fused kernels there it can drop attention probabilities as the stock modules do (docs/performance.md).

Letters: n rows of a group, h heads, d numbers a head, L tokens of the group's longest row, S the padded tokens of all
groups together, B rows, T packed tokens.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from newslora.model.packed.dropout import DropoutBits, keep_scale, masked, masked_

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


@dataclass(slots=True)
class SavedGroup:
    """What the backward of one group needs."""

    q: "torch.Tensor"  # (n h, L or 1, d)
    k: "torch.Tensor"  # (n h, L, d)
    v: "torch.Tensor"  # (n h, L, d)
    probabilities: "torch.Tensor"  # (n h, L or 1, L)
    mask: "torch.Tensor | None"


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
    ) -> "tuple[torch.Tensor, list[SavedGroup]]":
        width = qkv.shape[1] // 3
        padded = qkv.new_empty(self.padded, width)
        saved = []
        masks = _masks([(group.rows * heads, group.length, group.length) for group in self.groups], rate, bits, qkv)
        for group, mask in zip(self.groups, masks, strict=True):
            n, length = group.rows, group.length
            q, k, v = _heads_first(qkv.index_select(0, group.tokens), n, length, heads, 3)
            out, held = _attend_group(q, k, v, group, rate, mask)
            _tokens_first(out[None], padded, group)
            saved.append(held)
        return self.packed(padded), saved

    def attend_backward(
        self, d_out: "torch.Tensor", saved: list[SavedGroup], heads: int, rate: float
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
            _group_backward(d_rows, held, rate, grads[0], grads[1], grads[2])
            _tokens_first(grads, padded, group)
        return self.packed(padded)

    def attend_first(
        self, q: "torch.Tensor", kv: "torch.Tensor", heads: int, rate: float, bits: DropoutBits | None
    ) -> "tuple[torch.Tensor, list[SavedGroup]]":
        import torch

        outs, saved, start = [], [], 0
        masks = _masks([(group.rows * heads, 1, group.length) for group in self.groups], rate, bits, q)
        for group, mask in zip(self.groups, masks, strict=True):
            n = group.rows
            k, v = _heads_first(kv.index_select(0, group.tokens), n, group.length, heads, 2)
            q_rows = q[start : start + n].view(n * heads, 1, -1)
            out, held = _attend_group(q_rows, k, v, group, rate, mask)
            outs.append(out.view(n, -1))
            saved.append(held)
            start += n
        return torch.cat(outs), saved

    def attend_first_backward(
        self, d_out: "torch.Tensor", saved: list[SavedGroup], heads: int, rate: float
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
            _group_backward(d_rows, held, rate, d_q[rows].view(n * heads, 1, -1), grads[0], grads[1])
            _tokens_first(grads, padded, group)
            start += n
        return d_q, self.packed(padded)

    def attend_heads(
        self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor", scale: float, rate: float, window: int | None
    ) -> "torch.Tensor":
        import torch
        from torch.nn.functional import dropout

        heads, size = q.shape[1], q.shape[3]
        padded = []
        for group in self.groups:
            queries, keys, values = (
                part[0].index_select(1, group.tokens).view(heads, group.rows, group.length, size).transpose(0, 1)
                for part in (q, k, v)
            )
            scores = torch.matmul(queries, keys.transpose(-1, -2)) * scale
            if (bias := _within(group, heads, window)) is not None:
                scores = scores + bias.to(scores.dtype)
            weights = torch.softmax(scores, dim=-1)
            weights = dropout(weights, rate) if rate else weights
            padded.append(torch.matmul(weights, values).transpose(1, 2).reshape(-1, heads, size))
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
        nearest = by_distance.shape[1] // 2  # the place of distance 0
        # window w holds distances from w - L + 1 on, which are those of query L - 1 - w
        windows = by_distance[:, nearest - length + 1 : nearest + length].unfold(1, length, 1)
        bias = bias + windows.flip(1)  # (n, h, L, L)
    return replace(group, bias=bias.reshape(n * heads, -1, length))


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
        bias = group.bias[:, : q.shape[1]]  # the first token's alone, where it alone asks
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
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
