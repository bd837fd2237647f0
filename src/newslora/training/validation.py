"""What training looks at after each epoch: the numbers that choose it, and how much of each class is found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics import quick_metrics, softmax


def validation_metrics(labels: NDArray[np.int64], logits: NDArray[np.float32], names: Sequence[str]) -> dict[str, Any]:
    """Loss (plain cross-entropy whatever is minimised, so that runs compare), accuracy, macro F1, and recall by label.

    Args:
        labels: (R,) label ids.
        logits: (R, C).
        names: C label names.
    """
    found = np.bincount(labels[logits.argmax(axis=1) == labels], minlength=len(names))
    rows = np.bincount(labels, minlength=len(names))
    # JSON knows no NaN: a label without validation rows has no recall
    recall = {name: float(found[k] / rows[k]) if rows[k] else None for k, name in enumerate(names)}
    return quick_metrics(labels, softmax(logits)) | {"recall": recall}
