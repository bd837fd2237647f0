"""The types all metrics share, probabilities out of logits, and what training looks at after each epoch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]  # (rows,) label ids
Logits = NDArray[np.float32]  # (rows, labels)
Probabilities = NDArray[np.float64]  # (rows, labels), rows sum to 1
Hits = NDArray[np.bool_]  # (rows,) whether the likeliest label is the right one

SHARES = (  # of an evaluation's metrics, those shown in per cent
    "accuracy", "macro_precision", "macro_recall", "macro_f1", "micro_f1", "samples_f1", "hamming_loss", "ece", "confidence",
)  # fmt: skip


def softmax(logits: Logits, temperature: float = 1.0) -> Probabilities:
    """(rows, labels) logits, divided by a temperature -> probabilities in float64: rows sum to 1 within 1e-15."""
    # SciPy's, without its questions to each array: a server would pay for them with every request
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def quick_metrics(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Loss (mean cross-entropy, nats), accuracy and macro F1, over the classes among the rows or the answers."""
    from sklearn.metrics import accuracy_score, f1_score

    predicted = probabilities.argmax(axis=1)
    return {
        "loss": float(row_losses(labels, probabilities).mean()),
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def divided(top: NDArray[Any], bottom: NDArray[Any], otherwise: float = 0.0) -> NDArray[np.float64]:
    """`top / bottom`; `otherwise` where there is nothing to divide by: 0, as scikit-learn has it in its means."""
    filled = np.full(np.broadcast_shapes(top.shape, bottom.shape), otherwise, dtype=np.float64)
    np.divide(top, bottom, out=filled, where=bottom > 0)
    return filled


def row_losses(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """(rows,) cross-entropy of each row in nats; a right label given nothing at all costs some 708."""
    own = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.clip(own, np.finfo(np.float64).tiny, None)))


def row_briers(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """(rows,) squared distance of each row's probabilities from the right answer: 0 to 2 (Brier 1950)."""
    right = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - right) ** 2).sum(axis=1))
