"""What training looks at after each epoch: the numbers that choose it, and how much of each label is found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.data.batches import Rows
from newslora.data.combinations import rows_of_labels
from newslora.metrics.basic import Logits, quick_metrics, softmax
from newslora.metrics.multi_label import HALF, quick_multi_metrics, sigmoid


def validation_metrics(rows: Rows, logits: Logits, names: Sequence[str]) -> dict[str, Any]:
    """Loss (plain cross-entropy whatever is minimised, so that runs compare), accuracy, macro F1, and recall by label.

    Where rows carry several labels: binary cross-entropy, subset accuracy, micro F1 too, a label given from 0.5 on; better
    thresholds are tuned when training has ended.
    """
    if rows.combinations is None:
        labels = np.asarray(rows.labels)
        hits = labels[logits.argmax(axis=1) == labels]
        found, present = (np.bincount(one, minlength=len(names)) for one in (hits, labels))
        return quick_metrics(labels, softmax(logits)) | {"recall": _recall(found, present, names)}
    indicators, probabilities = rows.combinations[rows.labels], sigmoid(logits)
    found = (indicators & (probabilities >= HALF)).sum(axis=0)
    return quick_multi_metrics(indicators, probabilities) | {"recall": _recall(found, indicators.sum(axis=0), names)}


def frequency_loss(train: Rows, validation: Rows, names: Sequence[str]) -> float:
    """Validation loss of whoever knows nothing but how frequent each label is among the training rows.

    One is added to every count (Laplace's rule of succession), so that no label costs infinitely much.
    """
    counts = rows_of_labels(train.labels, train.combinations, len(names)) + 1
    if train.combinations is None:
        logits = np.log(counts / counts.sum())
    else:
        rate = counts / (len(train) + 2)
        logits = np.log(rate / (1 - rate))
    everywhere = np.broadcast_to(logits.astype(np.float32), (len(validation), len(names)))
    loss: float = validation_metrics(validation, everywhere, names)["loss"]
    return loss


def _recall(found: NDArray[np.int64], present: NDArray[np.int64], names: Sequence[str]) -> dict[str, float | None]:
    """None for a label without validation rows: JSON knows no NaN."""
    return {name: float(found[k] / present[k]) if present[k] else None for k, name in enumerate(names)}
