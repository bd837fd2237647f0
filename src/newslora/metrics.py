"""Labels and probabilities -> numbers. Pure; scikit-learn and scipy do the arithmetic."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]  # (rows,) label ids
Probabilities = NDArray[np.float64]  # (rows, labels), rows sum to 1

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # (..., C, C) confusion counts -> (...)

CONFIDENCE_LEVEL = 0.95
RESAMPLES = 2_000


def softmax(logits: NDArray[np.float32]) -> Probabilities:
    """(rows, labels) logits -> probabilities in float64, so that rows sum to 1 within 1e-15."""
    from scipy.special import softmax as scipy_softmax

    return np.asarray(scipy_softmax(logits.astype(np.float64), axis=-1))


def quick_metrics(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Loss (mean cross-entropy, nats), accuracy and macro F1: what training looks at after each epoch."""
    from sklearn.metrics import accuracy_score, f1_score

    predicted = probabilities.argmax(axis=1)
    own = probabilities[np.arange(len(labels)), labels]
    every = np.arange(probabilities.shape[1])
    return {
        "loss": float(-np.log(np.clip(own, np.finfo(np.float64).tiny, None)).mean()),
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, labels=every, average="macro", zero_division=0)),
    }


def full_metrics(labels: Labels, probabilities: Probabilities, names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Every number of an evaluation, each rate with its 95 % interval `[low, high]`.

    Accuracy and recall are shares of a fixed number of rows: Wilson's score interval (Wilson 1927, as
    `scipy.stats.binomtest` gives it). Precision, F1 and macro F1 have random denominators: percentile bootstrap over
    rows (`scipy.stats.bootstrap`).
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted = probabilities.argmax(axis=1)
    every = np.arange(len(names))
    quick = quick_metrics(labels, probabilities)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    matrix = confusion_matrix(labels, predicted, labels=every)

    def interval(statistic: Statistic) -> list[float]:
        return _bootstrap(labels, predicted, len(names), statistic, seed)

    per_class = {
        name: {
            "precision": _rate(precision[k], interval(partial(_precision_of, k))),
            "recall": _rate(recall[k], _wilson(int(matrix[k, k]), int(support[k]))),
            "f1": _rate(f1[k], interval(partial(_f1_of, k))),
            "rows": int(support[k]),
        }
        for k, name in enumerate(names)
    }
    return {
        "rows": len(labels),
        "accuracy": _rate(quick["accuracy"], _wilson(int((predicted == labels).sum()), len(labels))),
        "macro_f1": _rate(quick["macro_f1"], interval(lambda m: _f1(m).mean(-1))),
        "loss": quick["loss"],
        "per_class": per_class,
        "confusion": matrix.tolist(),
        "labels": list(names),
        "confidence_level": CONFIDENCE_LEVEL,
    }


def _rate(value: float, bounds: list[float]) -> dict[str, Any]:
    return {"value": float(value), "interval": bounds}


def _wilson(hits: int, rows: int) -> list[float]:
    from scipy.stats import binomtest

    if rows == 0:
        return [0.0, 1.0]  # no rows, no knowledge
    bounds = binomtest(hits, rows).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return [float(bounds.low), float(bounds.high)]


def _bootstrap(
    labels: Labels,
    predicted: Labels,
    classes: int,
    statistic: Statistic,
    seed: int,
) -> list[float]:
    """Percentile interval of a function of the confusion matrix, resampling rows with replacement.

    It is widened to hold the value itself: where resamples often miss a whole class, all of them can lie below it.
    """
    from scipy.stats import bootstrap

    cells = classes * classes

    def of_rows(flat: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        """(..., rows) cell numbers -> (...,) statistic of the confusion matrix they add up to."""
        rows = np.moveaxis(np.asarray(flat), axis, -1)
        many = rows.reshape(-1, rows.shape[-1])
        shifted = many + cells * np.arange(len(many))[:, None]
        counts = np.bincount(shifted.ravel(), minlength=cells * len(many)).astype(np.float64)
        return np.asarray(statistic(counts.reshape(*rows.shape[:-1], classes, classes)))

    flat = labels * classes + predicted
    value = float(of_rows(flat))
    if len(flat) < 2 or (flat == flat[0]).all():
        return [value, value]
    result = bootstrap(
        (flat,),
        of_rows,
        n_resamples=RESAMPLES,
        batch=max(1, 20_000_000 // len(flat)),  # bounds the index array to some 160 MB
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE_LEVEL,
        rng=np.random.default_rng(seed),
    )
    bounds = result.confidence_interval
    return [min(float(bounds.low), value), max(float(bounds.high), value)]


def _precision_of(label: int, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return _divide(matrix[..., label, label], matrix[..., :, label].sum(-1))


def _f1_of(label: int, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return _f1(matrix)[..., label]


def _f1(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., classes, classes) confusion counts -> (..., classes) F1."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _divide(2 * hits, matrix.sum(-1) + matrix.sum(-2))


def _divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where there is nothing to divide by, as scikit-learn's zero_division=0."""
    return np.divide(top, bottom, out=np.zeros_like(top, dtype=np.float64), where=bottom > 0)
