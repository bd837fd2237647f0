"""Values with 95 % intervals: score intervals for shares and for a perfect ranking, the bootstrap over rows for the rest."""

import math
import warnings
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)  # 1.96, how many standard errors that is on either side
RESAMPLES = 2_000
FEWEST_RESAMPLES = 500  # the ends of a 95 % interval still rest on a dozen of them
WORK = 1_000_000_000  # rows x resamples x statistics of a row before resamples are saved: some ten seconds of one core
CELLS = 1_000_000  # row weights held at once: some 8 MB an array
UNMOVED = "no interval: every resample of the rows gives this value"

Weights = NDArray[np.float64]  # (rows, resamples) how often each row was drawn
Bounds = list[float] | None  # [low, high]; None where nothing tells them
Statistics = dict[str, NDArray[np.float64]]  # name -> (resamples,), NaN where a resample does not define it


def rate(value: float, bounds: Bounds) -> dict[str, Any]:
    """A value as every JSON of an evaluation holds it; without bounds, with the reason."""
    found = {"value": float(value), "interval": bounds}
    return found if bounds is not None else found | {"reason": UNMOVED}


def undefined(reason: str) -> dict[str, Any]:
    """What stands in a value's place where there is none; JSON knows no NaN."""
    return {"value": None, "interval": None, "reason": reason}


def told(one: Mapping[str, Any], form: str = ".2%") -> str:
    """A value and its interval in words: '97.50% (96.90% to 98.00%)'; the reason where there is none."""
    if one["interval"] is None:
        return one["reason"] if one["value"] is None else f"{one['value']:{form}} ({one['reason']})"
    low, high = one["interval"]
    return f"{one['value']:{form}} ({low:{form}} to {high:{form}})"


def share(hits: int, rows: int, reason: str = "no rows") -> dict[str, Any]:
    """`hits` of `rows` with Wilson's interval; undefined without rows, for the `reason`."""
    return rate(hits / rows, wilson(hits, rows)) if rows else undefined(reason)


def f1_share(hits: int, errors: int, reason: str) -> dict[str, Any]:
    """The F1 score of a class with its interval; undefined where there are neither hits nor errors, for the `reason`.

    F1 = 2F / (1 + F), where F = hits / (hits + errors) is a share: Wilson's interval of F, its ends mapped to F1, is that of
    F1, never empty and never beyond 0 and 1. This is the indirect Wilson method of Lam, Gopal and Qian 2024, "Confidence
    intervals for the F1 score: a comparison of four methods" (arXiv:2309.14621), F being their F*.

    Args:
        hits: rows of the class that were given it.
        errors: rows of the class that were not, and others that were.
        reason: why there might be none.
    """
    if not hits + errors:
        return undefined(reason)
    value, *bounds = (2 * one / (1 + one) for one in (hits / (hits + errors), *wilson(hits, hits + errors)))
    return rate(value, bounds)


def wilson(hits: int, rows: int) -> list[float]:
    """Wilson's score interval (Wilson 1927, as `scipy.stats.binomtest` gives it)."""
    from scipy.stats import binomtest

    if rows == 0:
        return [0.0, 1.0]  # no rows, no knowledge
    bounds = binomtest(hits, rows).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return [float(bounds.low), float(bounds.high)]


def auroc_score(value: float, own: int, others: int) -> list[float]:
    """The interval of an area under the ROC curve that no resample of its rows moves, as where the ranking is perfect.

    All areas t with (value - t)^2 <= z^2 V(t), where V is Hanley and McNeil's variance with the mean of both numbers of rows
    in either term: method 5 of Newcombe 2006 (Statistics in Medicine 25:559).

    Args:
        value: 0 to 1.
        own: rows of the label, at least 1.
        others: rows of other labels, at least 1.
    """
    return [_least_area(value, own, others), 1 - _least_area(1 - value, own, others)]


def _least_area(value: float, own: int, others: int) -> float:
    from scipy.optimize import brentq

    if value == 0:
        return 0.0
    more = (own + others) / 2 - 1

    def distance(t: float) -> float:
        variance = t * (1 - t) * (1 + more * (1 - t) / (2 - t) + more * t / (1 + t)) / (own * others)
        return (value - t) ** 2 - Z**2 * variance

    return float(brentq(distance, 0.0, min(value, math.nextafter(1, 0))))  # at 1 itself both terms are 0


def bootstrap(statistics: Callable[[Weights], Statistics], rows: int, cost: int, seed: int) -> dict[str, Bounds]:
    """Percentile intervals of many statistics at once, from the same resamples of whole rows (`scipy.stats.bootstrap`).

    A resample comes as how often it drew each row: what is a sum over rows is then one product. Two thousand resamples
    are drawn, fewer (never under 500) where rows are so many that intervals are narrow and time is not.

    Args:
        statistics: row weights -> each statistic of each resample; equal weights of 1 give the value itself.
        rows: how many there are.
        cost: numbers `statistics` works through for each row and resample, about.
        seed: of the resampling.

    Returns:
        name -> [low, high], widened to hold the value: where resamples often miss a whole class, all of them can lie on one
        side of it. None where no resample moves the value, as with a single row: a point would state certainty.
    """
    from scipy.stats import DegenerateDataWarning
    from scipy.stats import bootstrap as scipy_bootstrap

    whole = {name: float(value[0]) for name, value in statistics(np.ones((rows, 1))).items()}
    if rows < 2:
        return dict.fromkeys(whole)

    def of_draws(drawn: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        """(resamples, rows) row numbers -> (statistics, resamples)."""
        return np.stack(list(statistics(draw_counts(np.asarray(drawn), rows)).values()))

    with warnings.catch_warnings():
        # where a resample does not define a statistic scipy has no interval for it; `_around` takes what is defined
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = scipy_bootstrap(
            (np.arange(rows),),
            of_draws,
            n_resamples=int(np.clip(WORK // (rows * cost), FEWEST_RESAMPLES, RESAMPLES)),
            batch=max(1, CELLS // rows),
            vectorized=True,
            method="percentile",
            confidence_level=CONFIDENCE_LEVEL,
            rng=np.random.default_rng(seed),
        )
    return {
        name: _around(value, drawn)
        for (name, value), drawn in zip(whole.items(), result.bootstrap_distribution, strict=True)
    }


def draw_counts(drawn: NDArray[np.int64], rows: int) -> Weights:
    """(resamples, rows) row numbers -> (rows, resamples) how often each row was drawn."""
    count = len(drawn)
    cells = drawn * count + np.arange(count)[:, None]
    return np.bincount(cells.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _around(value: float, drawn: NDArray[np.float64]) -> Bounds:
    """The percentile interval of what is defined, widened to hold the value; None where that is a point."""
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return None
    tail = 50 * (1 - CONFIDENCE_LEVEL)
    low, high = np.percentile(defined, [tail, 100 - tail])
    bounds = [min(float(low), value), max(float(high), value)]
    return bounds if bounds[1] - bounds[0] > 1e-12 * abs(value) else None  # sums round by some 1e-16 of their size
