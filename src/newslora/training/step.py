"""One optimiser step: forward, backward, clip, update."""

import math
from collections.abc import Sequence

from newslora.config import TrainSettings
from newslora.errors import RunError
from newslora.model.classifier import trainable_parameters
from newslora.model.engine import AnyBatch, Engine
from newslora.runtime import Precision
from newslora.training.objective import Objective
from newslora.training.optimizer import make_optimizer, make_scheduler

DROPOUT_SEED = 3  # second part of the seed of each step's dropout; others: the head's in model, the order's in loop


class Stepper:
    """The engine with its objective (plain cross-entropy unless given), optimiser, schedule and loss scale."""

    def __init__(
        self,
        engine: Engine,
        settings: TrainSettings,
        precision: Precision,
        total_steps: int,
        objective: Objective | None = None,
    ) -> None:
        import torch

        self.objective = objective or Objective()
        self.engine, self.settings, self.device = engine, settings, engine.device
        self.parameters = [parameter for _, parameter in trainable_parameters(engine.model)]
        self.optimizer = make_optimizer(engine.model, settings)
        self.scheduler = make_scheduler(self.optimizer, settings, total_steps)
        # scales fp16 losses so that small gradients survive; does nothing in bf16 and fp32
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision.name == "fp16")

    def __call__(self, micro_batches: Sequence[AnyBatch], step: int) -> float:
        """Take optimiser step number `step` (from 0) over these micro-batches; returns the loss summed over rows.

        The loss is the objective's sum over all rows of the step divided by their number, however they fall into
        micro-batches. Dropout depends on (seed, step, micro-batch) alone.

        Raises:
            RunError: a loss that is not finite; nothing is applied.
        """
        import torch

        rows = sum(len(batch) for batch in micro_batches)
        loss_sum = 0.0
        for place, host_batch in enumerate(micro_batches):
            batch = host_batch.to(self.device)
            logits = self.engine.logits(batch, (self.settings.seed, DROPOUT_SEED, step, place))
            loss = self.objective(logits, batch.labels) / rows
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.item() * rows  # waits for the device: a broken loss must not reach the optimiser
        if not math.isfinite(loss_sum):
            raise RunError(
                f"The loss became {loss_sum} at step {step + 1:,}; the step is not applied. Try a lower "
                "train.learning_rate, more train.warmup_steps, or train.precision=fp32."
            )
        self.scaler.unscale_(self.optimizer)
        if self.settings.max_gradient_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss_sum

    @property
    def learning_rate(self) -> float:
        """Of the step to come."""
        return float(self.scheduler.get_last_lr()[0])

    def continue_at(self, step: int, scaler_state: dict[str, float] | None) -> None:
        """Set the schedule to `step` steps done: it is a function of the step, so there is nothing else to restore."""
        rates = [
            base * rate(step)
            for base, rate in zip(self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)  # type: ignore[attr-defined]
        ]
        self.scheduler.last_epoch = step
        self.scheduler._last_lr = rates
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if scaler_state:
            self.scaler.load_state_dict(scaler_state)
