"""One post-norm encoder layer (BERT, Vaswani et al. 2017) on packed tokens, forward and explicit backward.

    a = LN1(x + dropout(out(attention(qkv(x)))))
    y = LN2(a + dropout(down(act(up(a)))))

The backward is written out because autograd would save and compute what frozen weights do not need, and because a
dropout's scale can then ride on an addition that is there anyway (`gain`) instead of costing a pass over the tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newslora.model.packed.dropout import DropoutBits, keep_scale, masked, masked_
from newslora.model.packed.projection import Parts, Projection, Saved
from newslora.model.packed.segments import Segments
from newslora.model.packed.stock import StockLayer

if TYPE_CHECKING:
    import torch

Weights = Sequence["torch.Tensor"]  # the trainable parameters in the compute type


@dataclass(frozen=True, slots=True)
class Activation:
    """A pointwise function and its derivative."""

    name: str  # transformers'
    forward: "Callable[[torch.Tensor], torch.Tensor]"
    backward: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"  # (gradient of the result, input)


class Norm:
    """A frozen layer norm."""

    def __init__(self, module: Any, dtype: "torch.dtype") -> None:
        import torch

        # fp32 weights beside bf16 numbers where torch's layer norm takes them so; its CUDA kernel wants one type, and sums
        # in fp32 all the same
        kept = dtype if module.weight.is_cuda else torch.float32
        self.weight, self.bias = (p.detach().to(kept) for p in (module.weight, module.bias))
        self.epsilon = module.eps

    def forward(self, z: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """(N, H) -> its norm, and mean and inverse deviation (N, 1) of each token."""
        import torch

        return torch.native_layer_norm(z, z.shape[-1:], self.weight, self.bias, self.epsilon)

    def backward(self, dy: "torch.Tensor", saved: "SavedNorm") -> "torch.Tensor":
        import torch

        dz: torch.Tensor = torch.ops.aten.native_layer_norm_backward(
            dy, saved.z, saved.z.shape[-1:], saved.mean, saved.inverse, self.weight, self.bias, [True, False, False]
        )[0]
        return dz


@dataclass(slots=True)
class SavedNorm:
    """Input and statistics of a norm, and what was dropped before it."""

    z: "torch.Tensor"
    mean: "torch.Tensor"
    inverse: "torch.Tensor"
    mask: "torch.Tensor | None"


@dataclass(slots=True)
class SavedLayer:
    """What a layer's backward needs. Inputs are kept only where LoRA makes a weight train."""

    x: "torch.Tensor"
    projected: tuple[Saved, ...]  # of qkv; of query and key-value in a first-token layer
    attention: Any
    context: "torch.Tensor | None"
    out: Saved
    norm1: SavedNorm
    middle: "torch.Tensor | None"
    up: Saved
    raised: "torch.Tensor"
    down: Saved
    norm2: SavedNorm


class Layer:
    """Owns the frozen weights of one layer in the compute type."""

    def __init__(
        self,
        stock: StockLayer,
        places: "dict[int, int]",
        dtype: "torch.dtype",
        trains: bool,
        first_token_only: bool,
        projection: type[Projection] = Projection,
    ) -> None:
        """Take over a stock layer.

        Args:
            stock: its modules.
            places: id of each trainable parameter -> its place in `weights` and `gradients`.
            dtype: to compute in.
            trains: whether `backward` will be called.
            first_token_only: the last layer, of which the head reads each row's first token.
            projection: what multiplies by the frozen weights.
        """
        self.heads, self.first_token_only = stock.heads, first_token_only
        self.attention_rate, self.out_rate, self.down_rate = stock.attention_rate, stock.out_rate, stock.down_rate
        self.activation = activation(stock.activation)
        parts = (
            [[stock.query], [stock.key, stock.value]] if first_token_only else [[stock.query, stock.key, stock.value]]
        )
        self.qkv = tuple(projection(part, places, dtype, trains) for part in parts)
        self.out, self.up, self.down = (
            projection([linear], places, dtype, trains) for linear in (stock.out, stock.up, stock.down)
        )
        self.norm1, self.norm2 = Norm(stock.norm1, dtype), Norm(stock.norm2, dtype)

    def forward(
        self, x: "torch.Tensor", segments: Segments, weights: Weights, bits: DropoutBits | None, keep: bool
    ) -> "tuple[torch.Tensor, SavedLayer | None]":
        """(T, H) -> (T, H), or (R, H) for a first-token layer; with `keep`, also what the backward needs."""
        projected: tuple[Saved, ...]
        if self.first_token_only:
            firsts = x.index_select(0, segments.firsts)
            q, saved_q = self.qkv[0].forward(firsts, weights, bits)
            kv, saved_kv = self.qkv[1].forward(x, weights, bits)
            context, attention = segments.attend_first(q, kv, self.heads, self.attention_rate, bits)
            residual, projected = firsts, (saved_q, saved_kv)
        else:
            qkv, saved_qkv = self.qkv[0].forward(x, weights, bits)
            context, attention = segments.attend(qkv, self.heads, self.attention_rate, bits)
            residual, projected = x, (saved_qkv,)
        attended, saved_out = self.out.forward(context, weights, bits)
        middle, norm1 = _add_and_norm(residual, attended, self.out_rate, self.norm1, bits)
        raised, saved_up = self.up.forward(middle, weights, bits)
        lowered, saved_down = self.down.forward(self.activation.forward(raised), weights, bits)
        y, norm2 = _add_and_norm(middle, lowered, self.down_rate, self.norm2, bits)
        if not keep:
            return y, None
        return y, SavedLayer(
            x, projected, attention, context if self.out.pairs else None, saved_out, norm1,
            middle if self.up.pairs else None, saved_up, raised, saved_down, norm2,
        )  # fmt: skip

    def backward(
        self,
        dy: "torch.Tensor",
        saved: SavedLayer,
        segments: Segments,
        weights: Weights,
        gradients: Parts,
        needs_dx: bool,
    ) -> "torch.Tensor | None":
        """Gradient of the result -> gradient of x (None unless needed); the parts of LoRA's own join `gradients`."""
        import torch

        d_z2 = self.norm2.backward(dy, saved.norm2)
        gain = _scale(saved.norm2, self.down_rate)
        lifted = self.activation.forward(saved.raised) if self.down.pairs else None
        d_lifted = self.down.backward(masked(d_z2, saved.norm2.mask), lifted, saved.down, weights, gradients, gain)
        d_raised = self.activation.backward(d_lifted, saved.raised)
        d_up = self.up.backward(d_raised, saved.middle, saved.up, weights, gradients, gain)
        d_z1 = self.norm1.backward(torch.add(d_z2, d_up, alpha=gain), saved.norm1)

        gain = _scale(saved.norm1, self.out_rate)
        d_context = self.out.backward(
            masked(d_z1, saved.norm1.mask), saved.context, saved.out, weights, gradients, gain
        )
        if not self.first_token_only:
            d_qkv = segments.attend_backward(d_context, saved.attention, self.heads)
            if not needs_dx:
                self.qkv[0].pairs_backward(d_qkv, saved.x, saved.projected[0], weights, gradients, gain)
                return None
            dx = self.qkv[0].backward(d_qkv, saved.x, saved.projected[0], weights, gradients, gain)
            return torch.add(d_z1, dx, alpha=gain)
        d_q, d_kv = segments.attend_first_backward(d_context, saved.attention, self.heads)
        firsts = saved.x.index_select(0, segments.firsts)
        # a one-layer encoder pays two small products it does not need
        d_first = self.qkv[0].backward(d_q, firsts, saved.projected[0], weights, gradients, gain)
        dx = self.qkv[1].backward(d_kv, saved.x, saved.projected[1], weights, gradients, gain)
        return dx.mul_(gain).index_add_(0, segments.firsts, torch.add(d_z1, d_first, alpha=gain))


def activation(name: str) -> Activation:
    """An activation by transformers' name.

    Raises:
        KeyError: one without a written-out derivative here; the encoder then takes the padded path.
    """
    import torch
    from torch.nn.functional import gelu

    def gelu_of(approximate: str) -> Activation:
        return Activation(
            name,
            lambda x: gelu(x, approximate=approximate),
            lambda dy, x: torch.ops.aten.gelu_backward(dy, x, approximate=approximate),
        )

    known = {
        "gelu": lambda: gelu_of("none"),
        "gelu_new": lambda: gelu_of("tanh"),
        "gelu_pytorch_tanh": lambda: gelu_of("tanh"),
        "relu": lambda: Activation(name, torch.relu, lambda dy, x: torch.ops.aten.threshold_backward(dy, x, 0)),
    }
    return known[name]()


def _add_and_norm(
    residual: "torch.Tensor", update: "torch.Tensor", rate: float, norm: Norm, bits: DropoutBits | None
) -> "tuple[torch.Tensor, SavedNorm]":
    """norm(residual + dropout(update)); overwrites `update`."""
    import torch

    mask = bits.keep_mask(update.shape, rate, update) if bits else None
    scale = 1.0 if mask is None else keep_scale(rate)
    z = torch.add(residual, masked_(update, mask), alpha=scale, out=update)
    y, mean, inverse = norm.forward(z)
    return y, SavedNorm(z, mean, inverse, mask)


def _scale(saved: SavedNorm, rate: float) -> float:
    return 1.0 if saved.mask is None else keep_scale(rate)
