"""The loop around the steps: rows of each epoch, the epoch that is kept, when it ends, and what it says of the losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig

from newslora.config import LoraSettings, TrainSettings
from newslora.data.batches import Rows, epoch_batches
from newslora.data.tokens import TokenTable
from newslora.model.classifier import random_classifier, trainable_parameters
from newslora.runfolder import RunFolder
from newslora.runtime import Precision
from newslora.training import loop
from newslora.training.loop import ORDER_SEED, FitResult, _mixed, fit
from newslora.training.watch import Silent

ROWS, BATCH = 11, 4  # the last batch is smaller
Scores = list[tuple[float, float]]  # accuracy and loss of each epoch


class Losses(Silent):
    """Keeps rows and mean loss of each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def step(self, rows: int, loss: float) -> None:
        self.seen.append((rows, loss))


class Trained:
    """A tiny classifier trained over epochs that are judged as a test says, and what was seen on the way."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, scores: Scores, **settings: Any) -> None:
        generator = np.random.default_rng(0)
        tokens = TokenTable.of([generator.integers(5, 40, 3 + row).astype(np.int32) for row in range(ROWS)])
        self.rows = Rows(tokens, generator.integers(0, 2, ROWS), pad_id=0)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
        self.model = random_classifier(config, "ab", LoraSettings(rank=1))
        self.at_epochs: list[dict[str, torch.Tensor]] = []
        self.batches: list[list[list[int]]] = []  # rows of each batch of each epoch
        self.losses = Losses()
        load, left = loop.load_batches, iter(scores)

        def seen(rows: Rows, plan: Any, *more: Any, **named: Any) -> Any:
            self.batches.append([list(map(int, batch)) for batch in plan])
            return load(rows, plan, *more, **named)

        def judged(*_: Any) -> dict[str, Any]:
            self.at_epochs.append(self.parameters())
            accuracy, loss = next(left)
            return {"accuracy": accuracy, "loss": loss, "macro_f1": 1 - accuracy}

        monkeypatch.setattr(loop, "load_batches", seen)
        monkeypatch.setattr(loop, "validation_metrics", judged)
        monkeypatch.setattr(loop, "frequency_loss", lambda *_: 10.0)
        self.settings = TrainSettings(
            epochs=len(scores), batch_size=BATCH, warmup_steps=0, learning_rate=1e-2, **settings
        )
        self.result: FitResult = fit(
            self.model,
            self.rows,
            self.rows,
            self.settings,
            Precision("fp32", "test"),
            RunFolder(folder),
            0,
            self.losses,
        )

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in trainable_parameters(self.model)}


Train = Callable[..., Trained]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    return lambda scores, **settings: Trained(tmp_path / "run", monkeypatch, scores, **settings)


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(train: Train) -> None:
    trained = train([(0.5, 1.0)] * 3)
    for epoch, found in enumerate(trained.batches):
        assert sorted(row for batch in found for row in batch) == list(range(ROWS))
        seed = _mixed(trained.settings.seed, ORDER_SEED)
        wanted = epoch_batches(trained.rows.lengths, BATCH, seed, epoch)
        assert found == [list(map(int, batch)) for batch in wanted]
    assert len({str(found) for found in trained.batches}) == 3


def test_an_epochs_training_loss_is_the_mean_over_its_rows(train: Train) -> None:
    trained = train([(0.5, 1.0)] * 2)
    steps = -(-ROWS // BATCH)
    assert [rows for rows, _ in trained.losses.seen] == [4, 4, 3] * 2
    for epoch, entry in enumerate(trained.result.history):
        own = trained.losses.seen[epoch * steps : (epoch + 1) * steps]
        assert entry["train_loss"] == pytest.approx(sum(rows * loss for rows, loss in own) / ROWS)


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        ("accuracy", [(0.5, 1.0), (0.9, 1.1), (0.8, 0.9)], 2),
        ("accuracy", [(0.5, 1.0), (0.7, 0.9), (0.7, 0.8)], 3),  # as accurate, and surer
        ("accuracy", [(0.7, 0.8), (0.7, 0.9), (0.6, 0.1)], 1),
        ("accuracy", [(0.5, 1.0), (0.7, 0.8), (0.7, 0.8)], 2),  # no better in anything: the earlier stays
        ("macro_f1", [(0.9, 1.0), (0.2, 1.0), (0.8, 1.0)], 2),
        ("loss", [(0.9, 1.0), (0.1, 0.5), (0.9, 0.7)], 2),
    ],
)
def test_the_best_epoch_is_kept(metric: str, scores: Scores, best: int, train: Train) -> None:
    trained = train(scores, best_metric=metric)
    assert (trained.result.best_epoch, trained.result.steps) == (best, 9)
    kept = trained.parameters()
    for epoch, parameters in enumerate(trained.at_epochs, 1):
        same = all(torch.equal(kept[name], value) for name, value in parameters.items())
        assert same == (epoch == best), epoch


def test_training_ends_after_so_many_epochs_without_a_better_one(train: Train) -> None:
    trained = train([(0.5, 1.0), (0.6, 1.0), (0.6, 1.0), (0.5, 1.0), (0.9, 1.0)], early_stopping_epochs=2)
    assert [entry["epoch"] for entry in trained.result.history] == [1, 2, 3, 4]
    assert trained.result.best_epoch == 2


def test_a_better_epoch_begins_the_count_anew(train: Train) -> None:
    scores = [(0.5, 1.0), (0.4, 1.0), (0.6, 1.0), (0.5, 1.0), (0.7, 1.0), (0.6, 1.0)]
    assert len(train(scores, early_stopping_epochs=2).result.history) == len(scores)
