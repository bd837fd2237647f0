"""Where a packed training step's time goes, and what the alternatives to its parts cost, on this machine.

    python benchmarks/where_time_goes.py roberta-base -o benchmarks/results/DATE-parts-roberta-base.json

Rows have AG News' lengths (a gamma distribution fitted to them: mean 53, 99th percentile 122), fixed by a seed. Run it on
an idle machine. docs/performance.md reads its results.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import dropout, gelu, linear, scaled_dot_product_attention

from newslora import files
from newslora.config import load_recipe
from newslora.data.batches import Rows, epoch_batches
from newslora.data.packing import pack
from newslora.data.tokens import TokenTable
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import random_classifier
from newslora.model.engine import make_engine
from newslora.model.packed.dropout import DropoutBits, masked
from newslora.model.packed.grouped import Groups
from newslora.model.packed.projection import multiplier
from newslora.runtime import environment_record, keep_freed_memory, pick_device, resolve_precision
from newslora.training.step import Stepper

# what the profiler calls an operator -> what a reader calls it
KINDS = {
    "mkldnn::_linear_pointwise": "products with frozen weights",
    "aten::bmm": "attention products", "aten::baddbmm": "attention products",
    "aten::_softmax": "softmax", "aten::_softmax_backward_data": "softmax",
    "aten::mm": "LoRA products", "aten::addmm_": "LoRA products",
    "aten::gelu": "GELU", "aten::gelu_backward": "GELU",
    "aten::native_layer_norm": "layer norm", "aten::native_layer_norm_backward": "layer norm",
    "aten::bitwise_right_shift_": "dropout", "aten::bitwise_right_shift": "dropout", "aten::bitwise_and": "dropout",
    "aten::bitwise_and_": "dropout", "aten::sub_": "dropout", "aten::bitwise_not_": "dropout",
    "aten::copy_": "copies and gathers", "aten::index_select": "copies and gathers",
    "aten::add": "additions and scales", "aten::add_": "additions and scales", "aten::mul_": "additions and scales",
    "Packed": "Python and random numbers", "PackedBackward": "Python and random numbers",
}  # fmt: skip


def news_rows(count: int, vocabulary: int) -> Rows:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.gamma(5.5, 53 / 5.5, count), 12, 300).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, vocabulary, int(offsets[-1])).astype(np.int32)
    return Rows(TokenTable(ids, offsets), generator.integers(0, 4, count), pad_id=1)


def milliseconds(function: Callable[[], Any], rounds: int = 30) -> dict[str, float]:
    for _ in range(3):
        function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append((time.perf_counter() - began) * 1e3)
    return {"median": statistics.median(times), "lowest": min(times), "highest": max(times)}


def profile_steps(backbone: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Shares of a packed step by kind of work, after every shape has been seen once."""
    recipe = load_recipe("seed", {"train.batch_size": batch_size})
    device = pick_device("cpu")
    precision = resolve_precision("auto", device)
    config = resolve_backbone(backbone).architecture()
    assert config is not None
    torch.manual_seed(0)
    model = random_classifier(config, list("abcd"), recipe.lora)
    rows = news_rows(batch_size * steps, config.vocab_size)
    engine = make_engine(model, "auto", precision, trains=True, release=True)
    stepper = Stepper(engine, recipe.train, precision, total_steps=10 * steps)
    batches = [engine.collate(rows, chosen) for chosen in epoch_batches(rows.tokens.lengths, batch_size, 1, 0)]
    for _ in range(2):
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            stepper([batch], number)
        seconds = (time.perf_counter() - began) / steps
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for number, batch in enumerate(batches):
            stepper([batch], number)
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        spent[KINDS.get(event.key, "the rest")] += event.self_cpu_time_total
    total = sum(spent.values())
    shares = {kind: time / total for kind, time in sorted(spent.items(), key=lambda item: -item[1])}
    return {"milliseconds_a_step": seconds * 1e3, "rows_per_second": batch_size / seconds, "shares": shares}


def parts(config: Any, batch_size: int) -> dict[str, dict[str, dict[str, float]]]:
    """Alternatives to each part, in milliseconds, on one batch."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    batch = pack(news_rows(batch_size, config.vocab_size), range(batch_size))
    tokens, kind = len(batch.input_ids), torch.bfloat16
    x, weight = torch.randn(tokens, hidden).to(kind), torch.randn(inner, hidden).to(kind)
    ordered = multiplier(weight)
    x32, weight32, raised = x.float(), weight.float(), torch.randn(tokens, inner).to(kind)
    bits = DropoutBits((1,))
    mask = bits.keep_mask(x.shape, 0.1, x)
    boolean = torch.rand(x.shape) > 0.1
    qkv = torch.randn(tokens, 3 * hidden).to(kind)
    segments = Groups.of(batch.lengths, tokens).ready(heads, kind)
    starts = np.cumsum(batch.lengths) - batch.lengths

    def row_by_row() -> None:
        for start, length in zip(starts, batch.lengths, strict=True):
            row = qkv[start : start + length].view(1, length, 3, heads, -1)
            scaled_dot_product_attention(*(row[:, :, part].transpose(1, 2) for part in range(3)))

    longest = max(batch.lengths)
    square = torch.randn(3, batch_size, heads, longest, hidden // heads).to(kind)
    allowed = torch.arange(longest)[None, None, None] < torch.tensor(batch.lengths)[:, None, None, None]
    with torch.inference_mode():
        return {
            "product with a frozen weight": {
                "ordered once (used)": milliseconds(lambda: ordered(x, None)),
                "plain linear": milliseconds(lambda: linear(x, weight)),
                "fp32 linear": milliseconds(lambda: linear(x32, weight32)),
            },
            "attention forward": {
                "groups of like length, batched (used)": milliseconds(lambda: segments.attend(qkv, heads, 0.0, None)),
                "the same with dropout (used)": milliseconds(lambda: segments.attend(qkv, heads, 0.1, bits)),
                "fused kernel, a row at a time": milliseconds(row_by_row),
                "fused kernel, padded": milliseconds(
                    lambda: scaled_dot_product_attention(*square, attn_mask=allowed)
                ),
                "padded with dropout (stock)": milliseconds(
                    lambda: scaled_dot_product_attention(*square, attn_mask=allowed, dropout_p=0.1)
                ),
            },
            "dropout of one hidden state": {
                "random mask (used)": milliseconds(lambda: bits.keep_mask(x.shape, 0.1, x)),
                "applying it (used)": milliseconds(lambda: masked(x, mask)),
                "applying a boolean mask": milliseconds(lambda: x * boolean),
                "torch dropout": milliseconds(lambda: dropout(x, 0.1)),
                "bernoulli_ alone": milliseconds(lambda: torch.empty(x.shape).bernoulli_(0.1)),
            },
            "GELU": {
                "forward": milliseconds(lambda: gelu(raised)),
                "backward": milliseconds(lambda: torch.ops.aten.gelu_backward(raised, raised)),
            },
        }  # fmt: skip


def main() -> None:
    keep_freed_memory()  # as newslora's commands do
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="?", default="minilm")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    chosen = parser.parse_args()
    device = pick_device("cpu")
    result = {
        "what": f"a packed training step of {chosen.backbone}, seed recipe, random weights",
        "environment": environment_record(device, resolve_precision("auto", device)),
        "batch_size": chosen.batch_size,
        "step": profile_steps(chosen.backbone, chosen.batch_size, chosen.steps),
        "parts": parts(resolve_backbone(chosen.backbone).architecture(), chosen.batch_size),
    }
    if chosen.output:
        files.write_json(chosen.output, result)
    for kind, share in result["step"]["shares"].items():  # type: ignore[index]
        print(f"{share:6.1%}  {kind}")
    for part, ways in result["parts"].items():  # type: ignore[attr-defined]
        print(part)
        for way, spent in ways.items():
            print(f"  {spent['median']:8.3f} ms  {way}")


if __name__ == "__main__":
    main()
