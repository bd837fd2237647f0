"""What a recipe will do, before it does it: parameters, steps, tokens and time, without downloading weights."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from newslora.config import Recipe, TrainSettings
from newslora.data.batches import Rows, epoch_batches
from newslora.data.labels import labels_of_head, make_label_set
from newslora.data.remarks import remarks
from newslora.data.splits import load_splits
from newslora.data.tokens import TokenTable, tokenize
from newslora.errors import NewsloraError, near
from newslora.model.backbones import ARCHITECTURES, BUNDLED, Backbone, resolve_backbone
from newslora.model.classifier import Counts, count_parameters, empty_classifier, length_limit, random_classifier
from newslora.model.engine import engine_name, engine_to_try, groups_by_length, make_engine
from newslora.model.start import find_start
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


# Rows and labels: Zhang, Zhao & LeCun 2015. Tokens: measured on 85,722 of the rows, see docs/log.md.
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
    grouped = config is not None and groups_by_length(config, recipe.train.group_by_length)
    start = find_start(recipe, backbone)
    names = None if start is None else start.card.labels
    notes += [] if start is None else [start.told]
    published = PUBLISHED.get(recipe.data.source)
    if published is not None:
        found = _published_rows(recipe, published, limit, grouped, notes, names)
    else:
        found = _read_rows(recipe, backbone, limit, grouped, notes, names)
    counts = seconds = None
    if config is None:
        hint = near(backbone.name, (*BUNDLED, *ARCHITECTURES))
        notes.append(
            f"The architecture of '{backbone.name}' is not known here without its config.json from the hub.{hint}"
        )
    else:
        counts = count_parameters(empty_classifier(config, found.labels, recipe.lora))
        engine = engine_name(config, recipe.train.engine_setting, precision, target)
        if (other := engine_to_try(config, recipe.train.engine_setting, precision, target)) is not None:
            notes.append(other)
        if grouped and recipe.train.group_by_length is None:
            notes.append(
                f"Batches of rows of like length: '{config.model_type}' has no packed form (train.group_by_length is unset)."
            )
        if found.length is not None:
            each, batch_size = round(found.length[engine == "packed"]), round(recipe.train.batch_size * found.windows)
            seconds = _time_step(recipe, config, found.labels, batch_size, each, precision, target)
            notes.append(
                f"Time: {TIMED_STEPS} steps of {each} tokens a {'row' if found.windows == 1 else 'window'} on the {engine} "
                "engine, measured here with random weights."
            )
    steps = steps_per_epoch(found.train, recipe.train) * recipe.train.epochs
    tokens = None if found.tokens is None else found.tokens * recipe.train.epochs
    return Plan(counts, found.train, found.validation, steps, tokens, seconds, precision, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a plan is made of besides the encoder."""

    labels: tuple[str, ...]
    train: int
    validation: int | None
    tokens: int | None = None  # of the training rows, padding not counted
    length: tuple[float, float] | None = None  # mean tokens a window takes in a batch, padded and packed
    windows: float = 1.0  # a training row


def _published_rows(
    recipe: Recipe, published: Published, limit: int, grouped: bool, notes: list[str], names: Sequence[str] | None
) -> _Rows:
    """The rows of a hub data set whose sizes are known; `names`: of the adapter's labels that training goes on with."""
    labels = published.labels
    if names is not None:
        own = make_label_set(recipe.data.label_names or labels)
        labels = labels_of_head(own, names, f"'{recipe.data.source}'").names
    validation = recipe.data.validation_rows if recipe.data.validation is None else None
    rows = published.train_rows - (validation or 0)
    rows = min(rows, recipe.data.train_rows or rows)
    each, padded = published.tokens_per_row, published.padded_per_row
    if recipe.data.overlap is None:  # what is longer is cut
        each, padded = min(each, limit), min(padded, limit)
    notes.append(f"{recipe.data.source} as published: {published.train_rows:,} train rows; nothing was downloaded.")
    # rows of like length need next to no padding
    return _Rows(labels, rows, validation, round(rows * each), (each if grouped else padded, each))


def _read_rows(
    recipe: Recipe, backbone: Backbone, limit: int, grouped: bool, notes: list[str], names: Sequence[str] | None
) -> _Rows:
    """The rows as training would read them; `names` as above."""
    splits = load_splits(recipe.data, recipe.train.seed, names=names)
    notes += remarks(splits, recipe.data)
    labels, rows, validation = splits.labels.names, len(splits.train), len(splits.validation)
    table = _token_table(backbone, splits.train.texts, limit, recipe.data.overlap, notes)
    if table is None:
        return _Rows(labels, rows, validation)
    notes += _long_rows(table, limit, recipe.data.overlap)
    tokens, windows = int(table.offsets[-1]), len(table.windows)
    length = _padded_per_window(table, recipe.train, grouped), tokens / windows
    return _Rows(labels, rows, validation, tokens, length, windows / rows)


def _token_table(
    backbone: Backbone, texts: Sequence[str], limit: int, overlap: int | None, notes: list[str]
) -> TokenTable | None:
    try:
        tokenizer = backbone.tokenizer()
    except NewsloraError:
        notes.append(f"Tokens and time need the tokenizer of '{backbone.name}', which is not on this disk.")
        return None
    return tokenize(tokenizer, texts, limit, cache_folder(), overlap)


def _long_rows(table: TokenTable, limit: int, overlap: int | None) -> list[str]:
    """What becomes of the training rows that fill the length limit, if there are any."""
    if overlap is None:
        count = int((table.lengths >= limit).sum())
        if not count:
            return []
        return [
            f"{count:,} train rows fill the limit of {limit} tokens; the rest is cut (data.long_texts=windows reads it)."
        ]
    if table.firsts is None:
        return []
    each = np.diff(table.firsts)
    return [
        f"{int((each > 1).sum()):,} train rows are longer than {limit} tokens: they become {int(each[each > 1].sum()):,} "
        f"windows, {int(each.max()):,} at most, and a training step holds all windows of its rows."
    ]


def _padded_per_window(table: TokenTable, settings: TrainSettings, by_length: bool) -> float:
    """Mean tokens a window takes in a batch, padding counted; of some batches where there are very many."""
    rows = Rows(table, np.zeros(0, dtype=np.int64), 0)
    plan = epoch_batches(rows.lengths, settings.batch_size, settings.seed, 0, by_length)
    seen = range(0, len(plan), -(-len(plan) // BATCHES_SEEN))
    lengths = [table.windows.lengths_of(table.windows_of(plan[place])[0]) for place in seen]
    return float(np.average([one.max() for one in lengths], weights=[len(one) for one in lengths]))


def _time_step(
    recipe: Recipe,
    config: "PretrainedConfig",
    labels: tuple[str, ...],
    batch_size: int,
    length: int,
    precision: Precision,
    device: "torch.device",
) -> float:
    """Median seconds of an optimiser step on `batch_size` rows of `length` tokens a pass, with random weights."""
    s = recipe.train
    model = random_classifier(config, labels, recipe.lora).to(device)
    engine = make_engine(model, s.engine_setting, precision, trains=True, release=True)
    stepper = Stepper(engine, s, precision, total_steps=TIMED_STEPS + 1)
    ids = np.full(batch_size * length, 5, dtype=np.int32)  # any token id; its value costs nothing
    table = TokenTable(ids, np.arange(batch_size + 1, dtype=np.int64) * length)
    batch = engine.collate(Rows(table, np.zeros(batch_size, dtype=np.int64), 0), range(batch_size))
    times = []
    for step in range(TIMED_STEPS + 1):
        began = time.perf_counter()
        stepper([batch] * s.accumulation_steps, step)
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))
