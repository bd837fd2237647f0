"""How fast the packed engine is on a device: the rows and the timings of benchmarks/gpu.py."""

import itertools
import statistics
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from newslora.bench.flops import flops_per_token, matmul_peak
from newslora.bench.worker import Job, measure, read_rows
from newslora.config import load_recipe
from newslora.data.batches import Rows, epoch_batches, load_batches
from newslora.data.tokens import TokenTable
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import random_classifier
from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.predict.classifier import BATCH_TOKENS
from newslora.runtime import Precision
from newslora.training.loop import ORDER_SEED, _mixed
from newslora.training.step import Stepper

TRAIN_ROWS = 119_360  # of the reference recipe: 37,300 steps of 16 over 5 epochs
LABELS = ["World", "Sports", "Business", "Sci/Tech"]
BF16 = Precision("bf16", "benchmark")


class Sizes:
    """What a GPU is given, or with --tiny a CPU."""

    def __init__(self, tiny: bool) -> None:
        self.rows = 400 if tiny else TRAIN_ROWS
        self.rounds, self.stock_warmup, self.stock_steps = (1, 1, 2) if tiny else (3, 40, 120)
        self.our_warmup, self.our_steps = (1, 2) if tiny else (150, 600)
        self.captured_warmup = 1 if tiny else 750  # the eighth shape of these rows comes the third time at step 725
        self.recipe_seconds = {"seed": 0.5, "fast": 0.5} if tiny else {"seed": 150.0, "fast": 60.0}
        self.recipe_warmup = 2 if tiny else 400
        self.predicted = 40 if tiny else 60_000
        self.prediction_seconds = 1.0 if tiny else 45.0  # which the turns leave
        self.peak = 64 if tiny else None
        self.workers = 0 if tiny else 4  # of the stock Trainer; ours has none on a GPU


class Speed:
    """Timings on one device."""

    def __init__(self, backbone: str, rows_file: Path, device: torch.device, sizes: Sizes, until: float) -> None:
        self.backbone, self.rows_file, self.device, self.sizes, self.until = backbone, rows_file, device, sizes, until
        self.config: Any = resolve_backbone(backbone).architecture()
        self.rows = read_rows(rows_file)
        self.peaks = {name: matmul_peak(name, device, sizes.peak) for name in ("fp32", "bf16")}

    def by_turns(self, graphs: bool) -> dict[str, Any]:
        """The stock Trainer + PEFT and newslora, bf16, batch 16, the same rows; as many rounds as there is time for."""
        jobs = self._jobs(graphs)
        runs: dict[str, list[Any]] = {name: [] for name in jobs}
        failed: dict[str, str] = {}
        for turn in range(self.sizes.rounds):
            began = time.monotonic()
            for name in jobs if turn % 2 == 0 else reversed(jobs):
                if name in failed:
                    continue
                try:
                    runs[name].append(measure(jobs[name]))
                except Exception:  # noqa: BLE001  # of every kind: the others' timings stand without it
                    failed[name] = traceback.format_exc()
                    say(f"round {turn + 1}: {name}: {failed[name]}")
                else:
                    rate = runs[name][-1]["rows"] / runs[name][-1]["seconds"]
                    say(f"round {turn + 1}: {name}: {rate:,.0f} rows/s")
            now = time.monotonic()
            if now + (now - began) > self.until - self.sizes.prediction_seconds:
                break
        found = {name: self._summary(some) for name, some in runs.items() if some}
        base = found.get("trainer", {}).get("rows_per_second")
        ratios = {name: one["rows_per_second"] / base for name, one in found.items()} if base else {}
        return {"variants": found, "ratios": ratios} | ({"failed": failed} if failed else {})

    def _jobs(self, graphs: bool) -> dict[str, Job]:
        s = self.sizes
        stock = Job(
            self.backbone, "training", "trainer-bf16", str(self.rows_file), 16, s.stock_warmup, s.stock_steps, s.workers,
            device=str(self.device),
        )  # fmt: skip
        ours = replace(stock, variant="newslora-bf16", warmup_steps=s.our_warmup, steps=s.our_steps, engine="packed")
        jobs = {"trainer": stock, "newslora": ours}
        if graphs:
            jobs["newslora, captured"] = replace(ours, graphs=True, warmup_steps=s.captured_warmup)
        return jobs

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
        began, warm, first, steps, tokens = time.monotonic(), 0.0, 0, 0, 0
        pin, workers = self.device.type == "cuda", self.sizes.workers
        epochs = (load_batches(self.rows, plan, engine.collate, workers, pin) for plan in plans)
        for batch in itertools.chain.from_iterable(epochs):
            stepper([batch], steps)
            steps, tokens = steps + 1, tokens + sum(batch.packed.lengths)  # type: ignore[union-attr]
            if steps == self.sizes.recipe_warmup:
                stepper.wait()
                warm, first = time.monotonic() - began, steps
            if time.monotonic() - began > limit:
                break
        stepper.wait()
        seconds = time.monotonic() - began
        a_step = (seconds - warm) / max(1, steps - first)
        found = {
            "steps_of_the_recipe": total, "steps_measured": steps, "seconds_measured": seconds,
            "first_steps": first, "seconds_of_the_first_steps": warm,
            "milliseconds_a_step_after_them": a_step * 1e3,
            "all_steps_seconds": seconds if steps == total else warm + a_step * (total - first),
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
            if time.monotonic() > self.until:
                break
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
