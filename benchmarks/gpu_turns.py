"""The stock Trainer + PEFT and newslora by turns on one device: what `newslora bench` does on a CPU.

All in one process, for one of its own each would spend half of the time on imports and on making the GPU ready. What an
earlier run left is freed before the next one or not counted as its; memory of the host, where nobody can tell whose it is, is
left out.
"""

import gc
import statistics
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from newslora.bench.flops import flops_per_token
from newslora.bench.worker import Job, measure

CAPTURED = "newslora-bf16, captured"
# Batches of 16 before the clock starts, and on it; in fp32 few, for the time's sake.
BATCHES = {
    "training": {
        "trainer-fp32": (20, 60),
        "trainer-bf16": (40, 120),
        "newslora-bf16": (150, 600),
        CAPTURED: (750, 600),  # the eighth shape of these rows comes the third time at step 725
    },
    "prediction": {"trainer-fp32": (20, 200), "trainer-bf16": (20, 600), "newslora-bf16": (1_250, 3_750)},
}
FEW = (1, 2)  # with --tiny
TOLD = ("rows", "tokens", "seconds", "engine", "graphs", "notes")  # of a measurement


@dataclass(frozen=True, slots=True)
class Turns:
    """What the measurements share."""

    backbone: str
    config: Any
    rows_file: Path
    device: torch.device
    peaks: dict[str, float]  # operations a second, by precision
    workers: int  # of the stock Trainer; ours has none on a GPU
    rounds: int
    tiny: bool

    def run(self, task: str, graphs: bool, until: float) -> dict[str, Any]:
        """Every variant of a task at batch 16; one round, and more while there is time, each in the opposite order.

        Args:
            task: "training" or "prediction".
            graphs: whether captured steps are a variant.
            until: no further round that would end later (time.monotonic).
        """
        jobs = self._jobs(task, graphs)
        runs: dict[str, list[Any]] = {name: [] for name in jobs}
        failed: dict[str, str] = {}
        for turn in range(self.rounds):
            began = time.monotonic()
            for name in jobs if turn % 2 == 0 else reversed(jobs):
                if name in failed:
                    continue
                try:
                    runs[name].append(measured(jobs[name], self.device))
                except Exception:  # noqa: BLE001  # of every kind: the others' timings stand without it
                    failed[name] = traceback.format_exc()
                    say(f"{task}, round {turn + 1}: {name}: {failed[name]}")
                else:
                    rate = runs[name][-1]["rows"] / runs[name][-1]["seconds"]
                    say(f"{task}, round {turn + 1}: {name}: {rate:,.0f} rows/s")
            now = time.monotonic()
            if now + (now - began) > until:
                break
        found = {name: self._summary(jobs[name], some) for name, some in runs.items() if some}
        ratios = {
            f"{ours} / {stock}": found[ours]["rows_per_second"] / found[stock]["rows_per_second"]
            for ours in found
            for stock in found
            if ours.startswith("newslora") and stock.startswith("trainer")
        }
        return {"variants": found, "ratios": ratios} | ({"failed": failed} if failed else {})

    def _jobs(self, task: str, graphs: bool) -> dict[str, Job]:
        found = {}
        for name, batches in BATCHES[task].items():
            if name == CAPTURED and not graphs:
                continue
            warmup, steps = FEW if self.tiny else batches
            ours = name.startswith("newslora")
            job = Job(self.backbone, task, name.partition(",")[0], str(self.rows_file), 16, warmup, steps, self.workers)
            engine = "packed" if ours else job.engine
            found[name] = replace(job, device=str(self.device), engine=engine, graphs=name == CAPTURED)
        return found

    def _summary(self, job: Job, runs: list[Any]) -> dict[str, Any]:
        rates = [run["rows"] / run["seconds"] for run in runs]
        tokens = statistics.median(run["tokens"] / run["seconds"] for run in runs)
        cost = flops_per_token(self.config, runs[0]["tokens"] / runs[0]["rows"], job.task == "training")
        found = {
            "rows_per_second": statistics.median(rates), "rounds": rates, "tokens_per_second": tokens,
            "share_of_matmul_peak": tokens * cost / self.peaks[job.variant.rpartition("-")[2]], "runs": runs,
        }  # fmt: skip
        if self.device.type == "cuda":
            found["device_memory"] = statistics.median(run["device_memory"] for run in runs)
        return found


def measured(job: Job, device: torch.device) -> dict[str, Any]:
    """One measurement, its memory of the device above what was held before, and whether fp32 products were allowed TF32."""
    before = settled(device)
    found = measure(job)
    told = {name: found[name] for name in TOLD if name in found}
    if device.type == "cuda":
        told |= {"device_memory": found["device_memory_peak"] - before, "device_memory_before": before}
    return told | {"tf32_allowed": torch.get_float32_matmul_precision() != "highest"}


def settled(device: torch.device) -> int:
    """Bytes of the device still held once cycles, cached blocks and cuBLAS's workspaces of earlier runs are gone."""
    gc.collect()
    if device.type != "cuda":
        return 0
    getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(device)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
