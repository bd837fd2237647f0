"""Where a packed training step's time goes, and what the alternatives to its parts cost, on this machine.

    python benchmarks/where_time_goes.py roberta-base -o benchmarks/results/DATE-parts-roberta-base.json

Or that of packed prediction:

    python benchmarks/where_time_goes.py roberta-base --task prediction [--precision int8] -o ...

An encoder in eight bits is one compiled call, which no profiler looks into. Of it the products' share is told: the same
products, called by themselves, over the whole passes.

Rows have AG News' lengths (a gamma distribution fitted to them: mean 53, 99th percentile 122), fixed by a seed. Run it on
an idle machine. docs/performance.md reads its results.
"""

import argparse
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import dropout, gelu, linear, scaled_dot_product_attention

from newslora import files
from newslora.config import load_recipe
from newslora.data.batches import Rows, epoch_batches, sorted_batches
from newslora.data.packing import pack
from newslora.data.tokens import TokenTable
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import random_classifier
from newslora.model.engine import Engine, make_byte_engine, make_engine
from newslora.model.packed.byte_layers import TOGETHER
from newslora.model.packed.dropout import DropoutBits, masked
from newslora.model.packed.grouped import Groups
from newslora.model.packed.projection import multiplier
from newslora.predict.classifier import BATCH_TOKENS
from newslora.runtime import (
    Precision,
    environment_record,
    keep_freed_memory,
    passes_at_once,
    pick_device,
    resolve_precision,
)
from newslora.training.step import Stepper

DRAWING, PASS = "newslora: random words", "newslora: a pass"  # named here, for the profiler names only torch's own
TURNS = 6  # of an int8 encoder's products and its passes; the first does not count
# what the profiler calls an operator -> what a reader calls it
KINDS = {
    "mkldnn::_linear_pointwise": "products with frozen weights", "aten::addmm": "products with frozen weights",
    "aten::bmm": "attention products", "aten::baddbmm": "attention products",
    "aten::_softmax": "softmax", "aten::_softmax_backward_data": "softmax",
    "aten::mm": "LoRA products", "aten::addmm_": "LoRA products",
    "aten::gelu": "GELU", "aten::gelu_backward": "GELU",
    "aten::native_layer_norm": "layer norm", "aten::native_layer_norm_backward": "layer norm",
    "aten::bitwise_right_shift_": "dropout", "aten::bitwise_right_shift": "dropout", "aten::bitwise_and": "dropout",
    "aten::bitwise_and_": "dropout", "aten::sub_": "dropout", "aten::bitwise_not_": "dropout",
    "aten::copy_": "copies and gathers", "aten::index_select": "copies and gathers",
    "aten::add": "additions and scales", "aten::add_": "additions and scales", "aten::mul_": "additions and scales",
    "Packed": "Python", "PackedBackward": "Python", PASS: "Python", DRAWING: "random numbers",
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


@contextlib.contextmanager
def drawing_named() -> Iterator[None]:
    """The drawing of random words, which is numpy's, under a name of its own."""
    draw = DropoutBits._draw

    def named(self: DropoutBits, count: int) -> Any:
        with torch.profiler.record_function(DRAWING):
            return draw(self, count)

    DropoutBits._draw = named  # type: ignore[method-assign]
    try:
        yield
    finally:
        DropoutBits._draw = draw  # type: ignore[method-assign]


def shares(run: Callable[[], None], precision: Precision) -> dict[str, float]:
    """Of the time that `run` takes, by kind of work."""
    with drawing_named(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        run()
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        kind = KINDS.get(event.key, "the rest")
        if precision.name == "fp32" and kind in ("products with frozen weights", "LoRA products"):
            kind = "products with weights"  # both are the same operators there
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: time / total for kind, time in sorted(spent.items(), key=lambda item: -item[1])}


def seconds_of(run: Callable[[], None], rounds: int = 2) -> float:
    """Of the last of some rounds, in which every shape has been seen before."""
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        seconds = time.perf_counter() - began
    return seconds


def the_model(backbone: str) -> tuple[Any, Any]:
    """A classifier with random weights, and its configuration."""
    config = resolve_backbone(backbone).architecture()
    assert config is not None
    torch.manual_seed(0)
    return random_classifier(config, list("abcd"), load_recipe("seed").lora), config


def profile_steps(backbone: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Shares of a packed step by kind of work, after every shape has been seen once."""
    recipe = load_recipe("seed", {"train.batch_size": batch_size})
    precision = resolve_precision("auto", pick_device("cpu"))
    model, config = the_model(backbone)
    rows = news_rows(batch_size * steps, config.vocab_size)
    engine = make_engine(model, "auto", precision, trains=True, release=True)
    stepper = Stepper(engine, recipe.train, precision, total_steps=10 * steps)
    batches = [engine.collate(rows, chosen) for chosen in epoch_batches(rows.tokens.lengths, batch_size, 1, 0)]

    def run() -> None:
        for number, batch in enumerate(batches):
            stepper([batch], number)

    seconds = seconds_of(run) / steps
    return {
        "milliseconds_a_step": seconds * 1e3,
        "rows_per_second": batch_size / seconds,
        "shares": shares(run, precision),
    }


def profile_passes(backbone: str, precision_asked: str, count: int) -> dict[str, Any]:
    """Shares of packed passes over `count` rows, after every shape has been seen once.

    One after another, on as many threads as each has where prediction computes several at once.
    """
    device = pick_device("cpu")
    torch.set_num_threads(max(1, torch.get_num_threads() // passes_at_once(device)))
    precision = resolve_precision("auto", device)
    model, config = the_model(backbone)
    rows = news_rows(count, config.vocab_size)
    in_bytes = precision_asked == "int8"
    engine: Engine
    if in_bytes:
        engine = make_byte_engine(model.merge_and_unload(), precision)
    else:
        engine = make_engine(model, "packed", precision, release=True)
    plan = sorted_batches(rows.tokens.lengths, batch_tokens=BATCH_TOKENS["cpu"])
    batches = [engine.collate(rows, chosen) for chosen in plan]

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                with torch.profiler.record_function(PASS):
                    engine.logits(batch)

    seconds = seconds_of(run)
    found = {"milliseconds_a_pass": seconds / len(batches) * 1e3, "rows_per_second": count / seconds}
    if not in_bytes:
        return found | {"shares": shares(run, precision)}
    sizes = [(len(batch.packed.input_ids), len(batch)) for batch in batches]  # type: ignore[union-attr]
    products = byte_products(engine, sizes)
    turns = [(seconds_of(products, 1), seconds_of(run, 1)) for _ in range(TURNS)]
    alone = statistics.median(some / whole for some, whole in turns[1:])  # every shape was seen in the first
    return found | {"shares": {"products of bytes (called by themselves)": alone, "all else": 1 - alone}}


def byte_products(engine: Any, sizes: Sequence[tuple[int, int]]) -> Callable[[], None]:
    """The products of passes over batches of (tokens, rows), on random bytes, called as the layers' compiled kernels do."""
    calls: list[tuple[Any, torch.Tensor]] = []

    def add(projection: Any, width: int, tokens: int, together: int | None = None) -> None:
        for start in range(0, tokens, together or tokens):
            some = min(together or tokens, tokens - start)
            calls.append((projection.product.sums, torch.randint(0, 256, (some, width), dtype=torch.uint8)))

    for tokens, rows in sizes:
        for layer in engine._encoder.layers:
            hidden, inner = len(layer.out.bias), len(layer.up.bias)
            after = rows if layer.first_token_only else tokens
            for projection, many in zip(layer.qkv, (after, tokens)[-len(layer.qkv) :], strict=True):
                add(projection, hidden, many)
            add(layer.out, hidden, after)
            add(layer.up, hidden, after, TOGETHER)
            add(layer.down, inner, after, TOGETHER)

    def run() -> None:
        with torch.inference_mode():
            for multiply, numbers in calls:
                multiply(numbers)

    return run


def parts(config: Any, batch_size: int, kind: torch.dtype) -> dict[str, dict[str, dict[str, float]]]:
    """Alternatives to each part, in milliseconds, on one batch in the type that steps are computed in."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    batch = pack(news_rows(batch_size, config.vocab_size), range(batch_size))
    tokens = len(batch.input_ids)
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
            q, k, v = (row[:, :, part].transpose(1, 2) for part in range(3))
            scaled_dot_product_attention(q, k, v)

    longest = max(batch.lengths)
    query, key, value = torch.randn(3, batch_size, heads, longest, hidden // heads).to(kind)
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
                    lambda: scaled_dot_product_attention(query, key, value, attn_mask=allowed)
                ),
                "padded with dropout (stock)": milliseconds(
                    lambda: scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=0.1)
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
    parser.add_argument("--steps", type=int, default=12, help="of --batch-size rows; prediction takes as many rows")
    parser.add_argument("--task", choices=("training", "prediction"), default="training")
    parser.add_argument("--precision", choices=("auto", "int8"), default="auto", help="int8: of prediction alone")
    chosen = parser.parse_args()
    if chosen.precision == "int8" and chosen.task == "training":
        parser.error("--precision int8 needs --task prediction")
    device = pick_device("cpu")
    trains = chosen.task == "training"
    precision = resolve_precision("auto", device)
    result: dict[str, Any] = {
        "what": f"a packed training step of {chosen.backbone}, seed recipe, random weights"
        if trains
        else f"packed prediction of {chosen.backbone} in {'int8' if chosen.precision == 'int8' else precision.name}, random "
        "weights",
        "environment": environment_record(device, precision),
    }
    if trains:
        result |= {
            "batch_size": chosen.batch_size,
            "step": profile_steps(chosen.backbone, chosen.batch_size, chosen.steps),
            "parts": parts(resolve_backbone(chosen.backbone).architecture(), chosen.batch_size, precision.dtype),
        }
    else:
        count = chosen.batch_size * chosen.steps
        passes = profile_passes(chosen.backbone, chosen.precision, count)
        result |= {"rows": count, "batch_tokens": BATCH_TOKENS["cpu"], "pass": passes}
    if chosen.output:
        files.write_json(chosen.output, result)
    for kind, share in result["step" if trains else "pass"]["shares"].items():
        print(f"{share:6.1%}  {kind}")
    for part, ways in result.get("parts", {}).items():
        print(part)
        for way, spent in ways.items():
            print(f"  {spent['median']:8.3f} ms  {way}")


if __name__ == "__main__":
    main()
