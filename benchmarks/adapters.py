"""What many adapters on one encoder cost: throughput of one, of many mixed in each batch, with a thousand loaded; memory.

    python benchmarks/adapters.py minilm -o benchmarks/results/DATE-adapters-minilm.json

Encoder and adapters have random weights and AG News' row lengths (a gamma distribution fitted to them: mean 53, 99th
percentile 122), fixed by a seed; LoRA and head are the seed recipe's. Every way computes the same rows in the same batches,
and they take turns batch by batch: a host whose speed moves moves all of them. Shares are medians over rounds. Run it on an
idle machine.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from newslora import files
from newslora.bench.memory import anonymous_memory
from newslora.config import load_recipe
from newslora.data.batches import Rows, sorted_batches
from newslora.data.tokens import TokenTable
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import random_classifier, with_labels
from newslora.model.engine import Engine, make_engine
from newslora.model.packed.mixed import AdapterWeights, MixedEncoder
from newslora.model.shared import adapted_modules
from newslora.predict.classifier import BATCH_TOKENS
from newslora.runtime import environment_record, keep_freed_memory, pick_device, resolve_precision

LABELS = list("abcd")


def news_rows(count: int, vocabulary: int) -> Rows:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.gamma(5.5, 53 / 5.5, count), 12, 300).astype(np.int64)
    ids = [generator.integers(5, vocabulary, length).astype(np.int32) for length in lengths]
    return Rows(TokenTable.of(ids), np.full(count, -1, dtype=np.int64), pad_id=0)


def make_adapter(encoder: MixedEncoder, lora: Any, seed: int) -> AdapterWeights:
    """Random tensors, as an adapter's file would bring them."""
    generator = torch.Generator().manual_seed(seed)
    modules = dict(encoder.model.named_modules())
    pairs = {
        name: (
            torch.randn(lora.rank, modules[name].in_features, generator=generator) * 0.02,
            torch.randn(modules[name].out_features, lora.rank, generator=generator) * 0.02,
        )
        for name in adapted_modules(encoder, lora)
    }
    head = {name: torch.randn(one.shape, generator=generator) * 0.02 for name, one in encoder.stock_head.items()}
    return encoder.weights(pairs, head, lora.alpha / lora.rank)


def mixed(encoder: MixedEncoder, rows: Rows, owners: list[AdapterWeights]) -> Callable[[NDArray[np.int64]], None]:
    """Row i by adapter i modulo their number."""

    def run(chosen: NDArray[np.int64]) -> None:
        encoder.logits_of(encoder.collate(rows, chosen), [owners[row % len(owners)] for row in chosen])

    return run


def own(engine: Engine, rows: Rows) -> Callable[[NDArray[np.int64]], None]:
    def run(chosen: NDArray[np.int64]) -> None:
        with torch.inference_mode():
            engine.logits(engine.collate(rows, chosen))

    return run


def seconds_of(
    ways: dict[str, Callable[[NDArray[np.int64]], None]], plan: Sequence[NDArray[np.int64]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round, by way. Who comes first moves on with every batch and every round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):  # the first is not counted: shapes met for the first time cost code generation
        spent = dict.fromkeys(ways, 0.0)
        for place, chosen in enumerate(plan):
            first = (place + turn) % len(ways)
            for name in [*ways][first:] + [*ways][:first]:
                began = time.perf_counter()
                ways[name](chosen)
                spent[name] += time.perf_counter() - began
        if turn >= 0:
            for name, seconds in spent.items():
                taken[name].append(seconds)
    return taken


def told(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values), "rounds": values}


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    device = pick_device("cpu")
    precision = resolve_precision("fp32", device)
    lora = load_recipe("seed").lora
    config = resolve_backbone(chosen.backbone).architecture()
    assert config is not None
    torch.manual_seed(0)
    stock = AutoModelForSequenceClassification.from_config(with_labels(config, LABELS))
    encoder = MixedEncoder(stock.eval(), precision.dtype)
    engine = make_engine(random_classifier(config, LABELS, lora).eval(), "packed", precision, release=True)
    rows = news_rows(chosen.rows, config.vocab_size)

    gc.collect()
    before = anonymous_memory()
    adapters = [make_adapter(encoder, lora, seed) for seed in range(chosen.loaded)]
    gc.collect()
    after = anonymous_memory()
    held = None if before is None or after is None else (after - before) / len(adapters)

    found = {}
    for budget in chosen.batch_tokens:
        plan = sorted_batches(rows.tokens.lengths, batch_tokens=budget)
        ways = {
            "one, its own engine": own(engine, rows),
            "one, mixed engine": mixed(encoder, rows, adapters[:1]),
            f"{chosen.together} mixed": mixed(encoder, rows, adapters[: chosen.together]),
            f"{chosen.loaded} mixed": mixed(encoder, rows, adapters),
        }
        taken = seconds_of(ways, plan, chosen.rounds)
        base = taken["one, its own engine"]
        found[str(budget)] = {
            "batches": len(plan),
            "rows_a_batch": len(rows) / len(plan),
            "rows_per_second": {name: told([len(rows) / one for one in each]) for name, each in taken.items()},
            "share_of_one": {
                name: told([alone / one for alone, one in zip(base, each, strict=True)]) for name, each in taken.items()
            },
        }
    return {
        "what": f"many adapters on {chosen.backbone}, random weights, seed recipe's LoRA, prediction in fp32",
        "environment": environment_record(device, precision),
        "settings": {name: value for name, value in vars(chosen).items() if name != "output"},
        "tokens_a_row": float(rows.tokens.lengths.mean()),
        "memory_an_adapter": {"own_bytes": adapters[0].bytes, "measured_bytes": held, "loaded": len(adapters)},
        "by_batch_tokens": found,
    }


def main() -> None:
    keep_freed_memory()  # as newslora's commands do
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="?", default="minilm")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--rows", type=int, default=800, help="texts a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--together", type=int, default=100, help="adapters mixed")
    parser.add_argument("--loaded", type=int, default=1000, help="adapters in memory, also all mixed")
    parser.add_argument(
        "--batch-tokens", type=int, nargs="+", default=[BATCH_TOKENS["cpu"], 8192], help="tokens a forward pass"
    )
    chosen = parser.parse_args()
    result = measure(chosen)
    if chosen.output is not None:
        files.write_json(chosen.output, result)
    memory = result["memory_an_adapter"]
    print(f"memory an adapter: {memory['measured_bytes']} bytes, its own {memory['own_bytes']}")
    for budget, by_way in result["by_batch_tokens"].items():
        print(f"{budget} tokens a pass, {by_way['rows_a_batch']:.1f} rows")
        for name, share in by_way["share_of_one"].items():
            rate = by_way["rows_per_second"][name]["median"]
            print(
                f"  {rate:9.1f} rows/s  {share['median']:6.1%} ({share['lowest']:.1%} to {share['highest']:.1%})  {name}"
            )


if __name__ == "__main__":
    main()
