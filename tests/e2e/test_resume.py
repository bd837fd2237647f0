"""A run that is stopped, killed or torn continues to the bytes of one that never was."""

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from children import PATIENCE, start, start_command
from newslora.errors import InterruptedRun, RunError, SettingsError
from newslora.files import sha256_file
from newslora.runfolder import RunFolder

KILLS = int(os.environ.get("NEWSLORA_KILLS", "8"))  # docs/log.md: 25
STEPS = 24  # 32 rows, batch 4, 3 epochs


class Killer:
    """Watches a run and kills its own process, as `kill -9` would, after `steps` steps of this sitting."""

    def __init__(self, steps: int | None) -> None:
        self.left = steps

    def step(self, rows: int, loss: float) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def start(self, total_steps: int, done_steps: int) -> None:
        assert total_steps == STEPS

    def epoch(self, entry: dict[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def stop(self) -> None: ...


def sitting(run: str, changes: dict[str, Any] | None, kill_step: int | None, kill_flush: int | None) -> None:
    """In a child: begin a run (`changes` given) or resume it; die at a step, or at the n-th flush to disk (in a save)."""
    import torch

    from newslora import files, pipeline
    from newslora.training import checkpoint

    torch.set_num_threads(1)
    if kill_flush is not None:
        flush, count = files.flush_to_disk, iter(range(kill_flush + 1))

        def flush_or_die(path: Path) -> None:
            if next(count, None) == kill_flush:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(path)

        checkpoint.files.flush_to_disk = flush_or_die
    if changes is None:
        pipeline.resume(run, watcher=Killer(kill_step), report=False)
    else:
        pipeline.train("seed", output=run, watcher=Killer(kill_step), report=False, **changes)


def sit(run: Path, changes: dict[str, Any] | None, kill_step: int | None = None, kill_flush: int | None = None) -> int:
    child = start(sitting, str(run), changes, kill_step, kill_flush)
    child.join(PATIENCE)
    assert child.exitcode is not None, "the sitting hangs"
    return child.exitcode


def adapter(run: Path) -> str:
    assert RunFolder.open(run).complete
    return sha256_file(run / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Any]:
    """Settings of a small run with every dropout on, two checkpoints an epoch."""
    import json

    news = tmp_path_factory.mktemp("resume") / "news.jsonl"
    words = ["minister", "border", "treaty", "army", "peace", "striker", "club", "cup", "final", "record", "games"]
    rng = random.Random(7)
    rows = [{"text": " ".join(rng.sample(words, 6)), "label": "ab"[place % 2]} for place in range(40)]
    news.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "data__source": str(news), "data__validation_rows": 8, "data__workers": 0, "model__backbone": str(tiny_bert),
        "train__epochs": 3, "train__batch_size": 4, "train__warmup_steps": 4, "train__learning_rate": 5e-3,
        "train__log_every_steps": 3, "train__save_every_steps": 5, "train__precision": "fp32",
    }  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    assert sit(run, changes) == 0
    return run


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    unbroken: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    assert sit(tmp_path / "same", changes) == 0
    assert sit(tmp_path / "other", changes | {"train__seed": 1}) == 0
    assert adapter(tmp_path / "same") == adapter(unbroken)
    assert adapter(tmp_path / "other") != adapter(unbroken)


def test_killed_at_any_step_or_inside_a_save_it_ends_with_the_same_bytes(
    unbroken: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Half the kills after random steps, half at random flushes, most of which lie inside a checkpoint's save."""
    rng = random.Random(20261124)
    deaths: list[dict[str, int]] = [{"kill_step": rng.randrange(STEPS)} for _ in range(KILLS // 2)]
    deaths += [{"kill_flush": rng.randrange(2, 45)} for _ in range(KILLS - KILLS // 2)]
    rng.shuffle(deaths)
    runs = killed = 0
    while deaths:
        run = tmp_path / f"run{runs}"
        runs += 1
        death = deaths.pop()
        code = sit(run, changes, **death)
        if code == 0:  # the flush number lay beyond the run's last
            continue
        assert code == -signal.SIGKILL
        killed += 1
        # one run in three dies again while resuming
        if deaths and killed % 3 == 0 and (run / "recipe.toml").exists():
            again = sit(run, None, **deaths.pop())
            assert again in (0, -signal.SIGKILL)
            killed += again != 0
        if not (run / "recipe.toml").exists():  # killed before the run began to exist: there is nothing to resume
            continue
        assert sit(run, None) == 0
        assert adapter(run) == adapter(unbroken)
        shutil.rmtree(run)
    assert killed >= 0.8 * KILLS


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "no commit"])
def test_a_torn_newest_checkpoint_is_passed_over(
    damage: str, unbroken: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert sit(run, changes, kill_step=18) == -signal.SIGKILL
    newest = max((run / "checkpoints").glob("step-*"))
    assert newest.name == "step-00000016"
    tensors = newest / "tensors.safetensors"
    if damage == "truncate":
        os.truncate(tensors, tensors.stat().st_size // 2)
    elif damage == "flip":
        content = bytearray(tensors.read_bytes())
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    else:
        (newest / ("state.json" if damage == "remove" else "commit.json")).unlink()
    assert sit(run, None) == 0
    assert adapter(run) == adapter(unbroken)


def test_metrics_have_each_step_once_after_resuming(unbroken: Path, changes: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert sit(run, changes, kill_step=13) == -signal.SIGKILL
    assert sit(run, None) == 0

    def numbers(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if k not in ("time", "seconds")} for line in RunFolder(folder).metrics()]

    assert len(numbers(unbroken)) == STEPS // 3 + 3
    assert numbers(run) == numbers(unbroken)


def test_rows_of_several_windows_resume_to_the_same_bytes(changes: dict[str, Any], tmp_path: Path) -> None:
    import json

    news = tmp_path / "long.jsonl"
    rows = [json.loads(line) for line in Path(changes["data__source"]).read_text().splitlines()]
    # one to four windows a row
    long = [row | {"text": " ".join([row["text"]] * (1 + place % 3))} for place, row in enumerate(rows)]
    news.write_text("".join(json.dumps(row) + "\n" for row in long))
    windows = {"data__max_length": 8, "data__long_texts": "windows", "data__window_overlap": 2}
    windowed = changes | windows | {"data__source": str(news)}
    assert sit(tmp_path / "whole", windowed) == 0
    assert sit(tmp_path / "broken", windowed, kill_step=13) == -signal.SIGKILL  # 8 steps an epoch, saved at the 10th
    assert sit(tmp_path / "broken", None) == 0
    assert adapter(tmp_path / "broken") == adapter(tmp_path / "whole")
    assert RunFolder(tmp_path / "whole").data()["tokens"]["train"] > 32 * 8  # more than one window a row


def test_changed_data_is_noticed(changes: dict[str, Any], tmp_path: Path) -> None:
    from newslora.pipeline import resume

    news = tmp_path / "news.jsonl"
    shutil.copy(changes["data__source"], news)
    run = tmp_path / "run"
    assert sit(run, changes | {"data__source": str(news)}, kill_step=9) == -signal.SIGKILL
    news.write_text(news.read_text().replace("treaty", "pact"))
    with pytest.raises(RunError, match="has changed since the run began"):
        resume(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, changes: dict[str, Any], tmp_path: Path) -> None:
    """In the middle of an epoch."""
    run = tmp_path / "run"
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    # many epochs, so that the signal surely comes before the end
    settings |= {"train.epochs": 2000, "train.save_every_steps": 1_000_000}
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    child = start_command(["train", "seed", "-o", str(run), *flags], tmp_path / "errors")
    metrics = RunFolder(run)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and len(metrics.metrics()) < 4:
        time.sleep(0.05)
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == 128 + number
    stderr = (tmp_path / "errors").read_text()
    assert f"newslora train --resume {run}" in stderr.replace("\n", " ")
    assert "Traceback" not in stderr
    assert max((run / "checkpoints").glob("step-*")).is_dir()


def test_a_watcher_is_looked_at_first_and_its_failure_blocks_no_folder(changes: dict[str, Any], tmp_path: Path) -> None:
    from newslora import pipeline
    from newslora.training.watch import Silent

    class Half:
        def start(self, total_steps: int, done_steps: int) -> None: ...
        def step(self, rows: int, loss: float) -> None: ...
        def epoch(self, entry: dict[str, Any]) -> None: ...
        def note(self, text: str) -> None: ...

    class Deaf(Silent):
        def note(self, text: str) -> None:
            raise ValueError("mine")

    class Lame(Silent):
        def step(self, rows: int, loss: float) -> None:
            raise ValueError("mine")

    with pytest.raises(
        SettingsError, match=r"Half object at .* has no 'warn'\. newslora\.training\.watch\.Watcher tells"
    ):
        pipeline.train("seed", output=tmp_path / "run", watcher=Half(), **changes)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    for watcher in (Deaf(), Deaf(), Lame(), Lame()):  # given again, corrected or not, the same folder is free
        with pytest.raises(ValueError, match="mine"):
            pipeline.train("seed", output=tmp_path / "run", watcher=watcher, report=False, **changes)
        assert not (tmp_path / "run").exists()


def test_stopped_before_the_first_step_it_says_how_to_go_on_and_does(
    unbroken: Path, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from newslora import pipeline

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "build_classifier", interrupted)
        with pytest.raises(InterruptedRun, match=f"newslora train --resume {run}") as stopped:
            pipeline.train("seed", output=run, report=False, **changes)
    assert stopped.value.exit_code == 130
    assert not isinstance(stopped.value, Exception)  # a loop over many runs must not take it for one that failed
    assert sit(run, None) == 0
    assert adapter(run) == adapter(unbroken)
