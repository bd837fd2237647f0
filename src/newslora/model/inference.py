"""Rows -> logits: the forward pass that evaluation, prediction and the loop's own validation share."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from newslora.data.batches import Rows, load_batches, sorted_batches
from newslora.runtime import Precision

if TYPE_CHECKING:
    from peft import PeftModel


def predict_logits(
    model: "PeftModel",
    rows: Rows,
    batch_size: int,
    precision: Precision,
    progress: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.float32]:
    """Logits of every row, in row order.

    Args:
        model: a classifier; put into evaluation mode for the call, and back.
        rows: R rows; they run longest first, so batches hold little padding.
        batch_size: rows a forward pass.
        precision: what to compute in.
        progress: told the rows of each finished batch.

    Returns:
        (R, C) float32.
    """
    import torch

    device = next(model.parameters()).device
    plan = sorted_batches(rows.tokens.lengths, batch_size)
    logits = np.zeros((len(rows), model.config.num_labels), dtype=np.float32)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), precision.autocast(device):
            for chunk, batch in zip(plan, load_batches(rows, plan, workers=0, pin=False), strict=True):
                on_device = batch.to(device)
                out = model(input_ids=on_device.input_ids, attention_mask=on_device.attention_mask).logits
                logits[chunk] = out.float().cpu().numpy()
                progress(len(chunk))
    finally:
        model.train(was_training)
    return logits
