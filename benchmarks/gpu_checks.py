"""Whether the packed engine is right on a device: the checks of benchmarks/gpu.py, by the padded stock forward there.

In a process of their own, a job as JSON in and a file of what was found after each check: a capture that fails may leave the
device unusable for its process, and one that hangs can be ended.
"""

import copy
import json
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from gpu_waits import device_waits
from torch.nn.functional import cross_entropy

from newslora.bench.worker import read_rows
from newslora.config import LoraSettings, ModelSettings, TrainSettings
from newslora.data.batches import Rows, load_batches
from newslora.model.backbones import resolve_backbone
from newslora.model.classifier import random_classifier, trainable_parameters
from newslora.model.engine import PaddedEngine, make_engine
from newslora.model.packed.segments import SegmentedBatch
from newslora.model.packed.spans import Spans
from newslora.model.packed.varlen import RowByRow
from newslora.runtime import Precision
from newslora.training.step import Stepper

FP32, BF16 = Precision("fp32", "check"), Precision("bf16", "check")
LABELS = ["World", "Sports", "Business", "Sci/Tech"]
# How far fp32 may be from fp64: of the largest logit, and of each parameter's largest gradient, for a query's is what is left
# of sums that nearly cancel. Where the stock fp32 modules are further off than half of that, because a device's kernels sum in
# orders and pieces of their own, twice as far as they: two fp32 forms are then equally right without being equal to 1e-5.
LOGITS_FP32, GRADIENTS_FP32, TIMES_STOCK = 1e-5, 1e-4, 2.0
TIMES_AUTOCAST = 2.5  # our bf16 error over autocast's: the residual stream is bf16 here, fp32 there
LEAST_BAND = 0.02  # of the logits' norm or spread, where autocast happens to be almost exact
# of a gradient's norm, likewise: over twelve layers a bf16 residual stream makes 0.02 to 0.05 of some; of all together, less
LEAST_GRADIENT_BAND, LEAST_BAND_OF_ALL = 0.08, 0.03
ERRORS = 5  # standard errors: one failure in two million a number
STEPS = 14  # plain against captured
WATCHED = 6  # steps on which waits are looked for
TO_TRY = (
    "Try CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment, and "
    "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False: cuBLAS may multiply otherwise in a capture"
)


NAMES = ("fp32", "bf16", "dropout", "graphs", "waits")


class CheckError(Exception):
    """Something is off; the message is the sentence to print."""


class Checks:
    """Each puts what it saw into `found` and raises when it is off."""

    def __init__(self, config: Any, rows: Rows, device: torch.device, draws: int) -> None:
        self.config, self.rows, self.device, self.draws = config, rows, device, draws
        # a CPU has no kernel of its own for spans, and no graphs: the plain ones stand in, to try the rest
        self.on_gpu = device.type == "cuda"
        self.kernel = None if self.on_gpu else RowByRow()
        self.found: dict[str, Any] = {}
        self.failed: dict[str, str] = {}

    def all(self, done: Callable[[str], None]) -> None:
        """Every check, cheapest first; `failed` says of those that are off what is. `done` is told the name of each."""
        for name in NAMES:
            try:
                getattr(self, name)()
            except CheckError as error:
                self.failed[name] = str(error)
            except Exception:  # noqa: BLE001  # of every kind: the other checks tell what is still right
                self.failed[name] = traceback.format_exc()
            done(name)

    def fp32(self) -> None:
        """Packed against padded, and both against padded fp64: the same numbers in another order."""
        torch.set_float32_matmul_precision("highest")  # no TF32: fp32 means fp32 here
        model = self._model()
        exact, exact_gradients = self._answers(PaddedEngine(copy.deepcopy(model).double(), FP32), "fp64")
        stock, stock_gradients = self._answers(PaddedEngine(model, FP32), "fp32")
        got, gradients = self._answers(make_engine(model, "packed", FP32, trains=True), "fp32")
        ours, theirs, apart = (
            _largest(a - b) / _largest(exact) for a, b in ((got, exact), (stock, exact), (got, stock))
        )
        (worst, name), (worst_stock, _) = (_worst(some, exact_gradients) for some in (gradients, stock_gradients))
        self.found["fp32"] = {
            "logits": ours, "logits_of_padded": theirs, "logits_apart": apart,
            "gradients": worst, "gradients_of_padded": worst_stock, "worst_gradient": name,
        }  # fmt: skip
        self._hold(
            ours <= max(LOGITS_FP32, TIMES_STOCK * theirs),
            f"fp32 logits of the packed engine are off by {ours:.1e} of the largest, the padded ones by {theirs:.1e}",
        )
        self._hold(
            worst <= max(GRADIENTS_FP32, TIMES_STOCK * worst_stock),
            f"the fp32 gradient of {name} is off by {worst:.1e} of its largest, the padded ones by {worst_stock:.1e} at most",
        )

    def bf16(self) -> None:
        """Both bf16 forms against padded fp32: ours may round 2.5 times as much as autocast."""
        model = self._model()
        exact, exact_gradients = self._answers(PaddedEngine(model, FP32), "fp32")
        stock, stock_gradients = self._answers(PaddedEngine(model, BF16), "bf16")
        engine = make_engine(model, "packed", BF16, trains=True, kernel=self.kernel)
        got, gradients = self._answers(engine, "bf16")
        batch = engine.collate(self.rows, range(16))
        spans = isinstance(batch, SegmentedBatch) and isinstance(batch.segments, Spans)
        ours, theirs = _relative(got, exact), _relative(stock, exact)
        whole, whole_stock = (
            _relative(_joined(some), _joined(exact_gradients)) for some in (gradients, stock_gradients)
        )
        worst, band, name = 0.0, 0.0, ""
        for key, right in exact_gradients.items():
            allowed = max(TIMES_AUTOCAST * _relative(stock_gradients[key], right), LEAST_GRADIENT_BAND)
            if (off := _relative(gradients[key], right)) / allowed > worst / (band or 1.0):
                worst, band, name = off, allowed, key
        self.found["bf16"] = {
            "attention": "one kernel for all rows" if spans else "groups of like length",
            "logits": ours, "logits_of_autocast": theirs, "all_gradients": whole, "all_gradients_of_autocast": whole_stock,
            "gradients": worst, "gradients_allowed": band, "worst_gradient": name,
        }  # fmt: skip
        if self.on_gpu:
            self._hold(spans, "this GPU or this torch has no flash attention in bf16, so the packed engine groups rows")
        allowed = max(TIMES_AUTOCAST * theirs, LEAST_BAND)
        self._hold(ours <= allowed, f"bf16 logits are off by {ours:.1e} of their norm, autocast's by {theirs:.1e}")
        allowed = max(TIMES_AUTOCAST * whole_stock, LEAST_BAND_OF_ALL)
        self._hold(
            whole <= allowed, f"bf16 gradients are off by {whole:.1e} of their norm, autocast's by {whole_stock:.1e}"
        )
        self._hold(worst <= band, f"the bf16 gradient of {name} is off by {worst:.1e} of its norm ({band:.1e} allowed)")

    def dropout(self) -> None:
        """Logits over many draws, dropout everywhere: the same mean and spread, packed and padded."""
        model = self._model(rate=0.1)
        packed = make_engine(model, "packed", BF16, trains=True, kernel=self.kernel)
        a, b = (self._draws(engine) for engine in (PaddedEngine(model, BF16), packed))
        spread = a.mean(0).std()  # of the logits themselves, for the rounding of bf16
        error = ((a.var(0) + b.var(0)) / self.draws).sqrt()
        means = ((a.mean(0) - b.mean(0)).abs() - LEAST_BAND * spread).clamp(min=0) / error
        fourth = [(x - x.mean(0)).pow(4).mean(0) - x.var(0) ** 2 for x in (a, b)]
        widths = (a.var(0) - b.var(0)).abs() / ((fourth[0] + fourth[1]) / self.draws).sqrt()
        again = [packed.logits(self._batch(packed), (5, 1)) for _ in range(2)]
        self.found["dropout"] = {
            "draws": self.draws, "means_in_standard_errors": float(means.max()),
            "variances_in_standard_errors": float(widths.max()), "same_seed_same_bits": torch.equal(*again),
        }  # fmt: skip
        limit = ERRORS if self.draws >= 100 else 4 * ERRORS  # few draws tell little of the spread of a spread
        self._hold(bool(means.max() <= limit), "dropout of the packed engine has another mean than the stock modules'")
        self._hold(
            bool(widths.max() <= limit), "dropout of the packed engine has another spread than the stock modules'"
        )
        self._hold(torch.equal(*again), "the same dropout seed gave different logits")

    def graphs(self) -> None:
        """Plain steps against themselves and against captured ones: parameters after a few steps, dropout on."""
        notes: list[str] = []
        plain, again, captured = self._steps(False, notes), self._steps(False, notes), self._steps(True, notes)
        assert captured.graphs is not None
        noise, difference = (_apart(plain, other) for other in (again, captured))
        self.found["graphs"] = {
            "captured": len(captured.graphs), "parameters": difference, "parameters_plain_again": noise, "notes": notes,
        }  # fmt: skip
        if difference:
            self.found["graphs"]["to_try"] = TO_TRY
        for what, stepper in (("plain", plain), ("plain", again), ("captured", captured)):
            self._hold_finite(f"after {what} steps", trainable_parameters(stepper.engine.model))
        self._hold(len(captured.graphs) > 0, f"no step was captured ({' '.join(notes) or 'and no note says why'})")
        self._hold(noise == 0, f"the same steps taken twice end with other parameters, by {noise:.1e}")
        self._hold(
            difference <= 1e-6,
            f"captured steps end with other parameters than plain ones, by {difference:.1e}. {TO_TRY}",
        )

    def waits(self) -> None:
        """Steps, plain and captured, with batches prepared as training has them: none may wait for the device.

        torch reports copies and reads that wait. It does not report waits for an event, which is how a loss is read one step
        late (training/losses.py): the one wait of a step that is meant.
        """
        if not self.on_gpu:
            self.found["waits"] = {"left_out": "torch reports waits for a GPU, and there is none here"}
            return
        found = {"plain": self._waits(self._steps(False, []))}
        if "graphs" not in self.failed:
            found["captured"] = self._waits(self._steps(True, []))
        self.found["waits"] = found
        if any(found.values()):
            raise CheckError(f"Steps wait for the device, which costs time and no accuracy: {found}")

    def _waits(self, stepper: Stepper) -> dict[str, int]:
        plan = [range(16 * (step % 4), 16 * (step % 4) + 16) for step in range(WATCHED)]

        def run() -> None:
            for step, batch in enumerate(load_batches(self.rows, plan, stepper.engine.collate, 0, self.on_gpu), STEPS):
                stepper([batch], step)

        found = device_waits(run)
        stepper.wait()
        return found

    def _steps(self, graphs: bool, notes: list[str]) -> Stepper:
        settings = TrainSettings(learning_rate=1e-3, warmup_steps=2, cuda_graphs=graphs and self.on_gpu)
        engine = make_engine(self._model(rate=0.1), "packed", BF16, trains=True, release=True, kernel=self.kernel)
        more: dict[str, Any] = {} if self.on_gpu else {"late": True, "capture": again_and_again if graphs else never}
        stepper = Stepper(engine, settings, BF16, STEPS, note=notes.append if graphs else lambda text: None, **more)
        for step in range(STEPS):
            start = 16 * (step % 4)  # few batches again and again, so that every shape is met often enough
            stepper([engine.collate(self.rows, range(start, start + 16))], step)
        stepper.wait()
        return stepper

    def _model(self, rate: float = 0.0) -> Any:
        """Trained a little, as it were: LoRA's B is no longer zero."""
        torch.manual_seed(3)
        lora, dropout = LoraSettings(dropout=rate), ModelSettings(hidden_dropout=rate, attention_dropout=rate)
        model = random_classifier(self.config, LABELS, lora, dropout)
        with torch.no_grad():
            for name, parameter in trainable_parameters(model):
                if "lora_B" in name:
                    parameter.add_(0.05 * torch.randn(parameter.shape))
        return model.to(self.device)

    def _batch(self, engine: Any) -> Any:
        return engine.collate(self.rows, range(16)).to(self.device)

    def _answers(self, engine: Any, precision: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits and gradients; finite ones, for to what is not every comparison answers no."""
        engine.model.zero_grad()
        batch = self._batch(engine)
        logits = engine.logits(batch)
        cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
        gradients = {name: parameter.grad.clone() for name, parameter in trainable_parameters(engine.model)}
        who = f"of the {engine.name} engine in {precision}"
        self._hold_finite(who, [("the logits", logits.detach()), *gradients.items()])
        return logits.detach(), gradients

    def _draws(self, engine: Any) -> torch.Tensor:
        batch = self._batch(engine)
        with torch.no_grad():
            return torch.stack([engine.logits(batch, (9, draw)).flatten() for draw in range(self.draws)]).double()

    def _hold_finite(self, when: str, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        broken = [name for name, x in named if not x.isfinite().all()]
        self._hold(not broken, f"not finite {when}: {', '.join(broken)}")

    def _hold(self, right: bool, otherwise: str) -> None:
        if not right:
            raise CheckError(f"{otherwise}. No timing would mean anything.")


def again_and_again(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """What a graph does, without one: the same step on the same tensors."""
    total = torch.zeros((), dtype=torch.float64)

    def replay() -> None:
        total.copy_(run())

    return replay, total


def never(run: Callable[[], torch.Tensor]) -> Any:
    raise RuntimeError("not captured")


def _apart(a: Stepper, b: Stepper) -> float:
    pairs = zip(trainable_parameters(a.engine.model), trainable_parameters(b.engine.model), strict=True)
    return max(_largest(one - other) for (_, one), (_, other) in pairs)


def _joined(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


def _worst(gradients: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> tuple[float, str]:
    return max((_largest(gradients[name] - right) / _largest(right), name) for name, right in exact.items())


def _largest(x: torch.Tensor) -> float:
    return float(x.detach().abs().max())


def _relative(x: torch.Tensor, right: torch.Tensor) -> float:
    return float((x - right).norm() / right.norm())


def main() -> None:
    job = json.loads(sys.stdin.read())
    config = resolve_backbone(job["backbone"]).architecture()
    checks = Checks(config, read_rows(Path(job["rows_file"])), torch.device(job["device"]), job["draws"])

    def done(name: str) -> None:
        Path(job["out"]).write_text(json.dumps({"found": checks.found, "failed": checks.failed}), encoding="utf-8")
        print(f"{name}: {checks.failed.get(name) or checks.found.get(name)}", file=sys.stderr, flush=True)

    checks.all(done)


if __name__ == "__main__":
    main()
