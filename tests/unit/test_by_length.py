"""Batches of rows of like length, unasked, for an encoder without a packed form: in training, resumed, and in its plan."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, DebertaV2Config

import newslora
from newslora.config import LoraSettings, TrainSettings, load_recipe
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.errors import InterruptedRun
from newslora.model.classifier import random_classifier, trainable_parameters
from newslora.model.engine import engine_name
from newslora.plan import make_plan
from newslora.runfolder import RunFolder
from newslora.runtime import Precision
from newslora.training.loop import fit

FP32 = Precision("fp32", "test")
CONFIG = DebertaV2Config(
    vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=66, pad_token_id=0, type_vocab_size=0,
)  # fmt: skip


class Watcher:
    """Asks the run to stop at a step, as Ctrl-C does."""

    def __init__(self, stop_at: int | None) -> None:
        self.left = stop_at
        self.notes: list[str] = []

    def step(self, rows: int, loss: float) -> None:
        if self.left is not None:
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGINT)

    def start(self, total_steps: int, done_steps: int) -> None: ...
    def epoch(self, entry: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None: ...
    def stop(self) -> None: ...


def trained(folder: Path, group_by_length: bool | None, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """Parameters after two epochs of 11 batches."""
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(3, 50, 44))]).astype(np.int64)
    ids = generator.integers(5, 60, int(offsets[-1])).astype(np.int32)
    rows = Rows(TokenTable(ids, offsets), generator.integers(0, 2, 44), pad_id=0)
    torch.manual_seed(1)
    model = random_classifier(CONFIG, "ab", LoraSettings())
    settings = TrainSettings(
        epochs=2, batch_size=4, learning_rate=1e-3, warmup_steps=2, group_by_length=group_by_length
    )
    fit(model, rows, rows, settings, FP32, RunFolder(folder), 0, Watcher(stop_at))
    return {name: parameter.detach().clone() for name, parameter in trainable_parameters(model)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_it_trains_and_resumes_as_if_asked(tmp_path: Path) -> None:
    assert engine_name(CONFIG, "auto", FP32, torch.device("cpu")) == "padded"
    unasked = trained(tmp_path / "unasked", None)
    assert same(unasked, trained(tmp_path / "asked", True))
    assert not same(unasked, trained(tmp_path / "refused", False))
    with pytest.raises(InterruptedRun):
        trained(tmp_path / "stopped", None, stop_at=15)
    assert same(unasked, trained(tmp_path / "stopped", None))


@pytest.fixture
def deberta(tiny_bert: Path, tmp_path: Path) -> Path:
    """A backbone folder with the tiny BERT's tokenizer."""
    folder = tmp_path / "deberta"
    shutil.copytree(tiny_bert, folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    AutoModel.from_config(CONFIG).save_pretrained(folder)
    return folder


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, Any]:
    """Rows of eight lengths, 3 to 10 tokens."""
    words = ["minister", "border", "treaty", "army", "peace", "striker", "club", "cup"]
    news = tmp_path / "news.csv"
    news.write_text("text,label\n" + "".join(f"{' '.join(words[: 1 + i % 8])},{'ab'[i % 2]}\n" for i in range(160)))
    return {"data.source": str(news), "data.validation": str(news), "data.workers": 0, "train.epochs": 1}


def test_the_plan_tells_and_counts_the_padding_that_is_left(
    tiny_bert: Path, deberta: Path, changes: dict[str, Any]
) -> None:
    def notes(backbone: Path, **more: Any) -> str:
        return "\n".join(
            make_plan(load_recipe("seed", changes | {"model.backbone": str(backbone)} | more), "cpu").notes
        )

    told = "Batches of rows of like length: 'deberta-v2' has no packed form (train.group_by_length is unset)."
    unasked, refused = notes(deberta), notes(deberta, **{"train.group_by_length": False})
    assert told in unasked
    assert "like length" not in refused + notes(deberta, **{"train.group_by_length": True}) + notes(tiny_bert)
    assert "of 7 tokens a row on the padded engine" in unasked  # 6.5 on average
    assert "of 10 tokens a row on the padded engine" in refused


@pytest.mark.parametrize("family", ["deberta", "bert"])
def test_the_run_tells_what_the_setting_came_to(
    family: str, tiny_bert: Path, deberta: Path, changes: dict[str, Any], tmp_path: Path
) -> None:
    grouped = family == "deberta"
    watcher = Watcher(None)
    recipe = load_recipe("seed", changes | {"model.backbone": str(deberta if grouped else tiny_bert)})
    run = newslora.train(recipe, output=tmp_path / "run", watcher=watcher, device="cpu", report=False)
    assert any(note.endswith("engine, batches of rows of like length") for note in watcher.notes) == grouped
    assert run.manifest()["training"]["by_length"] is grouped
    assert run.recipe().train.group_by_length is None
