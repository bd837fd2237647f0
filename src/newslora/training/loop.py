"""The training loop: step, log, evaluate, save, stop; read from `fit` downwards.

A step's dropout depends on (seed, step) alone and an epoch's order on (seed, epoch) alone, so a run that stops anywhere
and continues from a checkpoint does exactly what an unbroken one does.
"""

import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from newslora.config import TrainSettings
from newslora.data.batches import Rows, epoch_batches, load_batches
from newslora.errors import InterruptedRun, RunError
from newslora.model.engine import AnyBatch, groups_by_length, make_engine
from newslora.model.inference import predict_logits
from newslora.runfolder import RunFolder
from newslora.runtime import Precision
from newslora.training.checkpoint import LoopState, load_newest, load_parameters, save_checkpoint
from newslora.training.log import MetricsLog
from newslora.training.losses import StepLoss
from newslora.training.objective import describe_objective, make_objective, note_objective
from newslora.training.signals import StopRequest, stop_on_signal
from newslora.training.step import Stepper
from newslora.training.validation import frequency_loss, validation_metrics
from newslora.training.watch import Watcher

if TYPE_CHECKING:
    from peft import PeftModel

ORDER_SEED = 2  # second part of the seed of row order


@dataclass(frozen=True, slots=True)
class FitResult:
    """What training leaves behind besides the parameters of the best epoch, which are in the model."""

    best_epoch: int
    steps: int
    seconds: float
    history: list[dict[str, Any]]
    objective: dict[str, Any]  # class weights and the like, for the manifest
    by_length: bool  # whether batches were of rows of like length; likewise


def steps_per_epoch(rows: int, settings: TrainSettings) -> int:
    """Optimiser steps of one epoch; the last may hold fewer rows."""
    return math.ceil(math.ceil(rows / settings.batch_size) / settings.accumulation_steps)


def fit(
    model: "PeftModel",
    train: Rows,
    validation: Rows,
    settings: TrainSettings,
    precision: Precision,
    run: RunFolder,
    workers: int,
    watcher: Watcher,
) -> FitResult:
    """Train from the newest whole checkpoint in `run` (or from the start) to the end, and load the best epoch.

    Raises:
        InterruptedRun: a signal came; the state is saved.
        RunError: a loss that is not finite, or a best epoch that was lost.
        StorageError: the disk refuses.
    """
    loop = _Loop(model, train, validation, settings, precision, run, workers, watcher)
    try:
        with stop_on_signal() as request, loop.log:
            loop.run_to_end(request)
    finally:
        watcher.stop()
    state = loop.state
    assert state.best_epoch is not None
    assert state.best_step is not None, "the first epoch is better than none"
    if state.best_step != state.step and not load_parameters(run.checkpoints, state.best_step, model):
        raise RunError(
            f"The checkpoint of the best epoch ({state.best_epoch}) in {run.checkpoints} is damaged; it cannot be restored. "
            "Train the run again in a new folder."
        )
    objective = describe_objective(loop.objective, loop.names)
    return FitResult(state.best_epoch, state.step, state.seconds, state.history, objective, loop.by_length)


class _Loop:
    def __init__(
        self,
        model: "PeftModel",
        train: Rows,
        validation: Rows,
        settings: TrainSettings,
        precision: Precision,
        run: RunFolder,
        workers: int,
        watcher: Watcher,
    ) -> None:
        self.model, self.train_rows, self.validation_rows = model, train, validation
        self.settings, self.run, self.workers, self.watcher = settings, run, workers, watcher
        self.epoch_steps = steps_per_epoch(len(train), settings)
        self.total_steps = self.epoch_steps * settings.epochs
        self.engine = make_engine(model, settings.engine_setting, precision, trains=True, release=True)
        self.by_length = groups_by_length(model.config, settings.group_by_length)
        self.names = list(model.config.id2label.values())
        self.objective = make_objective(settings, train.labels, train.combinations, len(self.names))
        self.stepper = Stepper(self.engine, settings, precision, self.total_steps, self.objective, watcher.note)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        loaded, damaged = load_newest(run.checkpoints, model, self.stepper.optimizer)
        for path in damaged:
            watcher.warn(f"The checkpoint {path} is damaged and was skipped.")
        self.state = loaded or LoopState()
        if self.state.step:
            self.stepper.continue_at(self.state.step, self.state.scaler)
        self.log = MetricsLog(run, self.state.step)
        self.began = time.monotonic() - self.state.seconds

    def run_to_end(self, request: StopRequest) -> None:
        state, settings = self.state, self.settings
        if settings.warmup_steps >= self.total_steps:
            self.watcher.warn(
                f"train.warmup_steps is {settings.warmup_steps:,} and the run has {self.total_steps:,} steps: the learning "
                "rate never reaches its peak. Lower train.warmup_steps, or train for longer."
            )
        if (note := note_objective(self.objective, self.names)) is not None:
            self.watcher.note(note)
            if settings.best_metric == "accuracy":
                self.watcher.warn(
                    "train.best_metric is accuracy, which frequent labels decide: macro_f1 weighs all alike."
                )
        self.watcher.start(self.total_steps, state.step)
        while state.epoch < settings.epochs and not self._stopped_early():
            for micro_batches in self._steps_left():
                found = self.stepper(micro_batches, state.step)
                state.step += 1
                self._count(found)
                if state.step % settings.log_every_steps == 0:
                    self._log_step()
                if request.signal_number is not None:
                    self._save_and_stop(request.signal_number)
                if settings.save_every_steps and state.step % settings.save_every_steps == 0:
                    self._save()
            self._finish_epoch()
            self._save()
            if request.signal_number is not None and state.epoch < settings.epochs:
                self._save_and_stop(request.signal_number)

    def _steps_left(self) -> Iterator[list[AnyBatch]]:
        """The micro-batches of each optimiser step of this epoch that is not done yet."""
        s, state = self.settings, self.state
        order_seed = _mixed(s.seed, ORDER_SEED)
        plan = epoch_batches(self.train_rows.lengths, s.batch_size, order_seed, state.epoch, self.by_length)
        done = (state.step - state.epoch * self.epoch_steps) * s.accumulation_steps
        batches = load_batches(
            self.train_rows, plan, self.engine.collate, self.workers, self.engine.device.type == "cuda", first=done
        )
        held: list[AnyBatch] = []
        for place, batch in enumerate(batches, done + 1):
            held.append(batch)
            if len(held) == s.accumulation_steps or place == len(plan):
                yield held
                held = []

    def _count(self, losses: list[StepLoss]) -> None:
        state = self.state
        for loss in losses:
            state.loss_sum, state.loss_rows = state.loss_sum + loss.total, state.loss_rows + loss.rows
            state.logged_sum, state.logged_rows = state.logged_sum + loss.total, state.logged_rows + loss.rows
            state.seconds = time.monotonic() - self.began
            self.watcher.step(loss.rows, loss.total / loss.rows)

    def _log_step(self) -> None:
        self._count(self.stepper.wait())  # waits for the device: the line is about the steps so far, all of them
        state = self.state
        self.log.write(
            "train", state.step, epoch=state.step / self.epoch_steps, loss=state.logged_sum / state.logged_rows,
            learning_rate=self.stepper.learning_rate, seconds=round(state.seconds, 3),
        )  # fmt: skip
        state.logged_sum, state.logged_rows = 0.0, 0

    def _finish_epoch(self) -> None:
        """Evaluate, remember the best, and close the epoch."""
        self._count(self.stepper.wait())  # before a broken step is evaluated
        state = self.state
        logits = predict_logits(self.engine, self.validation_rows, batch_size=self.settings.evaluation_batch_size)
        metrics = validation_metrics(self.validation_rows, logits, self.names)
        # few rows tie often in accuracy; the lower loss then tells which epoch is surer of what it gets right
        first = -metrics["loss"] if self.settings.best_metric == "loss" else metrics[self.settings.best_metric]
        value = [first, -metrics["loss"]]
        state.epoch += 1
        if state.best_value is None or value > state.best_value:
            state.best_value, state.best_step, state.best_epoch, state.stale_epochs = value, state.step, state.epoch, 0
        else:
            state.stale_epochs += 1
        state.seconds = time.monotonic() - self.began
        entry = {"epoch": state.epoch, "train_loss": state.loss_sum / state.loss_rows}
        entry |= {f"validation_{name}": number for name, number in metrics.items()}
        state.history.append(entry)
        state.loss_sum, state.loss_rows = 0.0, 0
        self.log.write(
            "epoch", state.step, **entry, best=state.best_epoch == state.epoch, seconds=round(state.seconds, 3)
        )
        self.watcher.epoch(entry | {"best": state.best_epoch == state.epoch})
        self._note_nothing_learnt()

    def _note_nothing_learnt(self) -> None:
        """Too high a learning rate ends in a loss that stands still, finite: nothing else would tell. So may too few steps."""
        best = min(entry["validation_loss"] for entry in self.state.history)
        if best >= self._frequency_loss:
            self.watcher.warn(
                f"After epoch {self.state.epoch} the lowest validation loss is {best:.3f}; {self._frequency_loss:.3f} is had "
                "by knowing no more than how frequent each label is. Where it stands still, lower train.learning_rate "
                f"({self.settings.learning_rate:g}); where it still falls, train for longer."
            )

    @functools.cached_property
    def _frequency_loss(self) -> float:
        return frequency_loss(self.train_rows, self.validation_rows, self.names)

    def _stopped_early(self) -> bool:
        limit = self.settings.early_stopping_epochs
        return limit is not None and self.state.stale_epochs >= limit

    def _save_and_stop(self, signal_number: int) -> None:
        self._save()
        raise InterruptedRun(
            f"Stopped after step {self.state.step:,} of {self.total_steps:,}; the state is saved. "
            f"Continue with: newslora train --resume {self.run.path}",
            signal_number,
        )

    def _save(self) -> None:
        self._count(self.stepper.wait())  # before a broken step is saved; and the state's sums are of all its steps
        self.state.scaler = self.stepper.scaler.state_dict() or None
        save_checkpoint(self.run.checkpoints, self.state, self.model, self.stepper.optimizer)


def _mixed(seed: int, purpose: int) -> int:
    """One seed per purpose out of the run's seed."""
    return int(np.random.SeedSequence((seed, purpose)).generate_state(1)[0])
