"""One measurement in a process of its own: `python -m newslora.bench.worker`, a Job as JSON in, numbers as JSON out.

A fresh process keeps the other side's threads, caches and memory out of the figures, and makes its peak memory its own.
"""

import itertools
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from newslora.bench.memory import AnonymousPeak, status_bytes
from newslora.runtime import collect_seldom, keep_freed_memory

VARIANTS = {
    "training": ("trainer-fp32", "trainer-bf16", "newslora-fp32", "newslora-bf16"),
    "prediction": ("trainer-fp32", "trainer-bf16", "newslora-fp32", "newslora-bf16", "newslora-int8"),
}
LABELS = 4


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure."""

    backbone: str
    task: str  # "training" or "prediction"
    variant: str
    rows_file: str  # safetensors: ids, offsets, labels
    batch_size: int
    warmup_steps: int  # batches before the clock starts
    steps: int  # batches on the clock
    workers: int = 0  # processes that prepare batches
    rank: int = 4
    recipe: str = "seed"
    device: str = "cpu"
    engine: str = "auto"
    graphs: bool = False  # whether our steps are captured as CUDA graphs


def measure(job: Job) -> dict[str, Any]:
    """Seconds, rows and real tokens on the clock, and memory.

    Returns:
        seconds, rows, tokens; memory_before (bytes after imports), memory_peak and anonymous_peak (bytes) of this process;
        on a GPU also device_memory_peak (bytes of torch's tensors).
    """
    with AnonymousPeak() as anonymous:
        result = _measure(job)
    return result | {"anonymous_peak": anonymous.peak}


def _measure(job: Job) -> dict[str, Any]:
    import peft  # noqa: F401  # counted as imports, not as memory of the run
    import torch
    import transformers  # noqa: F401

    from newslora.config import load_recipe
    from newslora.model.backbones import resolve_backbone
    from newslora.model.classifier import random_classifier
    from newslora.runtime import pick_device

    before = status_bytes("VmRSS")
    rows = read_rows(Path(job.rows_file))
    changes = {"train.batch_size": job.batch_size, "lora.rank": job.rank, "train.cuda_graphs": job.graphs}
    recipe = load_recipe(job.recipe, changes)
    device = pick_device(job.device)
    config = resolve_backbone(job.backbone).architecture()
    if config is None:
        raise SystemExit(f"The architecture of '{job.backbone}' is not known on this disk.")
    torch.manual_seed(0)
    model = random_classifier(config, [str(label) for label in range(LABELS)], recipe.lora, recipe.model).to(device)
    side, precision = job.variant.split("-")
    run = {
        ("trainer", "training"): _train_stock,
        ("trainer", "prediction"): _predict_stock,
        ("newslora", "training"): _train_ours,
        ("newslora", "prediction"): _predict_ours,
    }[side, job.task]
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    result = run(job, model, rows, recipe, precision)
    if on_gpu:
        result["device_memory_peak"] = torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"job": asdict(job), **result, "memory_before": before, "memory_peak": peak}


def read_rows(path: Path) -> Any:
    """The rows that all variants share, mapped where `write_columns` wrote them."""
    from safetensors.numpy import load_file

    from newslora.data.batches import Rows
    from newslora.data.store import read_columns
    from newslora.data.tokens import TokenTable

    found = read_columns(path)
    held = load_file(path) if found is None else found[0]
    return Rows(TokenTable(held["ids"], held["offsets"]), held["labels"], pad_id=int(held["pad_id"][0]))


def _plan(job: Job, rows: Any, recipe: Any) -> list[Any]:
    from newslora.data.batches import epoch_batches

    plan: list[Any] = []
    while (missing := job.warmup_steps + job.steps - len(plan)) > 0:
        plan += itertools.islice(epoch_batches(rows.lengths, job.batch_size, recipe.train.seed, len(plan)), missing)
    return plan


def _counted(job: Job, rows: Any, plan: list[Any], seconds: float) -> dict[str, Any]:
    timed = [rows.lengths[batch] for batch in plan[job.warmup_steps :]]
    return {"seconds": seconds, "rows": sum(map(len, timed)), "tokens": int(sum(map(sum, timed)))}


def _train_ours(job: Job, model: Any, rows: Any, recipe: Any, precision: str) -> dict[str, Any]:
    from newslora.data.batches import load_batches
    from newslora.model.engine import make_engine
    from newslora.runtime import Precision
    from newslora.training.step import Stepper

    plan = _plan(job, rows, recipe)
    resolved = Precision(precision, "benchmark")
    engine = make_engine(model, job.engine, resolved, trains=True, release=True)
    notes: list[str] = []
    stepper = Stepper(engine, recipe.train, resolved, total_steps=len(plan), note=notes.append)
    began = 0.0
    pin = engine.device.type == "cuda"
    for step, batch in enumerate(load_batches(rows, plan, engine.collate, job.workers, pin)):
        if step == job.warmup_steps:
            stepper.wait()
            began = time.perf_counter()
        stepper([batch], step)
    stepper.wait()
    seconds = time.perf_counter() - began
    captured = 0 if stepper.graphs is None else len(stepper.graphs)
    return _counted(job, rows, plan, seconds) | {"engine": engine.name, "graphs": captured, "notes": notes}


def _predict_ours(job: Job, model: Any, rows: Any, recipe: Any, precision: str) -> dict[str, Any]:
    from newslora.data.batches import Rows
    from newslora.data.tokens import TokenTable
    from newslora.model.engine import make_byte_engine, make_engine
    from newslora.model.inference import predict_logits
    from newslora.predict.classifier import BATCH_TOKENS
    from newslora.runtime import Precision, pick_device, resolve_precision

    plan = _plan(job, rows, recipe)
    if precision == "int8":  # as an int8 export answers
        engine = make_byte_engine(model.merge_and_unload(), resolve_precision("auto", pick_device("cpu")))
    else:
        engine = make_engine(model, job.engine, Precision(precision, "benchmark"), release=True)

    def of(batches: list[Any]) -> Rows:
        chosen = [row for batch in batches for row in batch]
        return Rows(TokenTable.of([rows.tokens[row] for row in chosen]), rows.labels[chosen], rows.pad_id)

    # made before the clock starts: a command has its table from the tokenizer, and a GPU is done in little more time
    first, timed = of(plan[: job.warmup_steps]), of(plan[job.warmup_steps :])
    limit = BATCH_TOKENS[engine.device.type]
    predict_logits(engine, first, batch_tokens=limit)
    began = time.perf_counter()
    predict_logits(engine, timed, batch_tokens=limit)
    return _counted(job, rows, plan, time.perf_counter() - began) | {"engine": engine.name}


def _stock_trainer(job: Job, model: Any, rows: Any, precision: str, steps: int, folder: str) -> Any:
    """The stock Trainer as its users write it: dynamic padding, the reference recipe's settings."""
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):  # type: ignore[misc]
        """Takes rows in the order they are given, so that both sides see the same batches."""

        def _get_train_sampler(self, *arguments: Any, **more: Any) -> Any:
            from torch.utils.data import SequentialSampler

            return SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        folder, per_device_train_batch_size=job.batch_size, per_device_eval_batch_size=job.batch_size,
        max_steps=max(steps, 1), learning_rate=2e-4, weight_decay=0.01, warmup_steps=500, lr_scheduler_type="cosine",
        logging_steps=100, save_strategy="no", report_to=[], disable_tqdm=True, bf16=precision == "bf16",
        bf16_full_eval=precision == "bf16", remove_unused_columns=False, dataloader_num_workers=job.workers,
        use_cpu=job.device == "cpu",
    )  # fmt: skip

    def collate(items: list[int]) -> dict[str, Any]:
        batch = rows.batch(items)
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}

    return InOrder(model, arguments, data_collator=collate)


def _train_stock(job: Job, model: Any, rows: Any, recipe: Any, precision: str) -> dict[str, Any]:
    import tempfile

    from transformers import TrainerCallback

    plan = _plan(job, rows, recipe)
    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            if job.device != "cpu" and len(ends) in (job.warmup_steps - 1, len(plan) - 1):
                import torch

                torch.cuda.synchronize()  # where the clock is read, and nowhere else
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = _stock_trainer(job, model, rows, precision, len(plan), folder)
        trainer.train_dataset = [row for batch in plan for row in batch]
        trainer.add_callback(Clock())
        trainer.train()
    return _counted(job, rows, plan, ends[-1] - ends[job.warmup_steps - 1])


def _predict_stock(job: Job, model: Any, rows: Any, recipe: Any, precision: str) -> dict[str, Any]:
    import tempfile

    plan = _plan(job, rows, recipe)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _stock_trainer(job, model, rows, precision, 1, folder)
        trainer.predict([row for batch in plan[: job.warmup_steps] for row in batch])
        began = time.perf_counter()
        trainer.predict([row for batch in plan[job.warmup_steps :] for row in batch])
        seconds = time.perf_counter() - began
    return _counted(job, rows, plan, seconds)


def main() -> None:
    job = Job(**json.loads(sys.stdin.read()))
    import warnings

    warnings.filterwarnings("ignore")  # advice of the stock stack, in the middle of our JSON
    if job.variant.startswith("newslora"):
        # as our commands do; the Trainer is measured as its users start it
        keep_freed_memory()
        collect_seldom()
    print("RESULT" + json.dumps(measure(job)))


if __name__ == "__main__":
    main()
