"""Layers in eight bits, forward only: oneDNN multiplies bytes, and compiled kernels do all that stands between two products.

The plain form of the same is PackedEncoder with ByteProjection; it works without Numba and on any device, with roundings of its
own between the products. Here everything between them is fp32.
"""

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from newslora.model.packed.dropout import DropoutBits
from newslora.model.packed.eight_bits import ByteProjection
from newslora.model.packed.encoder import PackedEncoder
from newslora.model.packed.layer import Layer, Norm

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from newslora.model.packed.segments import Segments

LONG = 192  # tokens of a row whose attention is multiplied in bf16, where the chip does that fast
SCORES = 2**18  # of such a row at a time, in whole heads; they are to stay in a core's own cache as well
TOGETHER = 256  # tokens of a feed-forward part at a time: what lies between its products stays in a core's own cache


def can_fuse() -> bool:
    """Whether the kernels can be compiled here."""
    return importlib.util.find_spec("numba") is not None


class Bytes:
    """N tokens in bytes, with their scales."""

    def __init__(self, numbers: "torch.Tensor", greatest: NDArray[np.float32]) -> None:
        self.numbers, self.greatest = numbers, greatest

    @classmethod
    def empty(cls, tokens: int, width: int) -> "Bytes":
        """For a kernel to write."""
        import torch

        return cls(torch.empty(tokens, width, dtype=torch.uint8), np.empty(tokens, dtype=np.float32))

    @property
    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return self.numbers.numpy(), self.greatest

    def part(self, some: slice) -> "Bytes":
        """Some tokens, in the same memory."""
        return Bytes(self.numbers[some], self.greatest[some])

    def take(self, places: "torch.Tensor") -> "Bytes":
        """Copies of the tokens at these places."""
        return Bytes(self.numbers.index_select(0, places), self.greatest[places.numpy()])


class RowPlaces:
    """Where the rows of a packed batch are."""

    def __init__(self, segments: "Segments", total: int) -> None:
        _, sizes = segments.owners(total)
        self.firsts = segments.firsts
        self.starts: NDArray[np.int64] = segments.firsts.numpy()
        self.lengths: NDArray[np.int64] = sizes.numpy()
        self.end = total - segments.filler

    def each(self) -> Iterator[slice]:
        """The tokens of each row."""
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield slice(start, start + length)


class ByteLayer:
    """One post-norm layer; owns nothing but what it takes from a plain one.

    Args:
        layer: of ByteProjections in fp32.
        by_distance: (h, 2 M - 1), as `newslora.model.packed.kernels.softmax` takes it.
        bf16: whether the attention of long rows is multiplied in bf16.
    """

    def __init__(self, layer: Layer, by_distance: NDArray[np.float32], bf16: bool) -> None:
        from newslora.model.packed import kernels

        self._kernels: Any = kernels
        self._by_distance, self._bf16 = by_distance, bf16
        self.heads, self.first_token_only, self.activation = layer.heads, layer.first_token_only, layer.activation
        self._qkv, self._out, self._up, self._down = layer.qkv, layer.out, layer.up, layer.down
        self._norm1, self._norm2 = _norm_arrays(layer.norm1), _norm_arrays(layer.norm2)

    def forward(self, hidden: "torch.Tensor", held: Bytes, rows: RowPlaces) -> "tuple[torch.Tensor, Bytes]":
        """(T, H) fp32, which is overwritten, and the same in bytes -> the layer's; of a first-token layer (R, H)."""
        if self.first_token_only:
            context = self._attend_first(held, rows)
            hidden = hidden.index_select(0, rows.firsts)
        else:
            context = self._attend(held, rows)
        middle = Bytes.empty(*hidden.shape)
        self._add_and_norm(self._out, context, hidden, self._norm1, middle)
        after = Bytes.empty(*hidden.shape)
        for start in range(0, len(hidden), TOGETHER):
            some = slice(start, start + TOGETHER)
            raised = self._raised(middle.part(some))
            self._add_and_norm(self._down, raised, hidden[some], self._norm2, after.part(some))
        return hidden, after

    def _attend(self, held: Bytes, rows: RowPlaces) -> Bytes:
        import torch

        y = _sums(self._qkv[0], held)
        size = y.shape[1] // 3 // self.heads
        context = Bytes.empty(len(y), self.heads * size)
        context.numbers[rows.end :], context.greatest[rows.end :] = 128, 1.0  # filler: zeros, which nothing reads
        for row in rows.each():  # by itself, so that no neighbour changes a bit of it
            q, k, v = torch.empty(3, self.heads, row.stop - row.start, size).unbind()
            self._kernels.split_heads(
                y[row].numpy(), held.greatest[row], _bias(self._qkv[0]), q.numpy(), k.numpy(), v.numpy()
            )
            attended = self._mixed(q, k, v)
            self._kernels.join_heads_and_quantise(attended.numpy(), *context.part(row).arrays)
        return context

    def _mixed(self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor") -> "torch.Tensor":
        """(h, L, d) each -> softmax(q k^T) v, (h, L, d)."""
        import torch

        length = q.shape[1]
        if length < LONG or not self._bf16:
            scores = torch.bmm(q, k.transpose(1, 2))
            self._kernels.softmax(scores.numpy(), self._by_distance)
            return torch.bmm(scores, v)
        out = torch.empty_like(q)
        together = max(1, SCORES // length**2)
        for first in range(0, self.heads, together):
            some = slice(first, first + together)
            ours, keys, values = (part[some].bfloat16() for part in (q, k, v))
            scores = torch.bmm(ours, keys.transpose(1, 2)).float()
            self._kernels.softmax(scores.numpy(), self._by_distance[some])
            out[some] = torch.bmm(scores.bfloat16(), values)
        return out

    def _attend_first(self, held: Bytes, rows: RowPlaces) -> Bytes:
        q = self._projected(self._qkv[0], held.take(rows.firsts))
        kv = self._projected(self._qkv[1], held)
        context = Bytes.empty(*q.shape)
        self._kernels.attend_first_and_quantise(
            q.numpy(), kv.numpy(), rows.starts, rows.lengths, self.heads, self._by_distance, *context.arrays
        )
        return context

    def _projected(self, projection: Any, held: Bytes) -> "torch.Tensor":
        """(N, H) bytes -> (N, out) fp32."""
        y = _sums(projection, held)
        self._kernels.scale_and_shift(y.numpy(), held.greatest, _bias(projection))
        return y

    def _raised(self, held: Bytes) -> Bytes:
        """The up-projection's result after the activation."""
        if self.activation.name == "gelu":
            y = _sums(self._up, held)
            raised = Bytes.empty(*y.shape)
            self._kernels.gelu_and_quantise(y.numpy(), held.greatest, _bias(self._up), *raised.arrays)
        else:
            y = self.activation.forward(self._projected(self._up, held))
            raised = Bytes.empty(*y.shape)
            self._kernels.quantise(y.numpy(), *raised.arrays)
        return raised

    def _add_and_norm(
        self, projection: Any, held: Bytes, hidden: "torch.Tensor", norm: tuple[Any, ...], into: Bytes
    ) -> None:
        y = _sums(projection, held)
        self._kernels.add_norm_and_quantise(
            y.numpy(), held.greatest, _bias(projection), hidden.numpy(), *norm, *into.arrays
        )


class ByteEncoder(PackedEncoder):
    """The layers of one classifier on a CPU; without gradients, LoRA merged.

    Args:
        model: as PackedEncoder takes it, without LoRA.
        bf16: as `ByteLayer` takes it.
    """

    def __init__(self, model: "PreTrainedModel", bf16: bool) -> None:
        import torch

        from newslora.model.packed import kernels

        super().__init__(model, torch.float32, trains=False, projection=ByteProjection)
        self._quantise: Any = kernels.quantise
        none = np.zeros((0, 0), dtype=np.float32)
        by_distance = none if self.by_distance is None else self.by_distance.contiguous().numpy()
        made = {id(layer): ByteLayer(layer, by_distance, bf16) for layer in self.layers}
        self._byte_layers = [made[id(layer)] for layer in self.layers]

    def run(
        self, hidden: "torch.Tensor", segments: "Segments", bits: DropoutBits | None, keep: bool
    ) -> "tuple[torch.Tensor, list[Any], list[torch.Tensor]]":
        assert bits is None, "made for forward only"
        rows = RowPlaces(segments, len(hidden))
        hidden = hidden.clone()  # the kernels overwrite it
        held = Bytes.empty(*hidden.shape)
        self._quantise(hidden.numpy(), *held.arrays)
        for layer in self._byte_layers:
            hidden, held = layer.forward(hidden, held, rows)
        return hidden, [], []


def _sums(projection: Any, held: Bytes) -> "torch.Tensor":
    found: torch.Tensor = projection.product.sums(held.numbers)
    return found


def _bias(projection: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = projection.bias.numpy()
    return found


def _norm_arrays(norm: Norm) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    return norm.weight.numpy(), norm.bias.numpy(), norm.epsilon
