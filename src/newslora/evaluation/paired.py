"""Paired statistics of classifiers that scored the same rows. Pure; scipy does the arithmetic.

Dimension letters: R rows, K runs, C labels, D contrasts (differences of runs), N resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.basic import Labels, Probabilities, row_losses
from newslora.metrics.classes import class_means
from newslora.metrics.intervals import CONFIDENCE_LEVEL, Weights, draw_counts

if TYPE_CHECKING:
    from scipy.sparse import csr_array

METRICS = ("accuracy", "macro_f1", "loss")
SMALLEST = 5e-7  # stored probabilities have six decimals: a 0 among them is somewhere below this


@dataclass(frozen=True, slots=True)
class Scores:
    """What one run said of R rows."""

    labels: Labels  # (R,) the true ones
    predicted: Labels  # (R,)
    probabilities: Probabilities  # (R, C)

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.equal(self.labels, self.predicted)

    @property
    def row_losses(self) -> NDArray[np.float64]:
        """(R,) cross-entropy of each row, nats."""
        return row_losses(self.labels, np.clip(self.probabilities, SMALLEST, None))


def mcnemar(first: Scores, second: Scores) -> tuple[int, int, float]:
    """Rows only the first has right, rows only the second has right, and the exact two-sided p-value.

    Where both are equally accurate, a row on which exactly one is right falls to either with probability 1/2 (McNemar 1947,
    Psychometrika 12:153); the p-value is the binomial's own, as scipy.stats.binomtest gives it, not the chi-square's.
    """
    from scipy.stats import binomtest

    wins = int((first.right & ~second.right).sum())
    losses = int((second.right & ~first.right).sum())
    return wins, losses, float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold for all comparisons together (Holm 1979, Scand. J. Statist. 6:65).

    scipy's `false_discovery_control` bounds another thing, the share of false findings; this, the chance of any.
    """
    order = np.argsort(p_values, kind="stable")
    sorted_p = np.asarray(p_values, dtype=np.float64)[order]
    stepped = np.maximum.accumulate(sorted_p * np.arange(len(sorted_p), 0, -1)).clip(max=1.0)
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return [float(p) for p in adjusted]


def contrast_intervals(
    runs: Sequence[Scores], contrasts: NDArray[np.float64], seed: int = 0
) -> list[dict[str, dict[str, Any]]]:
    """Differences between runs on the same rows, each with an interval: paired percentile bootstrap over rows.

    Args:
        runs: K runs' scores of the same R rows.
        contrasts: (D, K) weights; (1, -1) is the first run less the second. With D of them, each interval has the level
            1 - 0.05 / D (Bonferroni), so that all D of a metric hold together in 95 of 100 cases.
        seed: of the resamples.

    Returns:
        For each contrast and metric of `METRICS`: value and interval.
    """
    from scipy.stats import bootstrap

    count, rows = len(contrasts), len(runs[0].labels)
    sums = [_row_sums(run) for run in runs]

    def differences(weights: Weights) -> NDArray[np.float64]:
        """(R, N) -> (3 D, N) differences, metric by metric."""
        metrics = np.stack([_metrics(one, weights) for one in sums])  # (K, 3, N)
        return np.asarray(np.einsum("dk,kmn->mdn", contrasts, metrics)).reshape(3 * count, -1)

    values = differences(np.ones((rows, 1)))[:, 0]
    resamples = int(np.clip(1_000 * count, 2_000, 20_000))  # some 25 in each tail
    result = bootstrap(
        (np.arange(rows),),
        lambda drawn, axis=-1: differences(draw_counts(np.asarray(drawn), rows)),
        n_resamples=resamples,
        batch=max(1, 10_000_000 // max(rows, sums[0].shape[0])),  # bounds weights and sums to some 80 MB each
        vectorized=True,
        method="percentile",
        confidence_level=1 - (1 - CONFIDENCE_LEVEL) / count,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    table = np.stack([values, result.low, result.high], axis=-1).reshape(3, count, 3)
    return [
        {
            name: {"value": float(value), "interval": [float(low), float(high)]}
            for name, (value, low, high) in zip(METRICS, one, strict=True)
        }
        for one in table.transpose(1, 0, 2)
    ]


def _row_sums(run: Scores) -> "csr_array":
    """(3 C + 1, R) what each row adds: to its true label, to the one given, to the hits of that, and to the loss."""
    from scipy.sparse import csr_array

    rows, classes = run.probabilities.shape
    every, hits, ones = np.arange(rows), np.flatnonzero(run.right), np.ones(rows)
    places = [run.labels, classes + run.predicted, 2 * classes + run.labels[hits], np.full(rows, 3 * classes)]
    amounts = np.concatenate([ones, ones, ones[hits], run.row_losses])
    added_to = (np.concatenate(places), np.concatenate([every, every, hits, every]))
    return csr_array((amounts, added_to), shape=(3 * classes + 1, rows))


def _metrics(sums: "csr_array", weights: Weights) -> NDArray[np.float64]:
    """(R, N) -> (3, N) accuracy, macro F1 and mean loss of one run."""
    found = np.asarray(sums @ weights)
    true, given, hits = found[:-1].reshape(3, -1, weights.shape[1])
    rows = len(weights)
    return np.stack([hits.sum(0) / rows, class_means(hits, given, true)["macro_f1"], found[-1] / rows])
