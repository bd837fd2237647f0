"""Every number of an evaluation in which each row has one label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.basic import Labels, Probabilities, row_briers, row_losses
from newslora.metrics.calibration import BINS, bin_of, calibration_numbers, reliability, top_answers
from newslora.metrics.intervals import CONFIDENCE_LEVEL, Statistics, Weights, bootstrap, rate, undefined, wilson
from newslora.metrics.ranking import Ranking

PASSES = 8  # sums a row takes part in; AUROC adds one a label


def full_metrics(labels: Labels, probabilities: Probabilities, names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Every number of an evaluation, each with its 95 % interval `[low, high]`.

    Accuracy and recall are shares of a fixed number of rows: Wilson's score interval. The others: percentile bootstrap
    over rows. A number the rows do not define is null, with a `reason`.

    Args:
        labels: (R,) label ids, R at least 1.
        probabilities: (R, C).
        names: C label names in id order.
        seed: of the resampling.

    Returns:
        `accuracy`, `macro_precision`, `macro_recall`, `macro_f1`, `mcc` (Matthews' coefficient; Gorodkin 2004), `log_loss`
        (nats; `loss` is the same without interval, as metrics.jsonl calls it), `brier` (summed over labels: 0 to 2),
        `ece` (15 bins), `auroc` (one label against the others, mean over labels), `confidence` (mean probability of the
        answer), `per_class`, `confusion`, `reliability`.
    """
    from sklearn.metrics import confusion_matrix

    hits, confidence = top_answers(labels, probabilities)
    every = np.arange(len(names))
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), labels=every)
    values = _values(labels, probabilities, len(names))
    statistics = _RowStatistics(labels, probabilities)
    bounds = bootstrap(statistics, len(labels), PASSES + len(statistics.rankings), seed)
    overall = {name: rate(value, bounds[name]) for name, value in values.items() if "/" not in name}
    per_class = {
        name: {
            "precision": rate(values[f"precision/{k}"], bounds[f"precision/{k}"]),
            "recall": rate(values[f"recall/{k}"], wilson(int(matrix[k, k]), int(matrix[k].sum()))),
            "f1": rate(values[f"f1/{k}"], bounds[f"f1/{k}"]),
            "auroc": rate(values[f"auroc/{k}"], bounds[f"auroc/{k}"])
            if f"auroc/{k}" in values
            else undefined("all rows are of this label" if matrix[k].any() else "no rows of this label"),
            "rows": int(matrix[k].sum()),
        }
        for k, name in enumerate(names)
    }
    return {
        "rows": len(labels),
        "accuracy": rate(float(hits.mean()), wilson(int(hits.sum()), len(labels))),
        **overall,
        **_macro_auroc(per_class, bounds),
        "loss": overall["log_loss"]["value"],
        "per_class": per_class,
        "confusion": matrix.tolist(),
        "labels": list(names),
        "confidence_level": CONFIDENCE_LEVEL,
        "reliability": reliability(hits, confidence),
    }


def _values(labels: Labels, probabilities: Probabilities, classes: int) -> dict[str, float]:
    """Name -> value, as scikit-learn has it; of one label under `metric/label id`."""
    from sklearn.metrics import matthews_corrcoef, precision_recall_fscore_support, roc_auc_score

    predicted, every = probabilities.argmax(axis=1), np.arange(classes)
    scores = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)[:3]
    found = {
        f"macro_{kind}": float(values.mean())
        for kind, values in zip(("precision", "recall", "f1"), scores, strict=True)
    }
    one_label = len(np.union1d(labels, predicted)) == 1  # scikit-learn's answer is 0 too, with a warning
    found["mcc"] = 0.0 if one_label else float(matthews_corrcoef(labels, predicted))
    found |= calibration_numbers(labels, probabilities)
    for kind, values in zip(("precision", "recall", "f1"), scores, strict=True):
        found |= {f"{kind}/{k}": float(values[k]) for k in every}
    for k in _ranked(labels, classes):
        found[f"auroc/{k}"] = float(roc_auc_score(labels == k, probabilities[:, k]))
    return found


def _ranked(labels: Labels, classes: int) -> list[int]:
    """Label ids with rows of their own and rows of others: what an AUROC needs."""
    counts = np.bincount(labels, minlength=classes)
    return [k for k in range(classes) if 0 < counts[k] < len(labels)]


def _macro_auroc(per_class: dict[str, dict[str, Any]], bounds: dict[str, list[float]]) -> dict[str, Any]:
    values = [own["auroc"]["value"] for own in per_class.values() if own["auroc"]["value"] is not None]
    if not values:
        return {"auroc": undefined("the rows are all of one label")}
    found = rate(float(np.mean(values)), bounds["auroc"])
    if left_out := [name for name, own in per_class.items() if own["auroc"]["value"] is None]:
        found["reason"] = f"mean over the labels with rows; without: {', '.join(left_out)}"
    return {"auroc": found}


class _RowStatistics:
    """The same numbers as functions of row weights, for the bootstrap: all but AUROC follow from sums over rows."""

    def __init__(self, labels: Labels, probabilities: Probabilities) -> None:
        from scipy.sparse import csr_array

        rows, self.classes = probabilities.shape
        hits, confidence = top_answers(labels, probabilities)
        every, ones = np.arange(rows), np.ones(rows)
        # (which sum, which row, how much): true label, predicted label, hit, gap of the bin, and three plain means
        parts = [
            (labels, every, ones),
            (self.classes + probabilities.argmax(axis=1), every, ones),
            (2 * self.classes + labels[hits], every[hits], ones[hits]),
            (3 * self.classes + bin_of(confidence), every, hits - confidence),
        ]
        plain = (row_losses(labels, probabilities), row_briers(labels, probabilities), confidence)
        parts += [(np.full(rows, 3 * self.classes + BINS + place), every, one) for place, one in enumerate(plain)]
        sums, places, amounts = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.sums = csr_array((amounts, (sums, places)), shape=(3 * self.classes + BINS + len(plain), rows))
        self.rankings = {k: Ranking(labels == k, probabilities[:, k]) for k in _ranked(labels, self.classes)}

    def __call__(self, weights: Weights) -> Statistics:
        rows, c = len(weights), self.classes
        sums = np.asarray(self.sums @ weights)
        true, predicted, hits, gaps = sums[:c], sums[c : 2 * c], sums[2 * c : 3 * c], sums[3 * c : 3 * c + BINS]
        log_loss, brier, confidence = sums[3 * c + BINS :] / rows
        scores = {
            "precision": _divide(hits, predicted), "recall": _divide(hits, true), "f1": _divide(2 * hits, true + predicted),
        }  # fmt: skip
        found = {f"macro_{kind}": values.mean(axis=0) for kind, values in scores.items()}
        found |= {"mcc": _mcc(true, predicted, hits), "log_loss": log_loss, "brier": brier}
        found |= {"ece": np.abs(gaps).sum(axis=0) / rows, "confidence": confidence}
        for kind in ("precision", "f1"):
            found |= {f"{kind}/{k}": scores[kind][k] for k in range(c)}
        ranked = {f"auroc/{k}": ranking.auroc(weights) for k, ranking in self.rankings.items()}
        if ranked:
            found |= ranked | {"auroc": _mean_of_defined(np.stack(list(ranked.values())))}
        return found


def _mcc(true: NDArray[np.float64], predicted: NDArray[np.float64], hits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, B) counts by label -> (B,) Matthews' coefficient of many labels (Gorodkin 2004); 0 where it divides by 0."""
    rows = true.sum(axis=0)
    covariance = hits.sum(axis=0) * rows - (true * predicted).sum(axis=0)
    spread = (rows**2 - (true**2).sum(axis=0)) * (rows**2 - (predicted**2).sum(axis=0))
    return _divide(covariance, np.sqrt(spread))


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(labels, B) -> (B,) mean without NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    found = np.full(count.shape, np.nan)
    np.divide(np.where(defined, values, 0).sum(axis=0), count, out=found, where=count > 0)
    return found


def _divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where there is nothing to divide by, as scikit-learn's zero_division=0."""
    return np.divide(top, bottom, out=np.zeros_like(top, dtype=np.float64), where=bottom > 0)
