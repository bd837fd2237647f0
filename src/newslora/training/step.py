"""One optimiser step: forward, backward, clip, update.

On a CPU a loss is read at once, and one that is not finite stops the step before its update. On a GPU reading would wait for
the device, so the device decides: from the first broken loss on, the fused AdamW leaves everything as it is, and the loop
learns of it one step late. The parameters are those of the last good step either way.

The CUDA branch has not run on a GPU yet; benchmarks/gpu.py checks it on the first one it meets.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from newslora.config import TrainSettings
from newslora.model.classifier import trainable_parameters
from newslora.model.engine import AnyBatch, Engine, PackedEngine
from newslora.model.packed.dropout import DeviceBits
from newslora.model.packed.segments import SegmentedBatch
from newslora.runtime import Precision, seed_everything
from newslora.training.graphs import Capture, StepGraphs, cuda_capture
from newslora.training.losses import LateLosses, StepLoss
from newslora.training.objective import Objective
from newslora.training.optimizer import make_optimizer, make_scheduler

if TYPE_CHECKING:
    import torch

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
        note: Callable[[str], None] = lambda text: None,
        late: bool | None = None,
        capture: Capture | None = None,
    ) -> None:
        """Make optimiser and schedule.

        Args:
            engine: whose classifier trains.
            settings, precision, total_steps: of the run.
            objective: what to minimise; None: plain cross-entropy.
            note: told what a person wants to know.
            late: whether losses are read one step late; None: on a GPU.
            capture: how steps are captured, which needs `late`; None: as CUDA graphs, where the settings ask for them.
        """
        import torch

        self.engine, self.settings, self.device = engine, settings, engine.device
        self.objective = (objective or Objective()).on(self.device)
        self.parameters = [parameter for _, parameter in trainable_parameters(engine.model)]
        self.optimizer = make_optimizer(engine.model, settings, self.device)
        self.scheduler = make_scheduler(self.optimizer, settings, total_steps)
        # scales fp16 losses so that small gradients survive; does nothing in bf16 and fp32
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision.name == "fp16")
        self.losses = LateLosses()
        self.late = self.device.type == "cuda" if late is None else late
        self._broken: torch.Tensor | None = None
        if self.late and not self.scaler.is_enabled():  # fp16's own scaler skips what is not finite
            self._broken = torch.zeros((), device=self.device)  # 1 from the first broken loss on
            self.optimizer.found_inf = self._broken  # type: ignore[attr-defined]  # as GradScaler tells a fused optimiser
        self._stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self.graphs = self._make_graphs(capture, note)
        self._set_rate(0)

    def __call__(self, micro_batches: Sequence[AnyBatch], step: int) -> list[StepLoss]:
        """Take optimiser step number `step` (from 0) over these micro-batches; returns the losses that are known by now.

        The loss is the objective's sum over all rows of the step divided by their number, however they fall into
        micro-batches. Dropout depends on (seed, step, micro-batch) alone.

        Raises:
            RunError: a loss that is not finite, of this step or, read late, of the one before; nothing of that step on is
                applied.
        """
        rows = sum(len(batch) for batch in micro_batches)
        with self._on_stream():
            first = micro_batches[0]
            whole = len(micro_batches) == 1 and first.owners is None  # of windows, no two batches have one shape
            if self.graphs is not None and whole and isinstance(first, SegmentedBatch):
                seed = functools.partial(seed_everything, self.settings.seed, DROPOUT_SEED, step, 0)
                total = self.graphs(self._capturable, first, self.device, seed)
            else:
                total = self._plain(micro_batches, step, rows)
            self.losses.put(step, rows, total)
            if not self.late:
                found = self.wait()
                self._update()
            else:
                found = list(self.losses.take(keep=1))
            self._set_rate(step + 1)
        return found

    def wait(self) -> list[StepLoss]:
        """The losses of all steps taken and not yet returned; waits for the device.

        Raises:
            RunError: one that is not finite.
        """
        return list(self.losses.take())

    def continue_at(self, step: int, scaler_state: dict[str, float] | None) -> None:
        """Set the schedule to `step` steps done: it is a function of the step, so there is nothing else to restore."""
        self._set_rate(step)
        if scaler_state:
            self.scaler.load_state_dict(scaler_state)

    def _plain(self, micro_batches: Sequence[AnyBatch], step: int, rows: int) -> "torch.Tensor":
        """Forward and backward; the update too, where losses are read late. Returns the loss summed over rows."""
        total: Any = 0.0
        for place, host_batch in enumerate(micro_batches):
            seed = (self.settings.seed, DROPOUT_SEED, step, place)
            batch = host_batch.to(self.device)
            total = total + self._backward(self.engine.logits(batch, seed), batch, rows)
        if self.late:
            self._update_unless_broken(total)
        found: torch.Tensor = total
        return found

    def _capturable(self, batch: SegmentedBatch) -> "torch.Tensor":
        """A whole step over one batch, seeded before it and never waiting for the device."""
        assert isinstance(self.engine, PackedEngine)
        total = self._backward(self.engine.seeded_logits(batch, DeviceBits()), batch, len(batch))
        self._update_unless_broken(total)
        return total

    def _backward(self, logits: "torch.Tensor", batch: AnyBatch, rows: int) -> "torch.Tensor":
        """Adds the gradients of one micro-batch; returns its loss summed over rows, in fp64."""
        loss = self.objective(logits, batch.labels) / rows
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach().double() * rows

    def _update_unless_broken(self, total: "torch.Tensor") -> None:
        if self._broken is not None:
            self._broken.copy_((self._broken + ~total.isfinite()).clamp_(max=1))
        self._update()

    def _update(self) -> None:
        import torch

        self.scaler.unscale_(self.optimizer)
        if self.settings.max_gradient_norm:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _set_rate(self, step: int) -> None:
        """The learning rate of step number `step`, by the schedule's own function of the step."""
        import torch

        factor: float = self.scheduler.lr_lambdas[0](step)  # type: ignore[attr-defined]
        self.learning_rate = self.settings.learning_rate * factor  # of the step to come
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(self.learning_rate)  # where a captured step reads it
            else:
                group["lr"] = self.learning_rate

    def _make_graphs(self, capture: Capture | None, note: Callable[[str], None]) -> StepGraphs | None:
        if not self.settings.cuda_graphs and capture is None:
            return None
        fits = self.engine.name == "packed" and self.settings.accumulation_steps == 1
        if capture is None and (self._stream is None or not fits):
            note(
                "train.cuda_graphs is true, but steps run one by one: graphs need a GPU, the packed engine "
                f"(train.engine=packed; here {self.engine.name}) and train.accumulation_steps=1."
            )
            return None
        if capture is None:
            assert self._stream is not None
            capture = cuda_capture(self.optimizer, self._stream)
        assert self.late, "a captured step cannot wait for its loss"
        return StepGraphs(capture, note)

    @contextlib.contextmanager
    def _on_stream(self) -> Any:
        """On a GPU all steps share one stream that is not the default one, on which nothing can be captured."""
        import torch

        if self._stream is None:
            yield
            return
        outside = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            yield
        outside.wait_stream(self._stream)  # the device's queue waits, not this process
