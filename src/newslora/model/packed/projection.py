"""Frozen weights with LoRA beside them, forward and backward.

Nothing frozen has a gradient: the backward of y = x W^T + b is dx = dy W alone. The weight is kept once a direction in
the compute type, in the order oneDNN multiplies in where it is asked (CPU), so no step casts or reorders it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newslora.model.packed.dropout import DropoutBits, keep_scale, masked, masked_

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class LowRank:
    """A LoRA pair as PEFT holds it: the update of y is scale * B A dropout(x)."""

    columns: slice  # of y
    a: int  # place of A (r, in) among the trainable parameters handed to forward and backward
    b: int  # place of B (out, r)
    scale: float
    rate: float  # of dropout


# of each trainable parameter, the parts of its gradient in the compute type, each with its factor
Parts = list[list[tuple["torch.Tensor", float]]]


@dataclass(slots=True)
class Saved:
    """What a projection's backward needs besides its input."""

    low: "list[torch.Tensor]"  # (N, r) A dropout(x) of each pair, not scaled by the kept share
    masks: "list[torch.Tensor | None]"


class Projection:
    """y = x W^T + b + LoRA, for one weight or several over the same input (query, key and value in one product)."""

    def __init__(self, linears: Sequence[Any], places: "dict[int, int]", dtype: "torch.dtype", trains: bool) -> None:
        """Take over stock linear layers.

        Args:
            linears: `torch.nn.Linear` or PEFT's LoRA layer around one; their outputs lie side by side in y.
            places: id of each trainable parameter -> its place.
            dtype: to compute in.
            trains: whether `backward` will be called.
        """
        import torch

        bases = [getattr(linear, "base_layer", linear) for linear in linears]
        weight = torch.cat([base.weight.detach() for base in bases])
        biases = [base.bias if base.bias is not None else weight.new_zeros(len(base.weight)) for base in bases]
        self.bias = torch.cat([bias.detach().to(dtype) for bias in biases])
        self._multiply = self.multiplier(weight, dtype, trains)
        self._multiply_back = self.multiplier(weight.t(), dtype, trains) if trains else None
        self.pairs: list[LowRank] = []
        start = 0
        for linear, base in zip(linears, bases, strict=True):
            columns = slice(start, start + len(base.weight))
            start = columns.stop
            if base is not linear:
                (name,) = linear.active_adapters
                a, b = places[id(linear.lora_A[name].weight)], places[id(linear.lora_B[name].weight)]
                rate = float(getattr(linear.lora_dropout[name], "p", 0.0))
                self.pairs.append(LowRank(columns, a, b, float(linear.scaling[name]), rate))

    def multiplier(self, weight: "torch.Tensor", dtype: "torch.dtype", trains: bool) -> Any:
        """As the function of that name, of a weight in fp32."""
        return multiplier(weight.to(dtype), trains)

    def forward(
        self, x: "torch.Tensor", weights: "Sequence[torch.Tensor]", bits: DropoutBits | None
    ) -> "tuple[torch.Tensor, Saved]":
        """(N, in) -> (N, out). `weights`: the trainable parameters in the compute type; `bits`: None drops nothing."""
        y = self._multiply(x, self.bias)
        saved = Saved([], [])
        for pair in self.pairs:
            mask = bits.keep_mask(x.shape, pair.rate, x) if bits else None
            low = masked(x, mask) @ weights[pair.a].t()
            y[:, pair.columns].addmm_(low, weights[pair.b].t(), alpha=_gain(pair, mask))
            saved.low.append(low)
            saved.masks.append(mask)
        return y, saved

    def backward(
        self,
        dy: "torch.Tensor",
        x: "torch.Tensor | None",
        saved: Saved,
        weights: "Sequence[torch.Tensor]",
        gradients: Parts,
        gain: float,
    ) -> "torch.Tensor":
        """dL/dx, up to the factor `gain`; dL/dA and dL/dB join `gradients`, with it as part of their factors.

        Args:
            dy: (N, out) gradient of y, up to the factor `gain`: the scale of a dropout above, which its caller applies
                once, where an addition carries it for nothing.
            x: (N, in) the forward's input; may be None where there is no LoRA.
            saved: from forward.
            weights: as in forward.
            gradients: one place a trainable parameter.
            gain: see dy.
        """
        assert self._multiply_back is not None, "made for forward only"
        dx: torch.Tensor = self._multiply_back(dy, None)
        self.pairs_backward(dy, x, saved, weights, gradients, gain, dx)
        return dx

    def pairs_backward(
        self,
        dy: "torch.Tensor",
        x: "torch.Tensor | None",
        saved: Saved,
        weights: "Sequence[torch.Tensor]",
        gradients: Parts,
        gain: float,
        dx: "torch.Tensor | None" = None,
    ) -> None:
        """LoRA's part of `backward`, added to dx where one is given; the first layer, below which nothing trains, has none."""
        for pair, low, mask in zip(self.pairs, saved.low, saved.masks, strict=True):
            assert x is not None
            part, factor = dy[:, pair.columns], _gain(pair, mask)
            d_low = part @ weights[pair.b]
            gradients[pair.b].append((part.t() @ low, factor * gain))
            gradients[pair.a].append((d_low.t() @ masked(x, mask), factor * gain))
            if dx is None:
                continue
            if mask is None:
                dx.addmm_(d_low, weights[pair.a], alpha=factor)
            else:
                dx.add_(masked_(d_low @ weights[pair.a], mask), alpha=factor)


def _gain(pair: LowRank, mask: "torch.Tensor | None") -> float:
    return pair.scale if mask is None else pair.scale * keep_scale(pair.rate)


def summed(gradients: Parts) -> "list[torch.Tensor | None]":
    """Each parameter's gradient in fp32; None where it has none. One layer's weights may be used at several depths (ALBERT).

    A GPU casts the parts of all parameters in one kernel and multiplies them in another; one by one each would take two.
    """
    import torch

    found: list[torch.Tensor | None] = [None] * len(gradients)
    for depth in range(max(map(len, gradients), default=0)):
        places = [place for place, parts in enumerate(gradients) if len(parts) > depth]
        values = cast_together([gradients[place][depth][0] for place in places], torch.float32)
        torch._foreach_mul_(values, [gradients[place][depth][1] for place in places])
        for place, value in zip(places, values, strict=True):
            held = found[place]
            found[place] = value if held is None else held.add_(value)
    return found


def cast_together(tensors: "list[torch.Tensor]", dtype: "torch.dtype") -> "list[torch.Tensor]":
    """Copies in another type, which a GPU makes in one kernel; the tensors themselves where they all have it."""
    import torch

    if all(tensor.dtype == dtype for tensor in tensors):
        return tensors
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(copies, tensors)
    return copies


def multiplier(weight: "torch.Tensor", trains: bool = False) -> Any:
    """(N, in), bias or None -> (N, out) for a fixed weight (out, in); `trains`: whether it is multiplied in training."""
    import torch
    from torch.nn.functional import linear

    if weight.device.type == "cpu" and _orders(weight.dtype, trains):
        # torch.compile's own way to multiply by a constant: the weight is put into oneDNN's order once, not at every call
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        multiply = torch.ops.mkldnn._linear_pointwise
        return lambda x, bias: multiply(x, ordered, bias, "none", [], "")
    return lambda x, bias: linear(x, weight, bias)


def _orders(dtype: "torch.dtype", trains: bool) -> bool:
    """Whether oneDNN multiplies by a weight in its own order: wherever it takes bf16, in fp32 where that was seen to be faster.

    It refuses bf16 on chips that have neither AVX-512 nor AVX-NE-CONVERT. In fp32 torch asks MKL otherwise, which packs a
    weight at every call; a training step, with more rows a product, gains nothing and would hold every weight once more.
    """
    import torch

    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or dtype not in (torch.bfloat16, torch.float32):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return not trains and torch.backends.cpu.get_cpu_capability() == "AVX2"
