"""The benchmark measures both sides, says what on, and its arithmetic is right."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from children import in_child
from newslora.bench import worker
from newslora.bench.flops import flops_per_token
from newslora.bench.run import BenchSettings, measure_apart, run_bench
from newslora.bench.worker import VARIANTS, Job, measure
from newslora.cli.app import main
from newslora.errors import RunError, SettingsError
from newslora.model.backbones import resolve_backbone


def test_the_floor_of_roberta_base_is_the_published_one() -> None:
    """172 MFLOP a token forward and 346 with LoRA's backward (design.md, section 5), at AG News' 53 tokens a row."""
    config = resolve_backbone("roberta-base").architecture()
    assert flops_per_token(config, 53, training=False) == pytest.approx(172e6, rel=0.01)
    assert flops_per_token(config, 53, training=True) == pytest.approx(346e6, rel=0.01)


def run_in_child(run: Any, command: list[str], **given: Any) -> Any:
    """`subprocess.run` whose measurements are children that have the imports, which spares eight starts."""
    if command[1:] != ["-m", "newslora.bench.worker"]:
        return run(command, **given)
    return subprocess.CompletedProcess(command, 0, in_child(work, given["input"]), "")


def work(job: str) -> str:
    """The worker's standard output."""
    sys.stdin = io.StringIO(job)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        worker.main()
    return said.getvalue()


def test_bench_writes_one_json_with_both_sides(
    tiny_bert: Path,
    news_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "run", partial(run_in_child, subprocess.run))
    out = tmp_path / "result.json"
    words = ["bench", str(tiny_bert), "--data", str(news_file), "--batch-size", "4", "--warmup", "1", "--steps", "3"]
    assert main([*words, "--rounds", "2", "-o", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["variants"]) <= set(VARIANTS["training"])
    assert {"trainer-fp32", "newslora-fp32"} <= set(result["variants"])
    for variant in result["variants"].values():
        rate = variant["rows_per_second"]
        assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
        assert len(rate["rounds"]) == 2
        assert variant["memory_peak"] > 0
    rates = {name: variant["rows_per_second"]["median"] for name, variant in result["variants"].items()}
    for name, ratio in result["ratios"].items():
        if not name.startswith("memory"):
            a, b = name.split(" / ")
            assert ratio == pytest.approx(rates[a] / rates[b])
    assert result["rows"]["rows"] == 16
    assert result["rows"]["tokens_per_row"] <= result["rows"]["padded_per_row"]
    assert result["environment"]["packages"]["torch"]
    assert len(result["load_before_each"]) == 2 * len(result["variants"])
    assert str(out) in capsys.readouterr().out


def test_rows_of_one_length(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", partial(run_in_child, subprocess.run))
    asked = BenchSettings(str(tiny_bert), "prediction", "not read", 2, 1, 2, 1, None, tokens=11)
    result = run_bench(asked)
    assert {name: result["rows"][name] for name in ("rows", "tokens_per_row", "padded_per_row")} == {
        "rows": 6,
        "tokens_per_row": 11,
        "padded_per_row": 11,
    }
    for variant in result["variants"].values():
        seconds, rate = variant["seconds"][0], variant["tokens_per_second"]
        assert seconds * rate == pytest.approx(2 * 2 * 11)


@pytest.mark.parametrize("variant", ["trainer-fp32", "newslora-fp32", "newslora-int8"])
def test_both_sides_predict_the_same_rows(variant: str, tiny_bert: Path, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    ids = np.arange(60, dtype=np.int32) % 20 + 4
    offsets, labels = np.arange(0, 61, 6), np.arange(10) % 4
    rows_file = tmp_path / "rows.safetensors"
    save_file({"ids": ids, "offsets": offsets, "labels": labels, "pad_id": np.array([0])}, rows_file)
    result = measure(Job(str(tiny_bert), "prediction", variant, str(rows_file), 2, 1, 4))
    assert (result["rows"], result["tokens"]) == (8, 48)
    assert result["seconds"] > 0


def test_what_cannot_be_measured_is_refused(tiny_bert: Path, news_file: Path) -> None:
    def settings(task: str = "training", steps: int = 1) -> BenchSettings:
        return BenchSettings(str(tiny_bert), task, str(news_file), 4, 1, steps, 1, None)

    with pytest.raises(SettingsError, match=r"no task 'trainign'.*Did you mean 'training'"):
        run_bench(settings(task="trainign"))
    with pytest.raises(SettingsError, match="steps is 0"):
        run_bench(settings(steps=0))
    with pytest.raises(SettingsError, match=r"tokens is 600; the rows of .* have 1 to \d+\."):
        run_bench(replace(settings(), tokens=600))
    with pytest.raises(SettingsError, match=r"tokens is 0"):
        run_bench(replace(settings(), tokens=0))
    with pytest.raises(SettingsError, match=r"'minlm' is not known.*Did you mean 'minilm'"):
        run_bench(replace(settings(), backbone="minlm"))
    with pytest.raises(SettingsError, match=r"tokenizer '/nowhere' cannot be read: there is no such folder"):
        run_bench(replace(settings(), tokenizer="/nowhere"))
    with pytest.raises(RunError, match=r"(?s)measurement of trainer-fp32 failed.*nowhere"):
        measure_apart(Job(str(tiny_bert), "training", "trainer-fp32", "nowhere.safetensors", 4, 1, 1))


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="no /proc that names children")
def test_ctrl_c_ends_with_a_word_and_its_code(tiny_bert: Path, news_file: Path) -> None:
    """As a terminal sends it: to the command and to the measurement it has started."""
    words = ["bench", str(tiny_bert), "--data", str(news_file), "--steps", "100000", "--warmup", "1"]
    # whoever started the tests may have had SIGINT ignored, as shells do for what runs in the background
    listening = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{listening}; from newslora.cli.app import main; sys.exit(main())", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0) as bench:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _children(bench.pid):
            time.sleep(0.05)
        assert _children(bench.pid), "no measurement was started"
        os.killpg(bench.pid, signal.SIGINT)
        _, remarks = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert remarks == "newslora: Stopped.\n"


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()
