"""A checkpoint gives back what was saved, to the bit; whatever was changed in it since makes it one that does not count."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from refusing_parts import files_end_at
from transformers import BertConfig

from newslora.config import LoraSettings, TrainSettings
from newslora.errors import RunError, StorageError
from newslora.files import sha256_file
from newslora.model.classifier import random_classifier, trainable_parameters
from newslora.training.checkpoint import (
    COMMIT,
    KEPT,
    STATE,
    TENSORS,
    LoopState,
    is_saved,
    load_newest,
    save_checkpoint,
)  # fmt: skip
from newslora.training.optimizer import make_optimizer

CONFIG = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)


def fresh(seed: int) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = random_classifier(CONFIG, "ab", LoraSettings(rank=1))
    return model, make_optimizer(model, TrainSettings(), torch.device("cpu"))


def stepped(model: Any, optimizer: torch.optim.Optimizer) -> None:
    for _, parameter in trainable_parameters(model):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def saved_twice(folder: Path) -> dict[int, dict[str, torch.Tensor]]:
    """Checkpoints of steps 1 and 2; all numbers of each."""
    model, optimizer = fresh(0)
    found = {}
    for step in (1, 2):
        stepped(model, optimizer)
        save_checkpoint(folder, LoopState(step=step, loss_sum=0.1 + step), model, optimizer)
        found[step] = numbers(model, optimizer)
    return found


def numbers(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in trainable_parameters(model):
        found[name] = parameter.detach().clone()
        found |= {f"{name} {key}": value.clone() for key, value in optimizer.state[parameter].items()}
    return found


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert {key.rpartition(" ")[2] for key in one if " " in key} == {"step", "exp_avg", "exp_avg_sq"}
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_parameters_and_moments_come_back_to_the_bit_and_so_goes_the_next_step(tmp_path: Path) -> None:
    saved = saved_twice(tmp_path)
    model, optimizer = fresh(1)
    state, damaged = load_newest(tmp_path, model, optimizer)
    assert (state, damaged) == (LoopState(step=2, loss_sum=2.1), [])
    assert_same(numbers(model, optimizer), saved[2])
    again, its_optimizer = fresh(2)
    load_newest(tmp_path, again, its_optimizer)
    for one in ((model, optimizer), (again, its_optimizer)):
        torch.manual_seed(3)
        stepped(*one)
    assert_same(numbers(model, optimizer), numbers(again, its_optimizer))


def one_digit(path: Path) -> None:
    text = (path / STATE).read_text()
    assert '"loss_sum": 2.1' in text
    (path / STATE).write_text(text.replace('"loss_sum": 2.1', '"loss_sum": 2.2'))


def one_byte(path: Path) -> None:
    data = bytearray((path / TENSORS).read_bytes())
    data[-1] ^= 1
    (path / TENSORS).write_bytes(data)


@pytest.mark.parametrize("harm", [one_digit, one_byte, lambda path: (path / COMMIT).unlink()])
def test_a_changed_checkpoint_gives_way_to_the_one_before(harm: Callable[[Path], None], tmp_path: Path) -> None:
    saved = saved_twice(tmp_path)
    newest = tmp_path / "step-00000002"
    harm(newest)
    model, optimizer = fresh(1)
    state, damaged = load_newest(tmp_path, model, optimizer)
    assert (state, damaged) == (LoopState(step=1, loss_sum=1.1), [newest])
    assert_same(numbers(model, optimizer), saved[1])


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    model, optimizer = fresh(0)
    for step in range(1, 7):
        save_checkpoint(tmp_path, LoopState(step=step, best_step=2 if step >= 2 else None), model, optimizer)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"step-{step:08d}" for step in (2, *range(7 - KEPT, 7))]


@pytest.mark.parametrize(
    ("state", "commit", "told"),
    [
        ({"momentum": 1}, {}, "tells 'momentum', which this one does not know"),
        ({"best_value": 0.9}, {}, "tells its best epoch in another way than this one"),
        ({}, {"format": 2}, "has format 2, and this one reads 1"),
    ],
)
def test_a_checkpoint_of_another_newslora_is_not_passed_over_as_damaged(
    state: dict[str, Any], commit: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "step-00000001"
    path.mkdir()
    (path / TENSORS).write_bytes(b"")
    (path / STATE).write_text(json.dumps(asdict(LoopState(step=1)) | state))
    hashes = {name: sha256_file(path / name) for name in (TENSORS, STATE)}
    (path / COMMIT).write_text(json.dumps(hashes | commit))
    way = "Go on with the newslora that began the run, or train anew in another folder"
    with pytest.raises(RunError, match=f"was written by another newslora: it {told}. {way}"):
        is_saved(tmp_path)
    assert path.exists()


def test_a_checkpoint_from_before_it_told_a_format_counts(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001"
    path.mkdir()
    (path / TENSORS).write_bytes(b"")
    (path / STATE).write_text(json.dumps({"step": 1, "best_value": [0.5, -0.7]}))
    (path / COMMIT).write_text(json.dumps({name: sha256_file(path / name) for name in (TENSORS, STATE)}))
    assert is_saved(tmp_path)


def test_a_disk_that_refuses_is_named_and_leaves_the_earlier_checkpoints(tmp_path: Path) -> None:
    saved = saved_twice(tmp_path)
    model, optimizer = fresh(1)
    with (
        files_end_at(1000),
        pytest.raises(StorageError, match=r"Cannot write .*step-00000003: File too large"),
    ):
        save_checkpoint(tmp_path, LoopState(step=3), model, optimizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    load_newest(tmp_path, model, optimizer)
    assert_same(numbers(model, optimizer), saved[2])
