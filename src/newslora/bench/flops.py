"""Floating-point operations of an encoder, and what the machine's matrix products reach."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PEAK_SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns of the timed product
PEAK_ROUNDS = 12


def flops_per_token(config: Any, length: float, training: bool) -> float:
    """Operations a token costs: 2 a multiplied weight forward, and as many again for LoRA's backward.

    Counts the projections, the feed-forward and attention's two products at rows of `length` tokens; embeddings, norms,
    the head and LoRA itself are below 2 %. A backward that trains no frozen weight needs only the products with their
    transposes (dx = dy W), so training costs twice the forward, not three times.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    forward: float = 2.0 * config.num_hidden_layers * (4 * hidden**2 + 2 * hidden * inner + 2 * length * hidden)
    return 2 * forward if training else forward


def matmul_peak(precision: str, device: "torch.device | None" = None, size: int | None = None) -> float:
    """Best rate of a large product with a fixed weight here, in operations a second.

    Args:
        precision: "fp32" or "bf16".
        device: None: the CPU.
        size: rows and columns; None: enough to fill the device.
    """
    import torch

    from newslora.model.packed.projection import multiplier

    where = device or torch.device("cpu")
    side = size or PEAK_SIZE[where.type]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(side, side, generator=generator).to(where, dtype) for _ in range(2))
    multiply = multiplier(weight)
    times = []
    with torch.inference_mode():
        for _ in range(PEAK_ROUNDS):
            began = time.perf_counter()
            multiply(x, None)
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            times.append(time.perf_counter() - began)
    return float(2 * side**3 / min(times))
