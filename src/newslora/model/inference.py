"""Rows -> logits: the forward pass that evaluation, prediction and the loop's own validation share."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from newslora.data.batches import Rows, load_batches, sorted_batches
from newslora.model.engine import AnyBatch, Engine
from newslora.runtime import passes_at_once

if TYPE_CHECKING:
    import torch

Answer = Callable[[], "torch.Tensor"]  # waits for a pass that was begun
AHEAD = 1  # passes begun beyond those that run, so that none waits for its batch


def predict_logits(
    engine: Engine,
    rows: Rows,
    *,
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.float32]:
    """Logits of every row, in row order.

    Args:
        engine: a classifier.
        rows: R rows; they run longest first, so batches hold rows of like length. Those of several windows run window by
            window, so that no row is too long for a batch.
        batch_size: most rows (or windows) a forward pass.
        batch_tokens: most tokens a forward pass, padding counted (a single longer row or window runs alone).
        progress: told the rows of each finished batch; a row counts with its first window.

    Returns:
        (R, C) float32.
    """
    if (firsts := rows.tokens.firsts) is not None:
        begins = np.zeros(int(firsts[-1]), dtype=np.int64)
        begins[firsts[:-1]] = 1
        windows = Rows.unlabelled(rows.tokens.windows, rows.pad_id)
        found = _predict(engine, windows, batch_size, batch_tokens, lambda some: progress(int(begins[some].sum())))
        sums: NDArray[np.float32] = np.add.reduceat(found, firsts[:-1])
        return (sums / np.diff(firsts)[:, None]).astype(np.float32)
    return _predict(engine, rows, batch_size, batch_tokens, lambda some: progress(len(some)))


def _predict(
    engine: Engine,
    rows: Rows,
    batch_size: int | None,
    batch_tokens: int | None,
    done: Callable[[NDArray[np.int64]], None],
) -> NDArray[np.float32]:
    """Rows of one window each -> (R, C) logits; `done` is told the row numbers of each finished batch."""
    import torch

    plan = sorted_batches(rows.tokens.lengths, batch_size, batch_tokens)
    logits = np.zeros((len(rows), engine.model.config.num_labels), dtype=np.float32)
    on_gpu = engine.device.type == "cuda"
    batches = load_batches(rows, plan, engine.collate, workers=0, pin=on_gpu)
    at_once = min(passes_at_once(engine.device), len(plan)) if engine.concurrent else 1
    queued: deque[tuple[NDArray[np.int64], Answer]] = deque()

    def read(keep: int) -> None:
        while len(queued) > keep:
            chunk, answer = queued.popleft()
            logits[chunk] = answer().cpu().numpy()  # waits for the device, with `keep` batches still queued
            done(chunk)

    def compute(batch: AnyBatch) -> "torch.Tensor":
        with torch.inference_mode():
            return engine.logits(batch.to(engine.device))

    with _passes(compute, at_once) as begin:
        for chunk, batch in zip(plan, batches, strict=True):
            queued.append((chunk, begin(batch)))
            read(keep=at_once - 1 + AHEAD if at_once > 1 else int(on_gpu))
        read(keep=0)
    return logits


@contextlib.contextmanager
def _passes(compute: "Callable[[AnyBatch], torch.Tensor]", at_once: int) -> "Iterator[Callable[[AnyBatch], Answer]]":
    """Begins passes, `at_once` of them beside each other, each with its part of torch's threads."""
    import torch

    if at_once <= 1:

        def now(batch: AnyBatch) -> Answer:
            answer = compute(batch)
            return lambda: answer

        yield now
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, "newslora-pass", torch.set_num_threads, (max(1, threads // at_once),))
    try:
        yield lambda batch: pool.submit(compute, batch).result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)  # what the threads set is their own, but for MKL's and that of later threads
