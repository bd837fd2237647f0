"""How fast the packed engine is on a device: the recipes of benchmarks/gpu.py, and what its other timings need."""

import itertools
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_turns import Turns, say

from newslora.bench.flops import matmul_peak
from newslora.bench.worker import read_rows
from newslora.config import Recipe, load_recipe
from newslora.data.batches import Rows, epoch_batches, load_batches
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import random_classifier
from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.runtime import Precision
from newslora.training.checkpoint import LoopState, save_checkpoint
from newslora.training.loop import ORDER_SEED, _mixed
from newslora.training.step import Stepper

TRAIN_ROWS = 119_360  # of the reference recipe: 37,300 steps of 16 over 5 epochs
LABELS = ["World", "Sports", "Business", "Sci/Tech"]
BF16 = Precision("bf16", "benchmark")
AGAIN = 3  # evaluations after the first, and checkpoints


class Sizes:
    """What a GPU is given, or with --tiny a CPU."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        self.rows = 400 if tiny else TRAIN_ROWS
        self.rounds = 1 if tiny else 3
        self.recipe_seconds = 0.5 if tiny else float("inf")  # beside the time that the plan gives
        self.recipe_warmup = 2 if tiny else 400
        self.validation_rows = 40 if tiny else 640  # as the recipes cut
        self.peak = 64 if tiny else None
        self.workers = 0 if tiny else 4  # of the stock Trainer; ours has none on a GPU


class Speed:
    """Timings on one device."""

    def __init__(self, backbone: str, rows_file: Path, device: torch.device, sizes: Sizes) -> None:
        self.device, self.sizes = device, sizes
        self.config: Any = resolve_backbone(backbone).architecture()
        self.rows = read_rows(rows_file)
        self.peaks = {name: matmul_peak(name, device, sizes.peak) for name in ("fp32", "bf16")}
        self.turns = Turns(
            backbone, self.config, rows_file, device, self.peaks, sizes.workers, sizes.rounds, sizes.tiny
        )

    def recipe(self, name: str, graphs: bool, until: float) -> dict[str, Any]:
        """A recipe's steps in their own order, all of them or as many as there are until then (time.monotonic)."""
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
        limit = min(self.sizes.recipe_seconds, until - time.monotonic())
        began, warm, first, steps, tokens = time.monotonic(), 0.0, 0, 0, 0
        pin, workers = self.device.type == "cuda", self.sizes.workers
        epochs = (load_batches(self.rows, plan, engine.collate, workers, pin) for plan in plans)
        for batch in itertools.chain.from_iterable(epochs):
            stepper([batch], steps)
            steps, tokens = steps + 1, tokens + sum(batch.packed.lengths)  # type: ignore[union-attr]
            if steps == self.sizes.recipe_warmup:
                stepper.wait()
                warm, first = time.monotonic() - began, steps
            if steps % train.log_every_steps == 0:
                stepper.wait()  # as training does before it writes a line
            if time.monotonic() - began > limit:
                break
        stepper.wait()
        seconds = time.monotonic() - began
        if steps == first:
            warm, first = 0.0, 0  # no step was taken after the first ones
        a_step = (seconds - warm) / (steps - first)
        steps_seconds = seconds if steps == total else warm + a_step * (total - first)
        steps_are = "measured" if steps == total else "extrapolated from the steps measured"
        found: dict[str, Any] = {
            "steps_of_the_recipe": total, "steps_measured": steps, "seconds_measured": seconds,
            "first_steps": first, "seconds_of_the_first_steps": warm,
            "milliseconds_a_step_after_them": a_step * 1e3,
            "all_steps_seconds": steps_seconds, "all_steps_seconds_are": steps_are,
            "tokens_per_second": tokens / seconds, "rows_per_second": steps * train.batch_size / seconds,
            "graphs": 0 if stepper.graphs is None else len(stepper.graphs), "notes": notes,
        }  # fmt: skip
        say(f"{name}: {steps_seconds:.1f} s for {total:,} steps, {steps_are}")
        try:
            found |= self._epochs_end(recipe, stepper, steps_seconds, steps_are)
        except Exception:  # noqa: BLE001  # of every kind: the steps were timed
            found["failed"] = traceback.format_exc()
        return found

    def _epochs_end(self, recipe: Recipe, stepper: Stepper, steps_seconds: float, steps_are: str) -> dict[str, Any]:
        """What training does after each epoch, timed apart, and with it the whole recipe."""
        epochs, size = recipe.train.epochs, recipe.train.evaluation_batch_size
        count = min(self.sizes.validation_rows, len(self.rows))
        rows = Rows(self.rows.tokens.part(0, count), self.rows.labels[:count], self.rows.pad_id)

        def evaluate() -> None:  # without its metrics, which need scipy and of so few rows take the host a moment
            predict_logits(stepper.engine, rows, batch_size=size)

        with tempfile.TemporaryDirectory() as folder:

            def save() -> None:
                save_checkpoint(Path(folder), LoopState(), stepper.engine.model, stepper.optimizer)

            first, *others = (timed(evaluate) for _ in range(1 + AGAIN))
            each, saved = statistics.median(others), statistics.median(timed(save) for _ in range(AGAIN))
        return {
            "evaluation": {"rows": count, "first_seconds": first, "seconds": each}, "checkpoint_seconds": saved,
            "whole_seconds": steps_seconds + first + (epochs - 1) * each + epochs * saved,
            "whole_seconds_are": f"all steps, {steps_are}, with {epochs} evaluations of {count} rows and {epochs} checkpoints, "
            "timed apart; without metrics, without reading rows and weights, and without what follows the last epoch",
        }  # fmt: skip


def timed(run: Callable[[], None]) -> float:
    began = time.monotonic()
    run()
    return time.monotonic() - began


def device_record(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": "cpu"}
    known = torch.cuda.get_device_properties(device)
    return {
        "name": known.name, "memory": known.total_memory, "multiprocessors": known.multi_processor_count,
        "capability": f"{known.major}.{known.minor}", "cuda": torch.version.cuda,
    }  # fmt: skip
