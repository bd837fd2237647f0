"""Paired statistics of classifiers that scored the same rows. Pure; scipy does the arithmetic.

Dimension letters: R rows, K runs, C labels, D contrasts (differences of runs), N resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics import Labels, Probabilities
from newslora.metrics.basic import divided, row_losses
from newslora.metrics.intervals import CONFIDENCE_LEVEL

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

    count, classes = len(contrasts), runs[0].probabilities.shape[1]
    cells = [run.labels * classes + run.predicted for run in runs]
    losses = [run.row_losses for run in runs]

    def differences(rows: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        """(..., R) row numbers -> (3 D, ...) differences, metric by metric."""
        picked = np.moveaxis(np.asarray(rows), axis, -1)
        metrics = np.stack([_metrics(cells[k], losses[k], picked, classes) for k in range(len(runs))])  # (K, 3, ...)
        return np.asarray(np.einsum("dk,km...->md...", contrasts, metrics)).reshape(3 * count, *picked.shape[:-1])

    everything = np.arange(len(runs[0].labels))
    values = differences(everything)
    resamples = int(np.clip(1_000 * count, 2_000, 20_000))  # some 25 in each tail
    result = bootstrap(
        (everything,),
        differences,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // len(everything)),  # bounds the index array to some 80 MB
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


def _metrics(
    cells: NDArray[np.int64], losses: NDArray[np.float64], rows: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """(..., R) row numbers -> (3, ...) accuracy, macro F1 and mean loss of one run on them."""
    many = rows.reshape(-1, rows.shape[-1])
    size = classes * classes
    shifted = cells[many] + size * np.arange(len(many))[:, None]
    counts = np.bincount(shifted.ravel(), minlength=size * len(many)).reshape(-1, classes, classes)
    hits = np.diagonal(counts, axis1=1, axis2=2)
    either = counts.sum(1) + counts.sum(2)  # a label's true and predicted rows
    f1 = divided(2.0 * hits, either)
    # over the labels that occur among these rows or the answers to them, as in newslora.metrics.classes
    macro_f1 = f1.sum(1) / (either > 0).sum(1)
    found = np.stack([hits.sum(1) / rows.shape[-1], macro_f1, losses[many].mean(1)])
    return found.reshape(3, *rows.shape[:-1])
