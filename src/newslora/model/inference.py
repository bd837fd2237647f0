"""Rows -> logits: the forward pass that evaluation, prediction and the loop's own validation share."""

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from newslora.data.batches import Rows, load_batches, sorted_batches
from newslora.model.engine import Engine


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
        rows: R rows; they run longest first, so batches hold rows of like length.
        batch_size: most rows a forward pass.
        batch_tokens: most tokens a forward pass, padding counted (a single longer row runs alone).
        progress: told the rows of each finished batch.

    Returns:
        (R, C) float32.
    """
    import torch

    plan = sorted_batches(rows.tokens.lengths, batch_size, batch_tokens)
    logits = np.zeros((len(rows), engine.model.config.num_labels), dtype=np.float32)
    on_gpu = engine.device.type == "cuda"
    batches = load_batches(rows, plan, engine.collate, workers=0, pin=on_gpu)
    queued: deque[tuple[NDArray[np.int64], torch.Tensor]] = deque()

    def read(keep: int) -> None:
        while len(queued) > keep:
            chunk, answer = queued.popleft()
            logits[chunk] = answer.cpu().numpy()  # waits for the device, with `keep` batches still queued
            progress(len(chunk))

    with torch.inference_mode():
        for chunk, batch in zip(plan, batches, strict=True):
            queued.append((chunk, engine.logits(batch.to(engine.device))))
            read(keep=int(on_gpu))
        read(keep=0)
    return logits
