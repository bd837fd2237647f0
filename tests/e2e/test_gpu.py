"""A whole run on a GPU, where there is one; benchmarks/gpu.py on a CPU: it reaches its end, and keeps what it found before."""

import importlib
import io
import json
import runpy
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import RobertaConfig

import newslora
from children import PATIENCE, start
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.model.backbones import resolve_backbone
from newslora.model.packed.encoder import PackedEncoder
from newslora.model.packed.varlen import Call, RowByRow
from newslora.training.watch import Silent

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run_script(*words: str) -> None:
    sys.path.insert(0, str(BENCHMARKS))  # as `python benchmarks/gpu.py` has it
    sys.argv = ["gpu.py", *words]
    subprocess.run = partial(run_checks_here, subprocess.run)  # type: ignore[assignment]
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")


def run_checks_here(run: Any, command: list[str], **given: Any) -> Any:
    """`subprocess.run` whose checks run in this process, which has the imports."""
    if command[1:] != [str(BENCHMARKS / "gpu_checks.py")]:
        return run(command, **given)
    sys.stdin = io.StringIO(given["input"])
    runpy.run_path(command[1], run_name="__main__")
    return subprocess.CompletedProcess(command, 0)


def test_the_script_runs_to_its_end_on_a_small_encoder(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    child = start(run_script, "--device", "cpu", "--tiny", "-o", str(out))
    child.join(PATIENCE)
    assert child.exitcode == 0
    result = json.loads(out.read_text())
    assert "stopped" not in result
    assert result["checks_failed"] == {}
    assert "timings" not in result
    assert set(result["checks"]) == {"fp32", "bf16", "dropout", "graphs", "waits"}
    assert "none here" in result["checks"]["waits"]["left_out"]
    assert result["checks"]["bf16"]["attention"] == "one kernel for all rows"
    assert result["checks"]["graphs"]["captured"] > 0
    assert "/tmp" not in out.read_text()  # the file is to be committed
    for task in ("training", "prediction"):
        turns = result[f"{task}_by_turns"]
        rates = {name: one["rows_per_second"] for name, one in turns["variants"].items()}
        assert set(rates) == {"trainer-fp32", "trainer-bf16", "newslora-bf16"}
        for name, ratio in turns["ratios"].items():
            ours, stock = name.split(" / ")
            assert ratio == pytest.approx(rates[ours] / rates[stock])
        for one in turns["variants"].values():
            assert one["runs"][0]["tf32_allowed"] is False
            assert not any("memory" in name for name in one["runs"][0])  # no device, and the host's is everybody's
    for name, steps in (("seed", 125), ("fast", 35)):  # 400 rows, 5 epochs of 16 or 64
        recipe = result[name]
        assert recipe["steps_of_the_recipe"] == steps
        measured = recipe["steps_measured"] == steps
        assert recipe["all_steps_seconds_are"] == ("measured" if measured else "extrapolated from the steps measured")
        assert recipe["all_steps_seconds"] >= 0.9 * recipe["seconds_measured"]
        evaluation = recipe["evaluation"]
        assert evaluation["rows"] == 40
        beside = evaluation["first_seconds"] + 4 * evaluation["seconds"] + 5 * recipe["checkpoint_seconds"]
        assert recipe["whole_seconds"] == pytest.approx(recipe["all_steps_seconds"] + beside)
        assert "5 evaluations of 40 rows and 5 checkpoints" in recipe["whole_seconds_are"]
    assert result["environment"]["packages"]["torch"]


def module(name: str) -> Any:
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    return importlib.import_module(name)


def test_minilm_is_the_bundled_one() -> None:
    """Its architecture is written down, so that the script needs no package with its weights."""
    rows = module("gpu_rows")
    bundled = resolve_backbone("minilm").architecture()
    assert bundled is not None
    assert {name: getattr(bundled, name) for name in rows.MINILM} == rows.MINILM
    assert bundled.model_type == "bert"


def make_checks(kernel: Any) -> Any:
    config = RobertaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=1, initializer_range=0.1,  # attention then counts as much as in wider ones
    )  # fmt: skip
    lengths = np.random.default_rng(0).integers(3, 50, 64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.random.default_rng(1).integers(5, 60, int(offsets[-1])).astype(np.int32)
    rows = Rows(TokenTable(ids, offsets), np.arange(64) % 4, pad_id=1)
    checks = module("gpu_checks").Checks(config, rows, torch.device("cpu"), draws=8)
    checks.kernel = kernel
    return checks


class Fainter(RowByRow):
    """Wrong: it answers a fifth too little."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, call: Call) -> tuple[torch.Tensor, Any]:
        return super().forward(q, k, v * 0.8, call)


def test_a_wrong_kernel_is_found_before_anything_is_timed() -> None:
    make_checks(RowByRow()).bf16()
    with pytest.raises(Exception, match=r"bf16 (logits|gradient).*No timing would mean anything") as caught:
        make_checks(Fainter()).bf16()
    assert type(caught.value).__name__ == "CheckError"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("place", [0, 3])  # an order of comparisons may hide it at one place and not at another
def test_gradients_that_are_no_numbers_are_found(precision: str, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run_back = PackedEncoder.run_back

    def broken(self: PackedEncoder, *arguments: Any) -> Any:
        gradients = run_back(self, *arguments)
        found = gradients[place]
        assert found is not None
        found[0, 0] = float("nan")
        return gradients

    monkeypatch.setattr(PackedEncoder, "run_back", broken)
    with pytest.raises(Exception, match=f"not finite of the packed engine in {precision}: base_model.*lora_[AB]"):
        getattr(make_checks(RowByRow()), precision)()


def test_captured_parameters_that_are_no_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = make_checks(RowByRow())
    steps = checks._steps

    def broken(graphs: bool, notes: list[str]) -> Any:
        stepper = steps(graphs, notes)
        if graphs:
            with torch.no_grad():
                stepper.parameters[2][0, 0] = float("nan")
        return stepper

    monkeypatch.setattr(checks, "_steps", broken)
    with pytest.raises(Exception, match=r"not finite after captured steps: base_model\S+\. No timing"):
        checks.graphs()


def test_a_check_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And steps of which none was captured are no captured steps."""
    checks, told = make_checks(RowByRow()), []
    monkeypatch.setattr(module("gpu_checks"), "again_and_again", module("gpu_checks").never)
    monkeypatch.setattr(checks, "fp32", lambda: [][0])
    checks.all(told.append)
    assert told == ["fp32", "bf16", "dropout", "graphs", "waits"]
    assert set(checks.failed) == {"fp32", "graphs"}
    assert "IndexError" in checks.failed["fp32"]
    assert "no step was captured (CUDA graphs are not used here" in checks.failed["graphs"]
    assert checks.found["graphs"]["captured"] == 0


@pytest.fixture
def sync_mode(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The modes that torch was put in; it tells of nothing by itself, for there is no GPU."""
    modes: list[Any] = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    return modes


def test_steps_that_wait_are_found_with_the_place(sync_mode: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python is warned of it, and where only the mode that refuses tells, as inside flash attention."""
    words, python_hears = module("gpu_waits").WAITS, True
    checks, run = make_checks(RowByRow()), PackedEncoder.run
    stepper = checks._steps(False, [])
    assert checks._waits(stepper) == {}
    assert sync_mode == [0, "warn", "error", 0]

    def waiting(self: PackedEncoder, *arguments: Any, **more: Any) -> Any:
        if sync_mode[-1] == "warn" and python_hears:
            warnings.warn(f"{words} (Triggered internally)", stacklevel=1)
        if sync_mode[-1] == "error":
            raise RuntimeError(words)
        return run(self, *arguments, **more)

    monkeypatch.setattr(PackedEncoder, "run", waiting)
    ((place, times),) = checks._waits(stepper).items()
    assert place.startswith("encoder.py:")
    assert times == 6
    python_hears = False
    ((place, times),) = checks._waits(stepper).items()
    assert place.startswith("encoder.py:")
    assert times == 1
    assert sync_mode[-1] == 0


@pytest.mark.parametrize("failed", [{}, {"graphs": "no capture here"}])
def test_waits_are_looked_for_in_captured_steps_where_there_are_any(
    failed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = make_checks(RowByRow())
    checks.on_gpu, checks.failed = True, failed
    monkeypatch.setattr(checks, "_steps", lambda graphs, notes: graphs)
    monkeypatch.setattr(checks, "_waits", lambda graphs: {"graphs.py:1 in f: x.item()": 3} if graphs else {})
    if failed:
        checks.waits()
        assert checks.found["waits"] == {"plain": {}}
    else:
        with pytest.raises(Exception, match=r"wait for the device.*x\.item"):
            checks.waits()


@pytest.mark.parametrize(
    ("end", "why"), [("raise SystemExit(7)", "ended with code 7"), ("time.sleep(60)", "took more than 3 seconds")]
)
def test_checks_whose_process_ends_early_keep_what_they_found(
    end: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, script = module("gpu"), tmp_path / "checks.py"
    script.write_text(
        "import importlib.util, json, sys, time\n"
        "assert importlib.util.find_spec('gpu_waits'), 'what the script imports is not to be found'\n"
        "job = json.load(sys.stdin)\n"
        "open(job['out'], 'w').write(json.dumps({'found': {'fp32': {'logits': float('nan')}}, 'failed': {}}))\n" + end
    )
    monkeypatch.setattr(gpu, "CHECKS", script)
    found, failed = gpu.checked({"out": str(tmp_path / "out.json"), "names": ["fp32", "graphs"]}, 3)
    assert gpu.written(found) == {"fp32": {"logits": "nan"}}
    assert list(failed) == ["graphs"]
    assert failed["graphs"].startswith("not reached: the checks")
    assert why in failed["graphs"]


def test_whatever_happens_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, out = module("gpu"), tmp_path / "new" / "gpu.json"

    def run(chosen: Any, report: Any, folder: Path) -> None:
        report.found["seed"] = gpu.attempt(lambda until: [][0], 0.0)
        report.found["fast"] = {"milliseconds": float("inf")}
        report.save()
        assert json.loads(out.read_text())["fast"] == {"milliseconds": "inf"}
        raise MemoryError("no more")

    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "-o", str(out)])
    assert gpu.main() == 1
    result = json.loads(out.read_text())
    assert "IndexError" in result["seed"]["failed"]
    assert "MemoryError: no more" in result["stopped"]
    assert "seed: Traceback" in capsys.readouterr().err


def test_turns_go_on_without_what_fails_and_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_turns = module("gpu_turns")
    measured: list[str] = []

    def measure(job: Any) -> dict[str, Any]:
        measured.append(job.variant + " captured" * job.graphs)
        if job.graphs:
            raise RuntimeError("capture went wrong")
        return {"rows": 10, "seconds": 2.0 if job.variant == "trainer-bf16" else 1.0, "tokens": 100, "memory_peak": 1}

    monkeypatch.setattr(gpu_turns, "measure", measure)
    monkeypatch.setattr(gpu_turns, "flops_per_token", lambda *_, **__: 1.0)

    def turns(until: float) -> Any:
        measured.clear()
        peaks = {"fp32": 1.0, "bf16": 1.0}
        turns = gpu_turns.Turns("roberta-base", None, Path("rows"), torch.device("cpu"), peaks, 4, rounds=3, tiny=False)
        return turns.run("training", True, until)

    found = turns(until=float("inf"))
    assert found["ratios"] == {"newslora-bf16 / trainer-fp32": 1.0, "newslora-bf16 / trainer-bf16": 2.0}
    assert "capture went wrong" in found["failed"]["newslora-bf16, captured"]
    assert len(found["variants"]["newslora-bf16"]["rounds"]) == 3
    assert "memory_peak" not in found["variants"]["newslora-bf16"]["runs"][0]
    assert measured.count("newslora-bf16 captured") == 1
    turns(until=0.0)
    assert measured == ["trainer-fp32", "trainer-bf16", "newslora-bf16", "newslora-bf16 captured"]


def test_the_parts_share_the_whole_time() -> None:
    gpu = module("gpu")
    ends = gpu.deadlines(540)
    assert list(ends) == ["start", "checks", "seed", "fast", "training_by_turns", "prediction_by_turns"]
    assert list(ends.values()) == sorted(ends.values())
    assert ends["prediction_by_turns"] == pytest.approx(gpu.BEGAN + 540)
    least = np.diff(list(ends.values()))  # of each part but the first, even where all before it take all of theirs
    assert (least > gpu.LEAST_SECONDS).all()
    # what is to be reached on an H200, in seconds, fits
    assert ends["seed"] - ends["checks"] > 75
    assert ends["fast"] - ends["seed"] > 32


def test_memory_of_the_device_is_what_a_run_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above what is held before it, once whatever earlier runs left is collected and given back."""
    gpu_turns, steps = module("gpu_turns"), []
    monkeypatch.setattr(gpu_turns.gc, "collect", lambda: steps.append("collect"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: steps.append("empty"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: steps.append("look") or 70)
    monkeypatch.setattr(gpu_turns, "measure", lambda job: steps.append("run") or {"device_memory_peak": 100, "rows": 1})
    found = gpu_turns.measured(None, torch.device("cuda"))
    assert steps == ["collect", "empty", "look", "run"]
    assert found == {"rows": 1, "device_memory": 30, "device_memory_before": 70, "tf32_allowed": False}


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)
def test_a_packed_run_with_graphs_ends_with_the_same_bytes_twice(
    device: str, tiny_bert: Path, news_file: Path, tmp_path: Path
) -> None:
    """Heads of 16 numbers, so that flash attention takes them; on a CPU a note says that there are no graphs."""
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    def adapter(name: str) -> bytes:
        run = newslora.train(
            "seed", output=tmp_path / name, device=device, report=False, watcher=Notes(), model__backbone=str(tiny_bert),
            data__source=str(news_file), data__validation_rows=8, data__label_names=None, data__workers=0,
            train__epochs=3, train__batch_size=4, train__warmup_steps=2, train__learning_rate=1e-2,
            train__precision="bf16", train__engine="packed", train__cuda_graphs=True,
        )  # fmt: skip
        return (run.adapter / "adapter_model.safetensors").read_bytes()

    assert adapter("one") == adapter("two")
    assert any("graphs need a GPU" in note for note in notes) == (device == "cpu")
    assert not any("steps run one by one" in note for note in notes) or device == "cpu"
