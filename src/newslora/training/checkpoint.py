"""What resuming needs, committed so that a torn write is always noticed.

    checkpoints/step-00000120/
        tensors.safetensors   trainable parameters and AdamW's two moments
        state.json            loop state
        commit.json           SHA-256 of both; written last, before the folder gets its name

A folder without its commit, or whose hashes differ, does not count; the newest whole one does.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newslora import files
from newslora.errors import RunError
from newslora.model.classifier import trainable_parameters

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

FORMAT = 1
TENSORS, STATE, COMMIT = "tensors.safetensors", "state.json", "commit.json"
KEPT = 2  # newest checkpoints kept beside the best: one to resume from, one in case it is torn
_NAME = re.compile(r"step-(\d{8})")


@dataclass(slots=True)
class LoopState:
    """Everything the loop knows that is not a tensor. Floats survive JSON exactly (repr round trip)."""

    step: int = 0  # optimiser steps done
    epoch: int = 0  # epochs done, validation included
    loss_sum: float = 0.0  # training loss summed over rows since the epoch began
    loss_rows: int = 0
    logged_sum: float = 0.0  # the same since the last logged line
    logged_rows: int = 0
    best_value: list[float] | None = None  # the choosing metric, then minus the loss
    best_step: int | None = None
    best_epoch: int | None = None
    stale_epochs: int = 0  # epochs since the best
    seconds: float = 0.0  # training time of all sittings
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry an epoch
    scaler: dict[str, Any] | None = None  # loss scaling of fp16


def save_checkpoint(folder: Path, state: LoopState, model: "PeftModel", optimizer: "torch.optim.Optimizer") -> Path:
    """Commit a checkpoint of this step and drop those no longer needed.

    Raises:
        StorageError: the disk refuses; earlier checkpoints are untouched.
    """
    from safetensors.torch import save_file

    final = folder / f"step-{state.step:08d}"
    with files.disk_errors(final):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
        try:
            save_file(_tensors(model, optimizer), temporary / TENSORS)
            (temporary / STATE).write_text(json.dumps(asdict(state)), encoding="utf-8")
            hashes = {name: files.sha256_file(temporary / name) for name in (TENSORS, STATE)}
            (temporary / COMMIT).write_text(json.dumps({"format": FORMAT, **hashes}), encoding="utf-8")
            for name in (TENSORS, STATE, COMMIT):
                files.flush_to_disk(temporary / name)
            files.flush_to_disk(temporary)
            if final.exists():
                shutil.rmtree(final)
            os.rename(temporary, final)
            files.flush_to_disk(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _prune(folder, state.best_step)
    return final


def load_newest(
    folder: Path, model: "PeftModel", optimizer: "torch.optim.Optimizer"
) -> tuple[LoopState | None, list[Path]]:
    """Load the newest whole checkpoint into model and optimiser.

    Returns:
        Its state (None when there is none) and the damaged checkpoints passed over.

    Raises:
        RunError: it is whole, and of another newslora.
    """
    damaged: list[Path] = []
    for path in _newest_first(folder):
        state = _whole_state(path)
        if state is not None:
            _restore(path, model, optimizer)
            return state, damaged
        damaged.append(path)
    return None, damaged


def is_saved(folder: Path) -> bool:
    """Whether there is a whole checkpoint to continue from."""
    return any(_whole_state(path) is not None for path in _newest_first(folder))


def load_parameters(folder: Path, step: int, model: "PeftModel") -> bool:
    """Put the trainable parameters of one step into the model; False if that checkpoint is missing or damaged."""
    path = folder / f"step-{step:08d}"
    if _whole_state(path) is None:
        return False
    _restore(path, model, None)
    return True


def _tensors(model: "PeftModel", optimizer: "torch.optim.Optimizer") -> dict[str, "torch.Tensor"]:
    tensors = {}
    for name, parameter in trainable_parameters(model):
        tensors[f"parameter.{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{key}.{name}"] = value.detach().cpu().contiguous()
    return tensors


def _restore(path: Path, model: "PeftModel", optimizer: "torch.optim.Optimizer | None") -> None:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path / TENSORS)
    if missing := [name for name, _ in trainable_parameters(model) if f"parameter.{name}" not in tensors]:
        raise _of_another_newslora(path, f"does not hold '{missing[0]}', which this one trains")
    with torch.no_grad():
        for name, parameter in trainable_parameters(model):
            parameter.copy_(tensors[f"parameter.{name}"])
            if optimizer is None:
                continue
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if (value := tensors.get(f"adam.{key}.{name}")) is not None:
                    # the fused AdamW keeps its step count beside the parameter too
                    optimizer.state[parameter][key] = value.to(parameter.device)


def _whole_state(path: Path) -> LoopState | None:
    """The state of a checkpoint whose files are exactly those committed; None otherwise.

    Raises:
        RunError: they are, and another newslora wrote them.
    """
    try:
        hashes = files.read_json(path / COMMIT)
        if any(files.sha256_file(path / name) != hashes[name] for name in (TENSORS, STATE)):
            return None
        state = files.read_json(path / STATE)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if (found := hashes.get("format", FORMAT)) != FORMAT:
        raise _of_another_newslora(path, f"has format {found}, and this one reads {FORMAT}")
    known = {one.name for one in fields(LoopState)}
    if strange := [name for name in state if name not in known]:
        raise _of_another_newslora(path, f"tells '{strange[0]}', which this one does not know")
    if not isinstance(state.get("best_value"), list | None):  # the first ones kept one number
        raise _of_another_newslora(path, "tells its best epoch in another way than this one")
    return LoopState(**state)


def _of_another_newslora(path: Path, how: str) -> RunError:
    return RunError(
        f"The checkpoint {path} was written by another newslora: it {how}. Go on with the newslora that began the run, or "
        "train anew in another folder."
    )


def _newest_first(folder: Path) -> Iterator[Path]:
    named = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return iter(sorted(named, reverse=True))


def _prune(folder: Path, best_step: int | None) -> None:
    for place, path in enumerate(_newest_first(folder)):
        if place >= KEPT and path.name != f"step-{best_step or -1:08d}":
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".writing-*"):  # left by a killed process; the run's lock is ours
        shutil.rmtree(path, ignore_errors=True)
