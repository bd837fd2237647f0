"""What the benchmark makes of its measurements, by hand; when its clocks run, by a clock of work done; and whose turn it is."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import Trainer

from newslora.bench import flops, run, worker
from newslora.bench.run import BenchSettings
from newslora.bench.worker import VARIANTS, Job
from newslora.model import inference
from newslora.runtime import Precision

ENCODER = SimpleNamespace(num_hidden_layers=1, hidden_size=2, intermediate_size=3)
FORWARD = 96  # its operations a token, at rows of 5 tokens: 2 (4 x 2 x 2 + 2 x 2 x 3 + 2 x 5 x 2)
PEAKS = {"fp32": 9_600.0, "bf16": 38_400.0}


def settings(task: str = "prediction", rounds: int = 3) -> BenchSettings:
    return BenchSettings("roberta-base", task, "not read", 2, 4, 6, rounds, None, tokens=5)


def measured(variant: str, seconds: float, memory: int = 300, before: int | None = 100) -> dict[str, Any]:
    """One measurement of ten rows, fifty tokens."""
    return {
        "job": {"variant": variant}, "rows": 10, "tokens": 50, "seconds": seconds, "memory_peak": memory,
        "memory_before": before, "engine": "packed",
    }  # fmt: skip


def test_a_variants_summary() -> None:
    rounds = [measured("newslora-fp32", 2, 300, 50), measured("newslora-fp32", 4, 100, None)]
    rounds.append(measured("newslora-fp32", 1, 200, 30))
    assert run._summary(rounds, ENCODER, settings(), PEAKS) == {
        "rows_per_second": {"median": 5, "lowest": 2.5, "highest": 10, "rounds": [5, 2.5, 10]},
        "tokens_per_second": 25,
        "share_of_matmul_peak": pytest.approx(25 * FORWARD / 9_600),
        "memory_peak": 200,
        "memory_before": 30,
        "seconds": [2, 4, 1],
        "engine": "packed",
    }


@pytest.mark.parametrize(
    ("variant", "task", "share"),
    [
        ("trainer-fp32", "prediction", 0.25),
        ("trainer-fp32", "training", 0.5),
        ("newslora-bf16", "training", 0.125),
        ("newslora-int8", "prediction", None),  # whose products are of another kind
    ],
)
def test_the_share_is_of_the_peak_in_the_sides_own_precision(variant: str, task: str, share: float | None) -> None:
    told = run._summary([measured(variant, 2)], ENCODER, settings(task), PEAKS)
    assert told["share_of_matmul_peak"] == (share if share is None else pytest.approx(share))


def test_ratios_are_ours_over_theirs() -> None:
    def summary(median: float, peak: int, before: int) -> dict[str, Any]:
        return {"rows_per_second": {"median": median}, "memory_peak": peak, "memory_before": before}

    table = {
        "trainer-fp32": summary(10, 500, 100), "trainer-bf16": summary(20, 300, 100),
        "newslora-fp32": summary(30, 250, 150), "newslora-int8": summary(40, 150, 100),
    }  # fmt: skip
    assert run._ratios(table) == {
        "newslora-fp32 / trainer-fp32": 3, "memory newslora-fp32 / trainer-fp32": 0.25,
        "newslora-fp32 / trainer-bf16": 1.5, "memory newslora-fp32 / trainer-bf16": 0.5,
        "newslora-int8 / trainer-fp32": 4, "memory newslora-int8 / trainer-fp32": 0.125,
        "newslora-int8 / trainer-bf16": 2, "memory newslora-int8 / trainer-bf16": 0.25,
    }  # fmt: skip


def test_the_peak_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = [4.0] * (flops.PEAK_ROUNDS - 2) + [0.5, 2.0]
    readings = iter([reading for seconds in spent for reading in (1.0, 1.0 + seconds)])
    monkeypatch.setattr(flops, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    assert flops.matmul_peak("fp32", size=4) == 2 * 4 * 4 * 4 / 0.5


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs `run_bench` gives out, on a chip that has all precisions; ours take one second, the Trainer's four."""
    given: list[Job] = []

    def measure(job: Job) -> dict[str, Any]:
        given.append(job)
        return measured(job.variant, 1 if job.variant.startswith("newslora") else 4)

    monkeypatch.setattr(run, "measure_apart", measure)
    monkeypatch.setattr(run, "matmul_peak", PEAKS.__getitem__)
    monkeypatch.setattr(run, "resolve_precision", lambda *asked: Precision("bf16", "for this test"))
    monkeypatch.setattr(run, "multiplies_bytes", lambda device: True)
    return given


@pytest.mark.parametrize("task", list(VARIANTS))
def test_sides_take_turns_and_each_round_begins_where_the_last_ended(task: str, jobs: list[Job]) -> None:
    said: list[str] = []
    result = run.run_bench(settings(task), said.append)
    forth = list(VARIANTS[task])
    assert [job.variant for job in jobs] == forth + forth[::-1] + forth
    assert len({job.rows_file for job in jobs}) == 1
    asked = {(job.backbone, job.task, job.batch_size, job.warmup_steps, job.steps) for job in jobs}
    assert asked == {("roberta-base", task, 2, 4, 6)}
    assert said[0] == "round 1: trainer-fp32 2.50 rows/s"
    assert said[-1] == f"round 3: {forth[-1]} 10.00 rows/s"
    for variant, told in result["variants"].items():
        rate = 10 if variant.startswith("newslora") else 2.5
        assert told["rows_per_second"]["rounds"] == [rate] * 3
    assert set(result["ratios"].values()) == {4, 1}  # rows/s; memory
    assert result["matmul_peak_flops"] == PEAKS


def test_what_the_chip_does_not_multiply_is_not_measured(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "resolve_precision", lambda *asked: Precision("fp32", "for this test"))
    monkeypatch.setattr(run, "multiplies_bytes", lambda device: False)
    result = run.run_bench(settings(rounds=1))
    assert [job.variant for job in jobs] == list(result["variants"]) == ["trainer-fp32", "newslora-fp32"]
    assert set(result["matmul_peak_flops"]) == {"fp32"}


LENGTHS = [3, 9, 4, 12, 6, 5, 8, 11, 7, 10]  # tokens


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    from safetensors.numpy import save_file

    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    ids = np.arange(offsets[-1], dtype=np.int32) % 20 + 4
    path = tmp_path / "rows.safetensors"
    save_file({"ids": ids, "offsets": offsets, "labels": np.arange(10) % 4, "pad_id": np.array([0])}, path)
    return path


@pytest.mark.parametrize("variant", ["trainer-fp32", "newslora-fp32"])
def test_the_training_clock_starts_after_warm_up(
    variant: str, tiny_bert: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on one second with each step of an optimiser, whose ever it is."""
    steps: list[Any] = []
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: 1000.0 + len(steps)))
    hook = register_optimizer_step_post_hook(lambda *given: steps.append(given))
    try:
        result = worker.measure(Job(str(tiny_bert), "training", variant, str(rows_file), 2, 2, 3))
    finally:
        hook.remove()
    assert len(steps) == 5
    assert (result["seconds"], result["rows"]) == (3, 6)


@pytest.mark.parametrize("variant", ["trainer-fp32", "newslora-fp32", "newslora-int8"])
def test_the_prediction_clock_starts_after_warm_up(
    variant: str, tiny_bert: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on one second with each token of rows that were predicted."""
    passes: list[int] = []
    ours, theirs = inference.predict_logits, Trainer.predict

    def predict_ours(engine: Any, rows: Any, **how: Any) -> Any:
        answers = ours(engine, rows, **how)
        passes.append(int(rows.tokens.lengths.sum()))
        return answers

    def predict_theirs(trainer: Any, rows: Sequence[int]) -> Any:
        answers = theirs(trainer, rows)
        passes.append(sum(LENGTHS[row] for row in rows))
        return answers

    monkeypatch.setattr(inference, "predict_logits", predict_ours)
    monkeypatch.setattr(Trainer, "predict", predict_theirs)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: 1000.0 + sum(passes)))
    result = worker.measure(Job(str(tiny_bert), "prediction", variant, str(rows_file), 2, 2, 3))
    assert len(passes) == 2
    assert sum(passes) == sum(LENGTHS)
    assert (result["seconds"], result["tokens"], result["rows"]) == (passes[1], passes[1], 6)
