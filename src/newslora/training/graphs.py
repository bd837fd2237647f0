"""Whole optimiser steps captured as CUDA graphs, one for each shape of batch, and replayed.

A step of the reference batch is some eight hundred kernels of a few microseconds each: launching them one by one takes
longer than running them. Batches of the packed engine come in few shapes (model/packed/spans.py); the first batches of each
shape run as ever, which warms up the libraries, then one is captured, and from there on a batch is copied over the
captured one's and the graph replayed. A shape that never repeats, such as an epoch's last batch, is never captured. Replay
draws dropout from the same seeds and the same places in the stream of random numbers, so results are those of plain steps.

The CUDA branch has not run on a GPU yet; benchmarks/gpu.py checks it on the first one it meets.
"""

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from newslora.errors import RunError, one_line
from newslora.model.packed.segments import SegmentedBatch
from newslora.model.packed.spans import Spans

if TYPE_CHECKING:
    import torch

WARM_UP = 2  # plain steps of a shape before its capture
MOST = 32  # graphs; each holds its shape's activations in memory that all share

Step = Callable[[SegmentedBatch], "torch.Tensor"]
Capture = Callable[[Callable[[], "torch.Tensor"]], tuple[Callable[[], None], "torch.Tensor"]]


@dataclass(frozen=True, slots=True)
class Captured:
    """A step that can be replayed on other numbers."""

    batch: SegmentedBatch  # the graph reads it
    replay: Callable[[], None]
    total: "torch.Tensor"  # the graph writes it


class StepGraphs:
    """Steps by shape: plain, then captured.

    It does not hold the step, whose owner holds it: in a cycle graphs would live on until Python looks for cycles, which may be
    in the midst of another capture, and a graph destroyed there breaks it.
    """

    def __init__(self, capture: Capture, note: Callable[[str], None]) -> None:
        """Begin with no graphs.

        Args:
            capture: runs nothing and returns how to replay, and what the step will have returned.
            note: told once if capturing fails; steps are plain from there on.
        """
        self._capture, self._note = capture, note
        self._seen: Counter[tuple[int, int, int]] = Counter()
        self._captured: dict[tuple[int, int, int], Captured] = {}
        self._failed = False

    def __call__(
        self, step: Step, batch: SegmentedBatch, device: "torch.device", seed: Callable[[], None]
    ) -> "torch.Tensor":
        """Take a step over a batch in host memory.

        Args:
            step: a batch on the device -> its loss summed over rows, the optimiser's update included. It must neither wait
                for the device nor seed a generator; the same in every call.
            batch: rows and spans.
            device: where steps run.
            seed: seeds dropout; called once, before anything is drawn.
        """
        key = _shape(batch)
        if key is not None:
            self._seen[key] += 1
            ready = not self._failed and len(self._captured) < MOST and self._seen[key] > WARM_UP
            if ready and key not in self._captured:
                self._try_capture(step, key, batch, device)
            if (held := self._captured.get(key)) is not None:
                _copy(batch, held.batch)
                seed()
                held.replay()
                return held.total
        seed()
        return step(batch.to(device))

    def __len__(self) -> int:
        return len(self._captured)

    def _try_capture(
        self, step: Step, key: tuple[int, int, int], batch: SegmentedBatch, device: "torch.device"
    ) -> None:
        static = batch.to(device)
        try:
            with _no_collection(first=not self._captured):
                replay, total = self._capture(lambda: step(static))
        except RunError:
            raise
        except RuntimeError as error:
            self._failed = True
            self._note(f"CUDA graphs are not used here, steps run one by one: {one_line(error)}")
            return
        self._captured[key] = Captured(static, replay, total)


@contextlib.contextmanager
def _no_collection(first: bool) -> Iterator[None]:
    """Let Python look for cycles before the first capture and not during any: what it finds may own memory of the device,
    which nothing may free while a capture goes on.
    """
    if first:
        gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _shape(batch: SegmentedBatch) -> tuple[int, int, int] | None:
    """(rows, T, longest) of a batch in spans: all that a captured step depends on besides numbers."""
    if not isinstance(batch.segments, Spans):
        return None
    return len(batch), len(batch.packed.input_ids), batch.segments.longest


def _copy(batch: SegmentedBatch, onto: SegmentedBatch) -> None:
    """The numbers of a batch into those a graph reads, queued behind what the device still does with the old ones."""
    assert isinstance(batch.segments, Spans)
    assert isinstance(onto.segments, Spans)
    new, old = batch.packed, onto.packed
    for source, target in (
        (new.input_ids, old.input_ids), (new.positions, old.positions), (new.order, old.order),
        (new.labels, old.labels), (batch.segments.borders, onto.segments.borders),
    ):  # fmt: skip
        target.copy_(source, non_blocking=True)


def cuda_capture(optimizer: "torch.optim.Optimizer", stream: "torch.cuda.Stream") -> Capture:
    """Capturing on the stream that plain steps run on, too: gradients are accumulated on the stream of their first use.

    Args:
        optimizer: asked by torch to declare that it can be captured, but to declare so only then.
        stream: of all steps.
    """
    import torch

    pool = torch.cuda.graph_pool_handle()

    def capture(run: "Callable[[], torch.Tensor]") -> "tuple[Callable[[], None], torch.Tensor]":
        graph = torch.cuda.CUDAGraph()
        _declare(optimizer, True)
        try:
            # other threads may call CUDA meanwhile: only this one is held to account
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                total = run()
        except RuntimeError:
            optimizer.zero_grad(set_to_none=True)  # half a step's gradients, which no kernel has written
            _recover()
            raise
        finally:
            _declare(optimizer, False)
        return graph.replay, total

    return capture


def _declare(optimizer: "torch.optim.Optimizer", capturable: bool) -> None:
    for group in optimizer.param_groups:
        group["capturable"] = capturable


def _recover() -> None:
    """See that the device and its random numbers still work after a capture that failed.

    Raises:
        RunError: they do not; torch cannot always undo half a capture.
    """
    import torch

    try:
        torch.cuda.synchronize()
        torch.rand(1, device="cuda").item()
    except RuntimeError as error:
        raise RunError(
            f"Capturing a step as a CUDA graph failed and left the GPU unusable for this process: {error}. Continue with: "
            "newslora train --resume RUN, after setting cuda_graphs = false in its recipe.toml."
        ) from error
