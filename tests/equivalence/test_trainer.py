"""The loop against the stock Trainer + PEFT: same rows, same order, dropout off; every loss and every weight."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from newslora.config import LoraSettings, TrainSettings
from newslora.data.batches import Rows, epoch_batches
from newslora.data.tokens import TokenTable
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import build_classifier, trainable_parameters
from newslora.runfolder import RunFolder
from newslora.runtime import Precision
from newslora.training.loop import ORDER_SEED, _mixed, fit
from newslora.training.watch import Silent

ROWS, BATCH, LABELS = 50, 8, ("a", "b", "c")  # 50 = 6 x 8 + 2: the last batch is smaller
LOSS_TOLERANCE = 1e-5  # fp32, same operations; the Trainer reports the loss rounded to four significant digits
WEIGHT_TOLERANCE = 2e-6  # after 7 AdamW steps of 1e-3: rounding only


class Losses(Silent):
    """Keeps the mean loss of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def step(self, rows: int, loss: float) -> None:
        self.seen.append(loss)


class InOurOrder(Trainer):
    """The stock Trainer, given our order of rows."""

    order: list[int]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.order

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        self.exact = [*getattr(self, "exact", []), logs.get("loss")]
        super().log(logs, *args, **kwargs)


@pytest.fixture
def backbone(tiny_bert: Path, tmp_path: Path) -> Path:
    """The tiny BERT without dropout."""
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def rows() -> Rows:
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(3, 20, (ROWS,), generator=generator)
    ids = torch.randint(4, 20, (int(lengths.sum()),), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    labels = torch.randint(0, 3, (ROWS,), generator=generator)
    return Rows(TokenTable(ids.int().numpy(), offsets.numpy()), labels.numpy(), pad_id=0)


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_one_epoch_is_the_stock_trainers(engine: Any, backbone: Path, rows: Rows, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=1, batch_size=BATCH, learning_rate=1e-3, warmup_steps=2, engine=engine)
    lora = LoraSettings(dropout=0.0)
    ours = build_classifier(resolve_backbone(str(backbone)), LABELS, lora, seed=9)
    stock = build_classifier(resolve_backbone(str(backbone)), LABELS, lora, seed=9)
    before = {name: parameter.detach().clone() for name, parameter in trainable_parameters(ours)}

    losses = Losses()
    fit(ours, rows, rows, settings, Precision("fp32", "test"), RunFolder(tmp_path / "run"), 0, losses)

    plan = epoch_batches(rows.tokens.lengths, BATCH, _mixed(settings.seed, ORDER_SEED), 0)
    arguments = TrainingArguments(
        str(tmp_path / "stock"), per_device_train_batch_size=BATCH,
        num_train_epochs=1, learning_rate=1e-3, weight_decay=0.01, warmup_steps=2, lr_scheduler_type="cosine",
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=1,
    )  # fmt: skip
    trainer = InOurOrder(
        stock, arguments,
        train_dataset=[{"row": row} for row in range(ROWS)],
        data_collator=lambda items: _collate(rows, [item["row"] for item in items]),
    )  # fmt: skip
    arguments.remove_unused_columns = False
    trainer.order = [row for batch in plan for row in batch]
    trainer.train()

    stock_losses = [loss for loss in trainer.exact if loss is not None]
    assert len(losses.seen) == len(stock_losses) == len(plan)
    assert losses.seen == pytest.approx(stock_losses, abs=LOSS_TOLERANCE)
    _assert_equal_and_moved(ours, stock, before)


def test_accumulated_micro_batches_are_one_large_batch(backbone: Path, rows: Rows, tmp_path: Path) -> None:
    """The mean is over the step's rows, also in the last step of 2 = 50 - 48 rows; a mean of means would differ there.

    The stock Trainer is no reference here: given a PEFT model, 5.23 sums where it should divide by the steps accumulated.
    """
    lora = LoraSettings(dropout=0.0)
    small = build_classifier(resolve_backbone(str(backbone)), LABELS, lora, seed=9)
    large = build_classifier(resolve_backbone(str(backbone)), LABELS, lora, seed=9)
    before = {name: parameter.detach().clone() for name, parameter in trainable_parameters(small)}
    seen = []
    for name, model, batch, accumulation in (("small", small, BATCH, 3), ("large", large, 3 * BATCH, 1)):
        settings = TrainSettings(
            epochs=1, batch_size=batch, accumulation_steps=accumulation, learning_rate=1e-3, warmup_steps=1
        )
        losses = Losses()
        fit(model, rows, rows, settings, Precision("fp32", "test"), RunFolder(tmp_path / name), 0, losses)
        seen.append(losses.seen)
    assert len(seen[0]) == 3
    assert seen[0] == pytest.approx(seen[1], abs=LOSS_TOLERANCE)
    _assert_equal_and_moved(small, large, before)


def _assert_equal_and_moved(ours: Any, stock: Any, before: dict[str, torch.Tensor]) -> None:
    moved = 0.0
    for (name, a), (_, b) in zip(trainable_parameters(ours), trainable_parameters(stock), strict=True):
        moved = max(moved, (a - before[name]).abs().max().item())
        difference = (a - b).abs().max().item()
        assert difference <= WEIGHT_TOLERANCE, f"{name} differs by {difference:.1e}"
    assert moved > 100 * WEIGHT_TOLERANCE


def _collate(rows: Rows, chosen: list[int]) -> dict[str, torch.Tensor]:
    batch = rows.batch(chosen)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}
