"""A step's loss read late, and steps by shape as a GPU would capture them: the same parameters as plain steps."""

import functools
import gc
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import RobertaConfig

from newslora.config import LoraSettings, TrainSettings
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.errors import RunError
from newslora.model.classifier import random_classifier, trainable_parameters
from newslora.model.engine import make_engine
from newslora.model.inference import predict_logits
from newslora.model.packed.projection import summed
from newslora.model.packed.segments import SegmentedBatch
from newslora.model.packed.spans import Spans
from newslora.model.packed.varlen import RowByRow
from newslora.runtime import Precision
from newslora.training.graphs import WARM_UP
from newslora.training.losses import LateLosses, StepLoss
from newslora.training.step import Stepper

FP32 = Precision("fp32", "test")
SETTINGS = TrainSettings(learning_rate=1e-2, warmup_steps=2, batch_size=4)


def make_rows(count: int) -> Rows:
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 50, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = generator.integers(5, 60, int(offsets[-1])).astype(np.int32)
    return Rows(TokenTable(ids, offsets), generator.integers(0, 3, count), pad_id=0)


def make_stepper(
    settings: TrainSettings = SETTINGS, spans: bool = True, precision: Precision = FP32, layers: int = 2, **more: Any
) -> Stepper:
    """With dropout everywhere: LoRA's, the hidden states' and the attention probabilities'."""
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, pad_token_id=0,
    )  # fmt: skip
    model = random_classifier(config, "abc", LoraSettings())
    engine = make_engine(model, "packed", precision, trains=True, kernel=RowByRow() if spans else None)
    return Stepper(engine, settings, precision, 100, **more)


def plan(count: int) -> list[list[int]]:
    """Batches of four, and one of three in their midst."""
    batches = [list(range(4 * step, 4 * step + 4)) for step in range(count)]
    batches[count // 2] = batches[count // 2][:3]
    return batches


def parameters(stepper: Stepper) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable_parameters(stepper.engine.model)}


def replay_again(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """What a graph does, without one: nothing when captured, then at every replay the same step on the same tensors."""
    total = torch.full((), torch.nan, dtype=torch.float64)

    def replay() -> None:
        total.copy_(run())

    return replay, total


def refuse(run: Callable[[], torch.Tensor]) -> Any:
    raise RuntimeError("operation not permitted when stream is capturing")


def train(stepper: Stepper, rows: Rows, steps: int, evaluate_at: int = -1) -> list[float]:
    losses = []
    for step, chosen in enumerate(plan(steps)):
        if step == evaluate_at:  # leaves the model in evaluation mode, as the end of an epoch does
            predict_logits(stepper.engine, rows, batch_size=4)
        losses += stepper([stepper.engine.collate(rows, chosen)], step)
        assert step != evaluate_at or stepper.engine.model.training
    return [loss.total for loss in [*losses, *stepper.wait()]]


def test_losses_read_late_change_nothing() -> None:
    rows = make_rows(24)
    now, late = make_stepper(late=False, spans=False), make_stepper(late=True, spans=False)
    wanted, got = train(now, rows, 6), train(late, rows, 6)
    assert got == wanted
    assert len(set(wanted)) == 6
    for name, parameter in parameters(now).items():
        assert torch.equal(parameter, parameters(late)[name]), name


def test_dropout_is_drawn_by_seed_step_and_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """These very numbers: a run that is resumed, or repeated, draws what it drew."""
    rows, stepper = make_rows(16), make_stepper(SETTINGS.model_copy(update={"seed": 7}), spans=False)
    seeds: list[Any] = []
    logits = stepper.engine.logits

    def seen(batch: Any, dropout_seed: Any = None) -> torch.Tensor:
        seeds.append(tuple(dropout_seed))
        return logits(batch, dropout_seed)

    monkeypatch.setattr(stepper.engine, "logits", seen)
    for step in (0, 1):
        stepper([stepper.engine.collate(rows, chosen) for chosen in ([0, 1], [2, 3], [4])], step)
    assert seeds == [(7, 3, step, place) for step in (0, 1) for place in (0, 1, 2)]


@pytest.mark.parametrize("most", [1e-3, 0.0])
def test_gradients_are_clipped_all_together_where_that_is_asked(most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = make_stepper(SETTINGS.model_copy(update={"max_gradient_norm": most}), spans=False)
    norms: list[float] = []
    update = stepper.optimizer.step

    def seen(*arguments: Any, **more: Any) -> Any:
        squares = [
            parameter.grad.double().pow(2).sum() for parameter in stepper.parameters if parameter.grad is not None
        ]
        norms.append(float(torch.stack(squares).sum().sqrt()))
        return update(*arguments, **more)

    monkeypatch.setattr(stepper.optimizer, "step", seen)
    stepper([stepper.engine.collate(make_rows(4), [0, 1, 2, 3])], 0)
    (norm,) = norms
    assert norm == pytest.approx(most, rel=1e-3) if most else norm > 0.1


def test_a_late_loss_comes_one_step_later_and_all_come_in_the_end() -> None:
    rows, stepper = make_rows(16), make_stepper(late=True)
    returned = [stepper([stepper.engine.collate(rows, chosen)], step) for step, chosen in enumerate(plan(4))]
    assert [len(found) for found in returned] == [0, 1, 1, 1]
    assert [loss.rows for found in [*returned, stepper.wait()] for loss in found] == [4, 4, 3, 4]
    assert stepper.wait() == []


@pytest.mark.parametrize("spans", [True, False])
def test_from_a_broken_loss_on_nothing_is_applied_and_the_right_step_is_named(spans: bool) -> None:
    rows = make_rows(24)
    capture = replay_again if spans else None
    stepper = make_stepper(late=True, spans=spans, capture=capture)
    for step, chosen in enumerate(plan(6)[:2]):
        stepper([stepper.engine.collate(rows, chosen)], step)
    before, state = parameters(stepper), stepper.optimizer.state
    moments = {key: {name: value.clone() for name, value in held.items()} for key, held in state.items()}
    head = next(module for name, module in stepper.engine.model.named_modules() if name.endswith("default.out_proj"))

    def broken(module: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
        return out * float("nan")

    handle = head.register_forward_hook(broken)
    stepper([stepper.engine.collate(rows, [0, 1, 2, 3])], 2)  # returns the good loss of the step before
    handle.remove()
    with pytest.raises(RunError, match=r"became nan at step 3; the step is not applied"):
        stepper(
            [stepper.engine.collate(rows, [4, 5, 6, 7])], 3
        )  # a good loss after it, which must not be applied either
    for name, parameter in parameters(stepper).items():
        assert torch.equal(parameter, before[name]), name
    for key, held in state.items():
        for name, value in held.items():
            assert torch.equal(value, moments[key][name]), name


def test_steps_by_shape_are_plain_steps() -> None:
    """Bit for bit: a captured batch is overwritten with each new one of its shape, and draws what a plain step draws."""
    rows = make_rows(48)
    notes: list[str] = []
    plain = make_stepper(late=True, capture=refuse, note=notes.append)
    by_shape = make_stepper(late=True, capture=replay_again, note=notes.append)
    wanted, got = train(plain, rows, 12, evaluate_at=5), train(by_shape, rows, 12, evaluate_at=5)
    assert got == wanted
    for name, parameter in parameters(plain).items():
        assert torch.equal(parameter, parameters(by_shape)[name]), name
    assert by_shape.graphs is not None
    assert plain.graphs is not None
    assert (len(plain.graphs), len(by_shape.graphs)) == (0, 2)  # T of 128 and of 256
    assert len(notes) == 1  # only the one that refuses, and once
    assert re.search("steps run one by one.*not permitted when stream is capturing", notes[0])


def test_rows_of_several_windows_take_plain_steps() -> None:
    """A captured step would keep whose windows those of its first batch were."""
    windows = make_rows(48)
    firsts = np.concatenate([np.arange(0, 24, 3), np.arange(24, 49)])  # eight rows of three windows, 24 of one
    rows = Rows(TokenTable(windows.tokens.ids, windows.tokens.offsets, firsts), windows.labels[:32], pad_id=0)
    stepper = make_stepper(late=True, capture=replay_again)
    for step in range(2 * (WARM_UP + 1)):  # the same two batches, again and again
        stepper([stepper.engine.collate(rows, [[0, 1, 2, 3], [28, 29, 30, 31]][step % 2])], step)
    assert stepper.graphs is not None
    assert len(stepper.graphs) == 1  # of the batch of single windows


def test_the_batch_of_another_size_is_not_captured() -> None:
    """Shapes differ in rows, T and the longest row; each is plain until it has been seen often enough."""
    rows, captures = make_rows(60), []

    def capture(run: Callable[[], torch.Tensor]) -> Any:
        captures.append(run)
        return replay_again(run)

    stepper = make_stepper(late=True, capture=capture)
    batches = [stepper.engine.collate(rows, chosen) for chosen in plan(15)]
    shapes = [(len(b), len(b.packed.input_ids), b.segments.longest) for b in batches]  # type: ignore[union-attr]
    for step, batch in enumerate(batches):
        stepper([batch], step)
    often = {shape for shape in shapes if shapes.count(shape) > WARM_UP}
    assert len(captures) == len(often) >= 2
    assert all(shape[0] == 4 for shape in often)
    assert 3 in {shape[0] for shape in shapes}


def test_graphs_go_with_their_stepper_and_not_in_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to Python's search for cycles, an old graph could be destroyed in the midst of a new one's capture."""
    searches, searching = [], []
    monkeypatch.setattr(gc, "collect", lambda: searches.append(len(searching)))

    def capture(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        searching.append(gc.isenabled())
        if len(searching) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda: None, run()

    assert gc.isenabled()
    stepper = make_stepper(late=True, capture=capture)
    train(stepper, make_rows(48), 12)
    assert searching == [False, False]
    assert gc.isenabled()
    assert searches == [0]  # before the first capture, and then never
    graphs = weakref.ref(stepper.graphs)  # type: ignore[arg-type]
    gc.disable()
    try:
        del stepper
        assert graphs() is None
    finally:
        gc.enable()


def test_gradients_of_a_padded_batch_are_those_of_its_rows() -> None:
    """A batch laid into a larger T gives the same logits and gradients as in its own."""
    rows, stepper = make_rows(8), make_stepper()
    engine = stepper.engine
    own = engine.collate(rows, [0, 1, 2, 3])
    packed, spans = own.packed, own.segments  # type: ignore[union-attr]
    more = torch.zeros(256, dtype=torch.int64)
    borders = spans.borders.clone()
    borders[-1] += 256
    longer = replace(
        packed, input_ids=torch.cat([packed.input_ids, more]), positions=torch.cat([packed.positions, more])
    )
    wider = SegmentedBatch(longer, Spans(borders, 512, RowByRow()))
    found = []
    for batch in (own, wider):
        engine.model.zero_grad()
        logits = engine.logits(batch)
        torch.nn.functional.cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
        gradients = {name: parameter.grad.clone() for name, parameter in trainable_parameters(engine.model)}
        found.append((logits.detach(), gradients))
    (a, a_gradients), (b, b_gradients) = found
    assert (a - b).abs().max() <= 1e-6
    for name, gradient in a_gradients.items():
        assert (gradient - b_gradients[name]).abs().max() <= 1e-6, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_summed_in_fp32_bit_for_bit_as_one_by_one(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    factors: list[list[float]] = [[1.1, 0.3, 2.2], [], [0.7], [5.0, -1.3]]
    parts = [[(torch.randn(4, 3, generator=generator).to(dtype), factor) for factor in of_one] for of_one in factors]
    wanted = [[value.clone().float().mul_(factor) for value, factor in of_one] for of_one in parts]
    got = summed(parts)
    assert got[1] is None
    for found, right in zip([got[0], got[2], got[3]], [wanted[0], wanted[2], wanted[3]], strict=True):
        assert found is not None
        assert found.dtype == torch.float32
        assert torch.equal(found, functools.reduce(torch.Tensor.add_, right))


def test_more_layers_cast_no_more_often() -> None:
    """A GPU casts LoRA's parameters in one kernel, and scales their gradients in one; launches are what its steps wait for."""

    class Counted(TorchDispatchMode):
        casts = scaled = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.casts += function is torch.ops.aten._to_copy.default
            self.scaled += function is torch.ops.aten._foreach_mul_.ScalarList
            return function(*args, **(kwargs or {}))

    rows, found = make_rows(4), []
    for layers in (2, 5):
        stepper = make_stepper(precision=Precision("bf16", "test"), layers=layers, late=True)
        with Counted() as counted:
            stepper([stepper.engine.collate(rows, [0, 1, 2, 3])], 0)
        found.append(counted)
    assert found[0].casts == found[1].casts
    assert found[0].scaled == found[1].scaled == 1


def test_graphs_that_cannot_be_had_are_told_of_once() -> None:
    notes: list[str] = []
    settings = SETTINGS.model_copy(update={"cuda_graphs": True})
    stepper = make_stepper(settings, note=notes.append)
    assert stepper.graphs is None
    assert len(notes) == 1
    assert "graphs need a GPU" in notes[0]


def test_losses_come_out_in_order_and_a_broken_one_stops() -> None:
    losses = LateLosses()
    for step, total in enumerate((3.0, 2.0, float("inf"), 1.0)):
        losses.put(step, 2, torch.tensor(total, dtype=torch.float64))
    assert list(losses.take(keep=3)) == [StepLoss(2, 3.0)]
    with pytest.raises(RunError, match="became inf at step 3"):
        list(losses.take())
