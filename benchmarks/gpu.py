"""The packed engine on a GPU: first whether it is right there, then how fast it is. One JSON, under ten minutes, no network.

    python benchmarks/gpu.py                             # RoBERTa-base's architecture, random weights
    python benchmarks/gpu.py --device cpu --tiny -o F    # the same script on a small encoder, to see that it works

Right: packed against the padded stock forward on the device (every logit and gradient, fp32 and bf16), dropout's
distribution, captured steps against plain ones. Where one is off the script says so, writes what it found and stops with
code 1. Fast: the stock Trainer + PEFT and newslora by turns at batch 16; the `seed` and `fast` recipes step for step; bulk
prediction. A recipe that does not fit into its share of the time is measured in part and says so: evaluation and
checkpoints are not in it. Nothing of the device is set or reset, so a share of one (MIG) serves too.

Needs torch 2.11 or later, transformers 5.17 or later, peft, accelerate, pydantic and newslora's own source on the path.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks import CheckError, Checks
from safetensors.numpy import save_file

from newslora import files
from newslora.bench.flops import flops_per_token, matmul_peak
from newslora.bench.worker import Job, measure, read_rows
from newslora.config import load_recipe
from newslora.data.batches import Rows, epoch_batches, load_batches
from newslora.data.tokens import TokenTable
from newslora.errors import NewsloraError
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import random_classifier
from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.predict.classifier import BATCH_TOKENS
from newslora.runtime import Precision, environment_record, pick_device
from newslora.training.loop import ORDER_SEED, _mixed
from newslora.training.step import Stepper

# Tokens a row of AG News (85,722 train rows) under RoBERTa's tokenizer, by percentile; mean 52.5
PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
TOKENS = (9, 24, 30, 34, 42, 50, 59, 70, 81, 122, 193, 356)
TRAIN_ROWS = 119_360  # of the reference recipe: 37,300 steps of 16 over 5 epochs
LABELS = ["World", "Sports", "Business", "Sci/Tech"]
BF16 = Precision("bf16", "benchmark")


class Sizes:
    """What a GPU is given, or with --tiny a CPU."""

    def __init__(self, tiny: bool) -> None:
        self.rows = 400 if tiny else TRAIN_ROWS
        self.rounds, self.stock_warmup, self.stock_steps = (1, 1, 2) if tiny else (3, 40, 120)
        self.our_warmup, self.our_steps = (1, 2) if tiny else (150, 600)
        self.recipe_seconds = {"seed": 0.5, "fast": 0.5} if tiny else {"seed": 150.0, "fast": 60.0}
        self.recipe_warmup = 2 if tiny else 400
        self.predicted = 40 if tiny else 60_000
        self.peak = 64 if tiny else None
        self.workers = 0 if tiny else 4


def tiny_backbone(folder: Path) -> str:
    from transformers import RobertaConfig

    RobertaConfig(
        vocab_size=500, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def drawn_rows(count: int, vocabulary: int) -> Rows:
    """Rows of random tokens whose lengths have AG News' percentiles."""
    generator = np.random.default_rng(0)
    lengths = np.interp(generator.uniform(0, 100, count), PERCENTILES, TOKENS).round().astype(np.int64)
    return _rows(lengths, vocabulary, generator)


def source_rows(source: str, tokenizer: str, count: int, vocabulary: int) -> Rows:
    """As many rows of the lengths that a source's rows have; their tokens do not matter."""
    from transformers import AutoTokenizer

    from newslora.data.articles import read_articles
    from newslora.data.sources import parse_source, split_for
    from newslora.data.tokens import tokenize

    parsed = parse_source(source)
    articles, _ = read_articles(parsed, split_for(parsed, "train"), load_recipe("seed").data, None)
    known = AutoTokenizer.from_pretrained(Path(tokenizer), local_files_only=True, trust_remote_code=False)
    lengths = tokenize(known, articles.texts, 512).lengths
    generator = np.random.default_rng(0)
    return _rows(generator.choice(lengths, count), vocabulary, generator)


def _rows(lengths: Any, vocabulary: int, generator: np.random.Generator) -> Rows:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = generator.integers(5, vocabulary, int(offsets[-1]), dtype=np.int32)
    return Rows(TokenTable(ids, offsets), generator.integers(0, 4, len(lengths)), pad_id=1)


class Speed:
    """Timings on one device."""

    def __init__(self, backbone: str, rows_file: Path, device: torch.device, sizes: Sizes, until: float) -> None:
        self.backbone, self.rows_file, self.device, self.sizes, self.until = backbone, rows_file, device, sizes, until
        self.config: Any = resolve_backbone(backbone).architecture()
        self.rows = read_rows(rows_file)
        self.peaks = {name: matmul_peak(name, device, sizes.peak) for name in ("fp32", "bf16")}

    def by_turns(self, graphs: bool) -> dict[str, Any]:
        """The stock Trainer + PEFT and newslora, bf16, batch 16, the same rows."""
        s = self.sizes
        stock = Job(
            self.backbone, "training", "trainer-bf16", str(self.rows_file), 16, s.stock_warmup, s.stock_steps, s.workers,
            device=str(self.device),
        )  # fmt: skip
        ours = replace(stock, variant="newslora-bf16", warmup_steps=s.our_warmup, steps=s.our_steps, engine="packed")
        jobs = {"trainer": stock, "newslora": ours}
        if graphs:
            jobs["newslora, captured"] = replace(ours, graphs=True)
        runs: dict[str, list[Any]] = {name: [] for name in jobs}
        for turn in range(s.rounds):
            for name in jobs if turn % 2 == 0 else reversed(jobs):
                runs[name].append(measure(jobs[name]))
                say(f"round {turn + 1}: {name}: {runs[name][-1]['rows'] / runs[name][-1]['seconds']:,.0f} rows/s")
        found = {name: self._summary(some) for name, some in runs.items()}
        base = found["trainer"]["rows_per_second"]
        return {"variants": found, "ratios": {name: one["rows_per_second"] / base for name, one in found.items()}}

    def _summary(self, runs: list[Any]) -> dict[str, Any]:
        rates = [run["rows"] / run["seconds"] for run in runs]
        tokens = statistics.median(run["tokens"] / run["seconds"] for run in runs)
        cost = flops_per_token(self.config, runs[0]["tokens"] / runs[0]["rows"], training=True)
        return {
            "rows_per_second": statistics.median(rates), "rounds": rates, "tokens_per_second": tokens,
            "share_of_matmul_peak": tokens * cost / self.peaks["bf16"], "runs": runs,
        }  # fmt: skip

    def recipe(self, name: str, graphs: bool) -> dict[str, Any]:
        """A recipe's steps in their own order, all of them or as many as its time allows."""
        recipe = load_recipe(name, {"train.cuda_graphs": graphs})
        torch.manual_seed(0)
        model = random_classifier(self.config, LABELS, recipe.lora, recipe.model).to(self.device)
        engine = make_engine(model, "packed", BF16, trains=True, release=True)
        train = recipe.train
        plans = [
            epoch_batches(self.rows.lengths, train.batch_size, _mixed(train.seed, ORDER_SEED), epoch)
            for epoch in range(train.epochs)
        ]
        total = sum(map(len, plans))
        notes: list[str] = []
        stepper = Stepper(engine, train, BF16, total, note=notes.append)
        limit = min(self.sizes.recipe_seconds[name], self.until - time.monotonic())
        began, warm, steps, tokens = time.monotonic(), 0.0, 0, 0
        pin, workers = self.device.type == "cuda", self.sizes.workers
        epochs = (load_batches(self.rows, plan, engine.collate, workers, pin) for plan in plans)
        for batch in itertools.chain.from_iterable(epochs):
            stepper([batch], steps)
            steps, tokens = steps + 1, tokens + sum(batch.packed.lengths)  # type: ignore[union-attr]
            if steps == self.sizes.recipe_warmup:
                stepper.wait()
                warm = time.monotonic() - began
            if steps > self.sizes.recipe_warmup and time.monotonic() - began > limit:
                break
        stepper.wait()
        seconds = time.monotonic() - began
        a_step = (seconds - warm) / max(1, steps - self.sizes.recipe_warmup)
        found = {
            "steps_of_the_recipe": total, "steps_measured": steps, "seconds_measured": seconds,
            "first_steps": self.sizes.recipe_warmup, "seconds_of_the_first_steps": warm,
            "milliseconds_a_step_after_them": a_step * 1e3,
            "all_steps_seconds": seconds if steps == total else warm + a_step * (total - self.sizes.recipe_warmup),
            "all_steps_seconds_are": "measured" if steps == total else "extrapolated from the steps measured",
            "tokens_per_second": tokens / seconds, "rows_per_second": steps * train.batch_size / seconds,
            "graphs": 0 if stepper.graphs is None else len(stepper.graphs), "notes": notes,
            "without": "evaluation and checkpoints",
        }  # fmt: skip
        say(f"{name}: {found['all_steps_seconds']:.1f} s for {total:,} steps, {found['all_steps_seconds_are']}")
        return found

    def prediction(self) -> dict[str, Any]:
        """Tokenised rows to logits, bf16, longest first."""
        recipe = load_recipe("seed")
        torch.manual_seed(0)
        model = random_classifier(self.config, LABELS, recipe.lora).to(self.device)
        engine = make_engine(model, "packed", BF16, release=True)
        count = min(self.sizes.predicted, len(self.rows))
        end = int(self.rows.tokens.offsets[count])
        some = Rows(
            TokenTable(self.rows.tokens.ids[:end], self.rows.tokens.offsets[: count + 1]), self.rows.labels[:count], 1
        )
        limit = BATCH_TOKENS[self.device.type]
        predict_logits(engine, some, batch_tokens=limit)  # every shape once
        rates = []
        for _ in range(self.sizes.rounds):
            began = time.monotonic()
            predict_logits(engine, some, batch_tokens=limit)
            rates.append(end / (time.monotonic() - began))
        cost = flops_per_token(self.config, end / count, training=False)
        found = statistics.median(rates)
        say(f"prediction: {found:,.0f} tokens/s")
        return {
            "rows": count, "tokens": end, "tokens_per_second": found, "rounds": rates,
            "share_of_matmul_peak": found * cost / self.peaks["bf16"],
        }  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def device_record(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": "cpu"}
    known = torch.cuda.get_device_properties(device)
    return {
        "name": known.name, "memory": known.total_memory, "multiprocessors": known.multi_processor_count,
        "capability": f"{known.major}.{known.minor}", "cuda": torch.version.cuda,
    }  # fmt: skip


def run(chosen: argparse.Namespace, result: dict[str, Any], folder: Path) -> None:
    device, sizes = pick_device(chosen.device), Sizes(chosen.tiny)
    backbone = tiny_backbone(folder / "tiny") if chosen.tiny else "roberta-base"
    config = resolve_backbone(backbone).architecture()
    assert config is not None
    result |= {"environment": environment_record(device, BF16), "device": device_record(device), "backbone": backbone}
    if chosen.tiny:
        result["backbone"] = "a tiny RoBERTa, to try the script"
    if chosen.data:
        rows = source_rows(chosen.data, chosen.tokenizer, sizes.rows, config.vocab_size)
    else:
        rows = drawn_rows(sizes.rows, config.vocab_size)
    result["rows"] = {
        "rows": len(rows),
        "tokens_per_row": float(rows.tokens.lengths.mean()),
        "from": chosen.data or "drawn",
    }
    rows_file = folder / "rows.safetensors"
    save_file(
        {"ids": rows.tokens.ids, "offsets": rows.tokens.offsets, "labels": rows.labels, "pad_id": np.array([1])},
        rows_file,
    )
    checks = Checks(config, rows, device, draws=8 if chosen.tiny else 200)
    result["checks"] = checks.found
    checks.all(say)
    graphs = checks.found["graphs"]["captured"] > 0 and device.type == "cuda"
    speed = Speed(
        backbone, rows_file, device, sizes, time.monotonic() + 60 * chosen.minutes - (time.monotonic() - BEGAN)
    )
    result["matmul_peak_flops"] = speed.peaks
    parts: dict[str, Callable[[], Any]] = {
        "training_by_turns": lambda: speed.by_turns(graphs),
        "seed": lambda: speed.recipe("seed", graphs),
        "fast": lambda: speed.recipe("fast", graphs),
        "prediction": speed.prediction,
    }
    for name, part in parts.items():
        if time.monotonic() > speed.until - 20 and not chosen.tiny:
            result[name] = {"left_out": f"no time was left of {chosen.minutes:g} minutes"}
        else:
            result[name] = part()


BEGAN = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small encoder and few steps")
    parser.add_argument("--data", help="rows whose lengths count, as data.source; by default lengths like AG News'")
    parser.add_argument("--tokenizer", help="folder of the tokenizer that splits --data")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything")
    chosen = parser.parse_args()
    if chosen.data and not chosen.tokenizer:
        parser.error("--data needs --tokenizer FOLDER")
    result: dict[str, Any] = {"what": "the packed engine on a GPU: checks, then timings", "minutes": chosen.minutes}
    failure: str | None = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(chosen, result, Path(folder))
        except (CheckError, NewsloraError) as error:
            failure = result["stopped"] = str(error)
    result["seconds"] = time.monotonic() - BEGAN
    result["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    name = str(result.get("device", {}).get("name", "none")).replace(" ", "-").lower()
    output = chosen.output or Path("benchmarks/results") / f"{time.strftime('%Y-%m-%d')}-gpu-{name}.json"
    files.write_json(output, result)
    print(f"Result: {output}")
    if failure is not None:
        say(f"Stopped: {failure}")
    return int(failure is not None)


if __name__ == "__main__":
    sys.exit(main())
