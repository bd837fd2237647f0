"""Every number of an evaluation in which a row may carry several labels, or none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.basic import Logits, Probabilities, divided
from newslora.metrics.classes import NO_ROWS, NOTHING, class_means, class_rates, macro_rate
from newslora.metrics.intervals import (
    CONFIDENCE_LEVEL,
    Bounds,
    Statistics,
    Weights,
    bootstrap,
    f1_share,
    rate,
    undefined,
    wilson,
)
from newslora.metrics.ranking import Ranking

Indicators = NDArray[np.bool_]  # (rows, labels) whether a row carries a label
Thresholds = NDArray[np.float64]  # (labels,) probability from which a label is given

HALF = 0.5
PASSES = 10  # sums a row takes part in; average precision adds one a label


def sigmoid(logits: Logits) -> Probabilities:
    """(rows, labels) logits -> the probability of each label by itself, in float64."""
    from scipy.special import expit

    return np.asarray(expit(logits.astype(np.float64)))


def losses_of_rows(indicators: Indicators, probabilities: Probabilities) -> NDArray[np.float64]:
    """(rows,) binary cross-entropy of each row in nats, mean over labels."""
    of_truth = np.where(indicators, probabilities, 1 - probabilities)
    return np.asarray(-np.log(np.clip(of_truth, np.finfo(np.float64).tiny, None)).mean(axis=1))


def quick_multi_metrics(
    indicators: Indicators, probabilities: Probabilities, thresholds: Thresholds | float = HALF
) -> dict[str, float]:
    """Loss, accuracy (a row counts when all its labels are right: subset accuracy), micro and macro F1.

    Macro F1 is over the labels that are carried or given. Where none is, both are 0 here: an epoch needs a number.
    """
    from sklearn.metrics import accuracy_score, f1_score

    predicted = probabilities >= thresholds
    return {
        "loss": float(losses_of_rows(indicators, probabilities).mean()),
        "accuracy": float(accuracy_score(indicators, predicted)),
        "micro_f1": float(f1_score(indicators, predicted, average="micro", zero_division=0)),
        "macro_f1": 0.0 if np.isnan(macro := _macro_f1(indicators, predicted)) else macro,
    }


def full_multi_metrics(
    indicators: Indicators, probabilities: Probabilities, thresholds: Thresholds, names: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Every number of an evaluation, each with its 95 % interval `[low, high]`.

    Accuracy and each label's precision and recall are shares: Wilson's score interval, and one from it for F1
    (newslora.metrics.classes, also on what macro F1 is over). The others: percentile bootstrap over rows, or no interval where
    no resample moves them, for a `reason`. A number the rows do not define is null, with a `reason` too.

    Args:
        indicators: (R, C), R at least 1.
        probabilities: (R, C), each label by itself.
        thresholds: (C,) from which a label is given.
        names: C label names in id order.
        seed: of the resampling.

    Returns:
        `accuracy` (all labels of a row right), `micro_f1`, `macro_f1`, `samples_f1` (mean over rows; 1 where a row without
        labels is given none), `hamming_loss` (share of single answers that are wrong), `log_loss` (binary cross-entropy in
        nats, mean over labels; `loss` is the same without interval), `at_half` (what 0.5 for every label would come to),
        `per_class` with `threshold`, `average_precision` and the 2x2 `counts` of each label.
    """
    from sklearn.metrics import multilabel_confusion_matrix

    predicted = probabilities >= thresholds
    exact = int((predicted == indicators).all(axis=1).sum())
    values = _values(indicators, probabilities, predicted)
    statistics = _RowStatistics(indicators, probabilities, predicted)
    bounds = bootstrap(statistics, len(indicators), PASSES + len(statistics.rankings), seed)
    counts = multilabel_confusion_matrix(indicators, predicted)
    per_class = {}
    for k, name in enumerate(names):
        (true_negatives, false_positives), (false_negatives, true_positives) = counts[k].tolist()
        rows = false_negatives + true_positives
        per_class[name] = {
            **class_rates(true_positives, true_positives + false_positives, rows),
            "average_precision": rate(values[f"average_precision/{k}"], bounds[f"average_precision/{k}"])
            if rows
            else undefined(NO_ROWS),
            "rows": rows,
            "threshold": float(thresholds[k]),
            "counts": {
                "true_positives": true_positives, "false_positives": false_positives,
                "false_negatives": false_negatives, "true_negatives": true_negatives,
            },
        }  # fmt: skip
    overall = {name: rate(value, bounds[name]) for name, value in values.items() if "/" not in name}
    overall["macro_f1"] = macro_rate("f1", values["macro_f1"], bounds["macro_f1"], per_class)
    for name in ("samples_f1", "hamming_loss"):
        overall[name] = _mean_rate(values[name], bounds[name], len(indicators))
    overall["micro_f1"] = _micro_rate(values["micro_f1"], bounds["micro_f1"], indicators, predicted)
    return {
        "rows": len(indicators),
        "multi_label": True,
        "accuracy": rate(exact / len(indicators), wilson(exact, len(indicators))),
        **overall,
        "loss": overall["log_loss"]["value"],
        "at_half": quick_multi_metrics(indicators, probabilities),
        "labels_a_row": float(indicators.sum(axis=1).mean()),
        "per_class": per_class,
        "labels": list(names),
        "confidence_level": CONFIDENCE_LEVEL,
    }


def _macro_f1(indicators: Indicators, predicted: Indicators) -> float:
    """Mean over the labels that are carried or given; NaN where none is."""
    from sklearn.metrics import f1_score

    return float(f1_score(indicators, predicted, average="macro", zero_division=np.nan))


def _mean_rate(value: float, bounds: Bounds, rows: int) -> dict[str, Any]:
    """A mean of what each row has between 0 and 1.

    Where all rows have the same end of that, the share of rows that have it has Wilson's interval; a row that has it not
    moves the mean by no more than that share.
    """
    return rate(value, wilson(round(value * rows), rows) if bounds is None and value in (0, 1) else bounds)


def _micro_rate(value: float, bounds: Bounds, indicators: Indicators, predicted: Indicators) -> dict[str, Any]:
    """Micro F1; where no resample moves it, as where all is right, with the interval of the F1 of one label."""
    pooled = f1_share(int((indicators & predicted).sum()), int((indicators ^ predicted).sum()), NOTHING)
    return rate(value, bounds) if bounds else pooled


def _values(indicators: Indicators, probabilities: Probabilities, predicted: Indicators) -> dict[str, float]:
    """Name -> value, as scikit-learn has it; of one label under `metric/label id`."""
    from sklearn.metrics import average_precision_score, f1_score, hamming_loss

    found = {
        "micro_f1": float(f1_score(indicators, predicted, average="micro", zero_division=np.nan)),
        "macro_f1": _macro_f1(indicators, predicted),
        "samples_f1": float(f1_score(indicators, predicted, average="samples", zero_division=1)),
        "hamming_loss": float(hamming_loss(indicators, predicted)),
        "log_loss": float(losses_of_rows(indicators, probabilities).mean()),
    }
    for k in np.flatnonzero(indicators.any(axis=0)):
        found[f"average_precision/{k}"] = float(average_precision_score(indicators[:, k], probabilities[:, k]))
    return found


class _RowStatistics:
    """The same numbers as functions of row weights, for the bootstrap."""

    def __init__(self, indicators: Indicators, probabilities: Probabilities, predicted: Indicators) -> None:
        self.labels = indicators.shape[1]
        hits = indicators & predicted
        both = indicators.sum(axis=1) + predicted.sum(axis=1)
        of_row = divided(2 * hits.sum(axis=1), both, 1.0)
        means = (of_row, (indicators != predicted).mean(axis=1), losses_of_rows(indicators, probabilities))
        # a row a sum: labels carried, given and rightly given, then three means over rows
        self.sums = np.concatenate([indicators.T, predicted.T, hits.T, np.stack(means)]).astype(np.float64)
        self.rankings = {
            int(k): Ranking(indicators[:, k], probabilities[:, k]) for k in np.flatnonzero(indicators.any(axis=0))
        }

    def __call__(self, weights: Weights) -> Statistics:
        c, sums = self.labels, self.sums @ weights
        true, given, hits = sums[:c], sums[c : 2 * c], sums[2 * c : 3 * c]
        samples_f1, hamming, log_loss = sums[3 * c :] / len(weights)
        micro = divided(2 * hits.sum(axis=0), true.sum(axis=0) + given.sum(axis=0), np.nan)
        macro = class_means(hits, given, true)["macro_f1"]
        found = {"micro_f1": micro, "macro_f1": macro, "samples_f1": samples_f1}
        found |= {"hamming_loss": hamming, "log_loss": log_loss}
        return found | {f"average_precision/{k}": one.average_precision(weights) for k, one in self.rankings.items()}
