"""Frozen products in eight bits: what an `int8` export multiplies with.

y = x W^T + b, where W has one scale for each output and x one for each token, found as it comes:

    y[n, o] = s_x[n] * s_w[o] * sum_i q_x[n, i] * q_w[o, i] + b[o],   q = round(value / s)
    s_x[n] = greatest |x[n, i]| / 127,   s_w[o] = greatest (|w[o, i]| + |w[o, i + 1]|) / 127 of all even i

(symmetric quantisation by row and column, as in LLM.int8(), Dettmers et al. 2022, arXiv:2208.07339, section 2.1.) A token's
numbers depend on no other token, so rows can share a batch. The sums are of whole numbers and the same on every chip. Those
without VNNI add the products of two neighbours in 16 bits: enough for a token's bytes (at most 255, as oneDNN has them without
a sign) times two weights' bytes that come to 128 together.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from newslora.model.packed.projection import Projection

if TYPE_CHECKING:
    import torch

MOST = 127  # the greatest byte; -128 is left out, so that both signs reach as far
SMALLEST = 1e-12  # of a scale's greatest value: a row of zeros stays one


class ByteProjection(Projection):
    """A product with weights in bytes. It has no LoRA beside it: merge it first."""

    product: "ByteProduct"

    def multiplier(self, weight: "torch.Tensor", dtype: "torch.dtype", trains: bool) -> Any:
        self.product = ByteProduct(weight, dtype)
        return self.product


class ByteProduct:
    """(N, in) and bias (out,), both of `dtype` -> (N, out), for a fixed weight.

    Args:
        weight: (out, in), fp32.
        dtype: of what is multiplied and of the result.
        plain: True multiplies the same whole numbers in fp32, on any device; False asks oneDNN; None: oneDNN where it is fast.
    """

    def __init__(self, weight: "torch.Tensor", dtype: "torch.dtype", plain: bool | None = None) -> None:
        import torch

        scale = _neighbours(weight).amax(dim=1).float().clamp_min_(SMALLEST).div_(MOST)
        whole = (weight / scale[:, None]).round_()
        scale /= MOST  # so that a token's factor is its greatest value, which rounds nowhere
        self.parts = None
        if plain if plain is not None else not multiplies_bytes(weight.device):
            self.sums = lambda numbers: ((numbers.float() - 128) @ whole.t() * scale).to(dtype)
            return
        ordered = torch.ops.onednn.qlinear_prepack(whole.to(torch.int8), None)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.parts = ordered, scale, zeros
        multiply = torch.ops.onednn.qlinear_pointwise  # torch.compile's own way to multiply bytes on a CPU
        # where a chip has no bf16, oneDNN writes it by a plain loop, number by number
        slow = dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        kind = torch.float32 if slow else dtype
        self.sums = lambda numbers: multiply(
            numbers, 1.0, 128, ordered, scale, zeros, None, 1.0, 0, kind, "none", [], ""
        ).to(dtype)

    parts: "tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None"
    """oneDNN's weight, its scales and zeros; None where it does not multiply."""

    sums: "Callable[[torch.Tensor], torch.Tensor]"
    """(N, in) bytes of tokens -> (N, out): the result over the tokens' greatest values, without bias."""

    def __call__(self, x: "torch.Tensor", bias: "torch.Tensor") -> "torch.Tensor":
        import torch

        numbers, greatest = token_bytes(x)
        return torch.addcmul(bias, self.sums(numbers), greatest)


def _neighbours(weight: "torch.Tensor") -> "torch.Tensor":
    """(out, in) -> (out, ceil(in / 2)) absolute values of two neighbours together."""
    import torch

    return torch.nn.functional.pad(weight.abs(), (0, weight.shape[1] % 2)).view(len(weight), -1, 2).sum(dim=2)


def token_bytes(x: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """(N, in) -> (N, in) uint8, 128 standing for zero, and (N, 1) greatest absolute value of a token, its scale times 127."""
    import torch

    greatest = _greatest(x).clamp_min_(SMALLEST)
    steps = greatest.to(torch.float32, copy=True).reciprocal_().mul_(MOST)  # steps in a number of 1
    # all are positive, so that dropping what follows the point rounds to the nearest; torch makes bytes of floating-point
    # numbers one by one, but those of 16 bits many at a time
    return x.to(torch.float32, copy=True).mul_(steps).add_(128.5).to(torch.int16).to(torch.uint8), greatest


def _greatest(x: "torch.Tensor") -> "torch.Tensor":
    """(N, in) -> (N, 1) greatest absolute value of each token."""
    import torch

    if x.dtype != torch.bfloat16:
        return x.abs().amax(dim=1, keepdim=True)
    # without their sign, floating-point numbers are ordered as their bits are, and whole numbers compare faster
    return x.view(torch.int16).bitwise_and(0x7FFF).amax(dim=1, keepdim=True).view(torch.bfloat16)


def multiplies_bytes(device: "torch.device") -> bool:
    """Whether oneDNN multiplies bytes fast on this device: on x86 with AVX2 or more."""
    import torch

    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX")
