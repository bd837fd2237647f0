"""What a recipe will do, before it does it: parameters, steps, tokens and time, without downloading weights."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from newslora.config import Recipe, TrainSettings
from newslora.data.batches import Rows, epoch_batches
from newslora.data.splits import load_splits
from newslora.data.tokens import TokenTable, tokenize
from newslora.errors import NewsloraError
from newslora.model.backbones import Backbone, resolve_backbone
from newslora.model.classifier import Counts, count_parameters, empty_classifier, length_limit, random_classifier
from newslora.model.engine import engine_name, make_engine
from newslora.runtime import Precision, cache_folder, pick_device, resolve_precision
from newslora.training.loop import steps_per_epoch
from newslora.training.step import Stepper

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

TIMED_STEPS = 3  # after one that warms up
BATCHES_SEEN = 10_000  # whose padding is counted


@dataclass(frozen=True, slots=True)
class Published:
    """Sizes of a hub data set, so that planning it needs no download."""

    train_rows: int
    labels: tuple[str, ...]
    tokens_per_row: float  # mean, RoBERTa's tokenizer
    padded_per_row: float  # mean length of the longest row of 16


# Rows and labels: Zhang, Zhao & LeCun 2015. Tokens: measured on 85,722 of the rows, see docs/results.md.
PUBLISHED = {
    "fancyzhx/ag_news": Published(120_000, ("World", "Sports", "Business", "Sci/Tech"), 52.5, 95.8),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer of `newslora train --dry-run`."""

    counts: Counts | None  # None: the architecture is not known without a network
    train_rows: int
    validation_rows: int | None
    steps: int
    tokens: int | None  # of all epochs, padding not counted
    seconds_per_step: float | None
    precision: Precision
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Estimated training time, evaluation not counted."""
        return None if self.seconds_per_step is None else self.steps * self.seconds_per_step


def make_plan(recipe: Recipe, device: str | None = None) -> Plan:
    """Plan a recipe. Hub names whose sizes are known are not contacted; others are read as training would.

    Raises:
        NewsloraError: data or backbone that training could not use either.
    """
    notes: list[str] = []
    target = pick_device(device)
    precision = resolve_precision(recipe.train.precision, target)
    backbone = resolve_backbone(recipe.model.backbone, recipe.model.revision)
    config = backbone.architecture()
    limit = recipe.data.max_length if config is None else length_limit(config, recipe.data.max_length)
    published = PUBLISHED.get(recipe.data.source)
    tokens: int | None
    length: tuple[float, float] | None  # tokens a row takes in a batch, padded and packed
    if published is not None:
        labels = published.labels
        validation_rows = recipe.data.validation_rows if recipe.data.validation is None else None
        rows = published.train_rows - (validation_rows or 0)
        rows = min(rows, recipe.data.train_rows or rows)
        tokens = round(rows * published.tokens_per_row) * recipe.train.epochs
        length = published.padded_per_row, published.tokens_per_row
        notes.append(f"{recipe.data.source} as published: {published.train_rows:,} train rows; nothing was downloaded.")
    else:
        splits = load_splits(recipe.data, recipe.train.seed)
        labels, rows, validation_rows = splits.labels.names, len(splits.train), len(splits.validation)
        table = _token_table(backbone, splits.train.texts, limit, notes)
        tokens = None if table is None else int(table.offsets[-1]) * recipe.train.epochs
        length = None if table is None else (_padded_per_row(table, recipe.train), int(table.offsets[-1]) / rows)
    counts = seconds = None
    if config is None:
        notes.append(f"The architecture of '{backbone.name}' is not known here without its config.json from the hub.")
    else:
        counts = count_parameters(empty_classifier(config, labels, recipe.lora))
        engine = engine_name(config, recipe.train.engine_setting, precision, target)
        if length is not None:
            tokens_a_row = round(length[engine == "packed"])
            seconds = _time_step(recipe, config, labels, tokens_a_row, precision, target)
            notes.append(
                f"Time: {TIMED_STEPS} steps of {tokens_a_row} tokens a row on the {engine} engine, measured here with random "
                "weights."
            )
    steps = steps_per_epoch(rows, recipe.train) * recipe.train.epochs
    return Plan(counts, rows, validation_rows, steps, tokens, seconds, precision, tuple(notes))


def _token_table(backbone: Backbone, texts: Sequence[str], limit: int, notes: list[str]) -> TokenTable | None:
    try:
        return tokenize(backbone.tokenizer(), texts, limit, cache_folder())
    except NewsloraError:
        notes.append(f"Tokens and time need the tokenizer of '{backbone.name}', which is not on this disk.")
        return None


def _padded_per_row(table: TokenTable, settings: TrainSettings) -> float:
    """Mean tokens a row takes in a batch, padding counted; of some batches where there are very many."""
    rows = Rows(table, np.zeros(0, dtype=np.int64), 0)
    plan = epoch_batches(rows.lengths, settings.batch_size, settings.seed, 0, settings.group_by_length)
    seen = range(0, len(plan), -(-len(plan) // BATCHES_SEEN))
    return float(np.mean([rows.lengths[plan[place]].max() for place in seen]))


def _time_step(
    recipe: Recipe,
    config: "PretrainedConfig",
    labels: tuple[str, ...],
    length: int,
    precision: Precision,
    device: "torch.device",
) -> float:
    """Median seconds of an optimiser step on rows of `length` tokens, with random weights."""
    s = recipe.train
    model = random_classifier(config, labels, recipe.lora).to(device)
    engine = make_engine(model, s.engine_setting, precision, trains=True, release=True)
    stepper = Stepper(engine, s, precision, total_steps=TIMED_STEPS + 1)
    ids = np.full(s.batch_size * length, 5, dtype=np.int32)  # any token id; its value costs nothing
    table = TokenTable(ids, np.arange(s.batch_size + 1, dtype=np.int64) * length)
    batch = engine.collate(Rows(table, np.zeros(s.batch_size, dtype=np.int64), 0), range(s.batch_size))
    times = []
    for step in range(TIMED_STEPS + 1):
        began = time.perf_counter()
        stepper([batch] * s.accumulation_steps, step)
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))
