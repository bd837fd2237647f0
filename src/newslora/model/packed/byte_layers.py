"""Layers in eight bits, forward only: oneDNN multiplies bytes, and compiled kernels do all that stands between two products.

Where torch's C interface can be called (torch_calls.py), all layers but one of first tokens are one compiled call, and threads
that compute beside each other need not wait for Python's lock; elsewhere the same kernels are called one by one.

The plain form of the same is PackedEncoder with ByteProjection; it works without Numba and on any device, with roundings of its
own between the products. Here everything between them is fp32.
"""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from newslora.data.batches import Chosen, Rows
from newslora.data.packing import next_fine_step, pack
from newslora.model.packed.dropout import DropoutBits
from newslora.model.packed.eight_bits import ByteProjection
from newslora.model.packed.encoder import PackedEncoder
from newslora.model.packed.grouped import of_each_pair
from newslora.model.packed.layer import Layer, Norm
from newslora.model.packed.projection import Projection
from newslora.model.packed.segments import SegmentedBatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from newslora.model.packed.segments import Segments

LONG = 192  # tokens of a row whose attention is torch's to compute: the kernels' own is slower from there on
SCORES = 2**18  # of such a row at a time, in whole heads; they are to stay in a core's own cache as well
TOGETHER = 256  # tokens of a feed-forward part at a time: what lies between its products stays in a core's own cache


def can_fuse() -> bool:
    """Whether the kernels can be compiled here."""
    return importlib.util.find_spec("numba") is not None


class Bytes:
    """N tokens in bytes, with their scales.

    Memory is numpy's, and torch sees it where it multiplies: each call into torch lets go of Python's lock, and waits for it
    again behind whoever took it. Beside other passes and a server's requests that costs more than the call.
    """

    def __init__(self, numbers: NDArray[np.uint8], greatest: NDArray[np.float32]) -> None:
        self.numbers, self.greatest = numbers, greatest

    @classmethod
    def empty(cls, tokens: int, width: int) -> "Bytes":
        """For a kernel to write."""
        return cls(np.empty((tokens, width), dtype=np.uint8), np.empty(tokens, dtype=np.float32))

    def part(self, some: slice) -> "Bytes":
        """Some tokens, in the same memory."""
        return Bytes(self.numbers[some], self.greatest[some])

    def take(self, places: NDArray[np.int64]) -> "Bytes":
        """Copies of the tokens at these places."""
        return Bytes(self.numbers[places], self.greatest[places])


@dataclass(frozen=True, slots=True)
class RowPlaces:
    """Where the rows of a packed batch are: of `Segments` what these layers ask for, for they go by rows, not by groups."""

    starts: NDArray[np.int64]  # (R,) packed place of each row's first token
    lengths: NDArray[np.int64]  # (R,) longest first
    end: int  # where the rows end and filler begins

    def to(self, device: "torch.device") -> "RowPlaces":
        return self

    def pin_memory(self) -> "RowPlaces":
        return self

    def ready(self, *_: Any) -> "RowPlaces":
        return self

    def of_at_least(self, tokens: int) -> int:
        """How many rows are that long; they come first."""
        return int((self.lengths >= tokens).sum())


def collate_rows(rows: Rows, chosen: Chosen) -> SegmentedBatch:
    """Row numbers -> a packed batch with the places of its rows."""
    packed = pack(rows, chosen, next_fine_step)
    lengths = np.array(packed.lengths, dtype=np.int64)
    ends = np.cumsum(lengths)
    places: Any = RowPlaces(ends - lengths, lengths, int(ends[-1]))
    return SegmentedBatch(packed, places)


class Product:
    """A ByteProjection's parts, for arrays."""

    def __init__(self, projection: Projection) -> None:
        assert isinstance(projection, ByteProjection)
        self._sums, self.parts = projection.product.sums, projection.product.parts
        self.bias: NDArray[np.float32] = projection.bias.numpy()

    def sums(self, held: Bytes) -> NDArray[np.float32]:
        """(N, in) -> (N, out), to be multiplied by the tokens' scales."""
        import torch

        return _array(self._sums(torch.from_numpy(held.numbers)))


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
        self._qkv = tuple(Product(one) for one in layer.qkv)
        self._out, self._up, self._down = Product(layer.out), Product(layer.up), Product(layer.down)
        self._norm1, self._norm2 = _norm_arrays(layer.norm1), _norm_arrays(layer.norm2)
        self.arrays = self._for_one_call()

    def forward(self, hidden: NDArray[np.float32], held: Bytes, rows: RowPlaces) -> tuple[NDArray[np.float32], Bytes]:
        """(T, H), which is overwritten, and the same in bytes -> the layer's; of a first-token layer (R, H)."""
        if self.first_token_only:
            context = self._attend_first(held, rows)
            hidden = hidden[rows.starts]
        else:
            context = self._attend(held, rows)
        middle, after = Bytes.empty(*hidden.shape), Bytes.empty(*hidden.shape)
        self._add_and_norm(self._out, context, hidden, self._norm1, middle)
        for start in range(0, len(hidden), TOGETHER):
            some = slice(start, start + TOGETHER)
            raised = self._raised(middle.part(some))
            self._add_and_norm(self._down, raised, hidden[some], self._norm2, after.part(some))
        return hidden, after

    def _for_one_call(self) -> Any:
        """The layer's arrays, where all of it can run without Python's lock; None elsewhere."""
        from newslora.model.packed import torch_calls

        products = (self._qkv[0], self._qkv[-1], self._out, self._up, self._down)
        parts = [product.parts for product in products]
        if self.activation.name != "gelu" or None in parts or not torch_calls.linked():
            return None
        self._handles = [torch_calls.Handles(*one) for one in parts if one is not None]
        each = [part for made, of in zip(self._handles, products, strict=True) for part in (made.array, of.bias)]
        return self._kernels.LayerArrays(*each, self._norm1, self._norm2)

    def _attend(self, held: Bytes, rows: RowPlaces) -> Bytes:
        """Each row by itself, so that no neighbour changes a bit of it."""
        y = self._qkv[0].sums(held)
        context = Bytes.empty(len(y), y.shape[1] // 3)
        context.numbers[rows.end :], context.greatest[rows.end :] = 128, 1.0  # filler: zeros, which nothing reads
        long = rows.of_at_least(LONG)  # whose attention is torch's
        for start, length in zip(rows.starts[:long].tolist(), rows.lengths[:long].tolist(), strict=True):
            row = slice(start, start + length)
            self._attend_alone(y[row], held.greatest[row], context.part(row))
        self._kernels.attend_and_quantise(
            y, held.greatest, self._qkv[0].bias, rows.starts[long:], rows.lengths[long:], self.heads, self._by_distance,
            context.numbers, context.greatest,
        )  # fmt: skip
        return context

    def _attend_alone(self, y: NDArray[np.float32], scale: NDArray[np.float32], context: Bytes) -> None:
        """A long row."""
        import torch

        length = len(y)
        q, k, v = np.empty((3, self.heads, length, y.shape[1] // 3 // self.heads), dtype=np.float32)
        self._kernels.split_heads(y, scale, self._qkv[0].bias, q, k, v)
        queries, keys, values = (torch.from_numpy(part) for part in (q, k, v))
        found = (self._in_bf16 if self._bf16 else self._in_fp32)(queries, keys, values)
        self._kernels.join_heads_and_quantise(_array(found), context.numbers, context.greatest)

    def _in_fp32(self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor") -> "torch.Tensor":
        """(h, L, d) each -> (h, L, d)."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        bias = None
        if self._by_distance.size:
            bias = of_each_pair(torch.from_numpy(self._by_distance), q.shape[1])[None]
        return scaled_dot_product_attention(q[None], k[None], v[None], bias, scale=1.0)[0].contiguous()

    def _in_bf16(self, q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor") -> "torch.Tensor":
        """The same, products in bf16."""
        import torch

        together = max(1, SCORES // q.shape[1] ** 2)
        for first in range(0, self.heads, together):
            some = slice(first, first + together)
            scores = torch.bmm(q[some].bfloat16(), k[some].transpose(1, 2).bfloat16()).float()
            self._kernels.softmax(scores.numpy(), self._by_distance[some])
            q[some] = torch.bmm(scores.bfloat16(), v[some].bfloat16())  # over the queries, which are done with
        return q

    def _attend_first(self, held: Bytes, rows: RowPlaces) -> Bytes:
        q = self._projected(self._qkv[0], held.take(rows.starts))
        kv = self._projected(self._qkv[1], held)
        context = Bytes.empty(*q.shape)
        self._kernels.attend_first_and_quantise(
            q, kv, rows.starts, rows.lengths, self.heads, self._by_distance, context.numbers, context.greatest
        )
        return context

    def _projected(self, product: "Product", held: Bytes) -> NDArray[np.float32]:
        """(N, H) bytes -> (N, out)."""
        y = product.sums(held)
        self._kernels.scale_and_shift(y, held.greatest, product.bias)
        return y

    def _raised(self, held: Bytes) -> Bytes:
        """The up-projection's result after the activation."""
        import torch

        if self.activation.name == "gelu":
            y = self._up.sums(held)
            raised = Bytes.empty(*y.shape)
            self._kernels.gelu_and_quantise(y, held.greatest, self._up.bias, raised.numbers, raised.greatest)
        else:
            y = _array(self.activation.forward(torch.from_numpy(self._projected(self._up, held))))
            raised = Bytes.empty(*y.shape)
            self._kernels.quantise(y, raised.numbers, raised.greatest)
        return raised

    def _add_and_norm(
        self, product: "Product", held: Bytes, hidden: NDArray[np.float32], norm: tuple[Any, ...], into: Bytes
    ) -> None:
        y = product.sums(held)
        self._kernels.add_norm_and_quantise(y, held.greatest, product.bias, hidden, *norm, into.numbers, into.greatest)


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
        self.collate = collate_rows
        self._kernels: Any = kernels
        none = np.zeros((0, 0), dtype=np.float32)
        self._by_distance = none if self.by_distance is None else self.by_distance.contiguous().numpy()
        made = {id(layer): ByteLayer(layer, self._by_distance, bf16) for layer in self.layers}
        self._byte_layers = [made[id(layer)] for layer in self.layers]
        self._one_call = all(layer.arrays is not None for layer in self._byte_layers)
        whole = [layer.arrays for layer in self._byte_layers if not layer.first_token_only]
        self._whole = _stacked(whole) if self._one_call and whole else None

    def run(
        self, hidden: "torch.Tensor", segments: "Segments", bits: DropoutBits | None, keep: bool
    ) -> "tuple[torch.Tensor, list[Any], list[torch.Tensor]]":
        import torch

        assert bits is None, "made for forward only"
        assert isinstance(segments, RowPlaces), "from another collate"
        rows: RowPlaces = segments
        numbers = hidden.numpy().copy()  # the kernels overwrite it
        held = Bytes.empty(*numbers.shape)
        self._kernels.quantise(numbers, held.numbers, held.greatest)
        if self._one_call and not rows.of_at_least(LONG):
            return torch.from_numpy(self._in_one_call(numbers, held, rows)), [], []
        for layer in self._byte_layers:
            numbers, held = layer.forward(numbers, held, rows)
        return torch.from_numpy(numbers), [], []

    def _in_one_call(self, hidden: NDArray[np.float32], held: Bytes, rows: RowPlaces) -> NDArray[np.float32]:
        """As `ByteLayer.forward` of all layers, in one call and one more for a last layer of first tokens."""
        last = self._byte_layers[-1]
        each = (rows.starts, rows.lengths)
        more = (last.heads, self._by_distance, TOGETHER)
        if self._whole is not None:
            self._kernels.whole_layers(self._whole, hidden, held.numbers, held.greatest, *each, rows.end, *more)
        if not last.first_token_only:
            return hidden
        firsts = hidden[rows.starts]
        unread = Bytes.empty(*firsts.shape)
        given = (firsts, held.numbers, held.greatest, *each, *more)
        self._kernels.whole_first_layer(last.arrays, *given, unread.numbers, unread.greatest)
        return firsts


def _stacked(layers: list[Any]) -> Any:
    """`LayerArrays` of layers -> the same of all of them, each array with a first dimension more."""
    return type(layers[0])(
        *(
            tuple(map(np.stack, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else np.stack(parts)
            for parts in zip(*layers, strict=True)
        )
    )


def _array(tensor: "torch.Tensor") -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.numpy()
    return found


def _norm_arrays(norm: Norm) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    return norm.weight.numpy(), norm.bias.numpy(), norm.epsilon
