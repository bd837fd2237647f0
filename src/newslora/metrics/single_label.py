"""Every number of an evaluation in which each row has one label."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.basic import Labels, Probabilities, divided, row_briers, row_losses
from newslora.metrics.calibration import BINS, bin_of, calibration_numbers, reliability, top_answers
from newslora.metrics.classes import KINDS, NO_ROWS, class_means, class_rates, macro_rate
from newslora.metrics.intervals import (
    CONFIDENCE_LEVEL,
    Bounds,
    Statistics,
    Weights,
    auroc_score,
    bootstrap,
    rate,
    undefined,
    wilson,
)
from newslora.metrics.ranking import Ranking

ONE_LABEL = "the rows are all of one label"
ALL_ROWS = "all rows are of this label"
PASSES = 8  # sums a row takes part in; AUROC adds one a label


def full_metrics(labels: Labels, probabilities: Probabilities, names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Every number of an evaluation, each with its 95 % interval `[low, high]`.

    Accuracy and each class's precision and recall are shares: Wilson's score interval, and one from it for F1
    (newslora.metrics.classes, also on what macro averages are over). The others: percentile bootstrap over rows. Where no
    resample moves them, AUROC has a score interval and the others none, for a `reason`. A number the rows do not define is
    null, with a `reason` too.

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
    per_class = {name: _class(k, matrix, values, bounds) for k, name in enumerate(names)}
    overall = {name: rate(value, bounds[name]) for name, value in values.items() if "/" not in name}
    for kind in KINDS:
        name = f"macro_{kind}"
        overall[name] = macro_rate(kind, values[name], bounds[name], per_class)
    if math.isnan(values["mcc"]):
        overall["mcc"] = undefined(ONE_LABEL)
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

    predicted = probabilities.argmax(axis=1)
    means = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)[:3]
    found = {f"macro_{kind}": float(value) for kind, value in zip(KINDS, means, strict=True)}
    # scikit-learn says 0, which reads as no better than chance where every row may be right
    found["mcc"] = float(matthews_corrcoef(labels, predicted)) if np.ptp(labels) else math.nan
    found |= calibration_numbers(labels, probabilities)
    for k in _ranked(labels, classes):
        found[f"auroc/{k}"] = float(roc_auc_score(labels == k, probabilities[:, k]))
    return found


def _class(k: int, matrix: NDArray[np.int64], values: dict[str, float], bounds: dict[str, Bounds]) -> dict[str, Any]:
    """One label's numbers; `matrix` is the confusion matrix, its rows true."""
    hits, given, rows = int(matrix[k, k]), int(matrix[:, k].sum()), int(matrix[k].sum())
    if (name := f"auroc/{k}") in values:
        auroc = rate(values[name], bounds[name] or auroc_score(values[name], rows, int(matrix.sum()) - rows))
    else:
        auroc = undefined(ALL_ROWS if rows else NO_ROWS)
    return class_rates(hits, given, rows) | {"auroc": auroc, "rows": rows}


def _ranked(labels: Labels, classes: int) -> list[int]:
    """Label ids with rows of their own and rows of others: what an AUROC needs."""
    counts = np.bincount(labels, minlength=classes)
    return [k for k in range(classes) if 0 < counts[k] < len(labels)]


def _macro_auroc(per_class: dict[str, dict[str, Any]], bounds: dict[str, Bounds]) -> dict[str, Any]:
    """The mean over labels. Where no resample moves it, its bounds are the means of theirs.

    Their distances are not added as independent ones are in newslora.metrics.classes: every row ranks for each label, and of
    two labels both have the same AUROC, whose interval the mean then has.
    """
    ranked = [own["auroc"] for own in per_class.values() if own["auroc"]["value"] is not None]
    if not ranked:
        return {"auroc": undefined(ONE_LABEL)}
    sides = zip(*(one["interval"] for one in ranked), strict=True)
    found = rate(
        float(np.mean([one["value"] for one in ranked])), bounds["auroc"] or [float(np.mean(side)) for side in sides]
    )
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
        found = class_means(hits, predicted, true)
        found |= {"mcc": _mcc(true, predicted, hits), "log_loss": log_loss, "brier": brier}
        found |= {"ece": np.abs(gaps).sum(axis=0) / rows, "confidence": confidence}
        ranked = {f"auroc/{k}": ranking.auroc(weights) for k, ranking in self.rankings.items()}
        if ranked:
            found |= ranked | {"auroc": _mean_of_defined(np.stack(list(ranked.values())))}
        return found


def _mcc(true: NDArray[np.float64], predicted: NDArray[np.float64], hits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, B) counts by label -> (B,) Matthews' coefficient of many labels (Gorodkin 2004).

    NaN where the rows are all of one label; 0 where only the answers are, as scikit-learn has it.
    """
    rows = true.sum(axis=0)
    covariance = hits.sum(axis=0) * rows - (true * predicted).sum(axis=0)
    of_rows, of_answers = (rows**2 - (counts**2).sum(axis=0) for counts in (true, predicted))
    return np.where(of_rows > 0, divided(covariance, np.sqrt(of_rows * of_answers)), np.nan)


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(labels, B) -> (B,) mean without NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return divided(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0), np.nan)
