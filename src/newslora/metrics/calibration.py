"""Whether probabilities mean what they say: the expected calibration error and the bins behind it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.basic import Hits, Labels, Probabilities, row_briers, row_losses
from newslora.metrics.intervals import share

BINS = 15  # of equal width between 0 and 1, as in Guo et al. 2017


def top_answers(labels: Labels, probabilities: Probabilities) -> tuple[Hits, NDArray[np.float64]]:
    """(rows,) whether the likeliest label is right, and (rows,) its probability, the confidence."""
    return probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)


def bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """(rows,) bin of each row; a bin holds its upper edge, as in Guo et al. 2017."""
    return np.asarray(np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence))


def expected_calibration_error(hits: Hits, confidence: NDArray[np.float64]) -> float:
    """Mean over rows of |accuracy - mean confidence| of the row's bin (Naeini et al. 2015; Guo et al. 2017).

    Chance alone keeps it above 0: among few rows even right probabilities show some. It compares like with like (before
    and after, run and run on the same rows) better than it measures a distance from 0.
    """
    gaps = np.bincount(bin_of(confidence), weights=hits - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(hits))


def calibration_numbers(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """What a temperature changes: log loss (nats), Brier score (0 to 2), ECE and mean confidence."""
    hits, confidence = top_answers(labels, probabilities)
    return {
        "log_loss": float(row_losses(labels, probabilities).mean()),
        "brier": float(row_briers(labels, probabilities).mean()),
        "ece": expected_calibration_error(hits, confidence),
        "confidence": float(confidence.mean()),
    }


def reliability(hits: Hits, confidence: NDArray[np.float64]) -> dict[str, Any]:
    """The reliability diagram's data: each bin that holds rows, with mean confidence and accuracy."""
    place = bin_of(confidence)
    bins = []
    for number in np.unique(place):
        own = place == number
        accuracy = share(int(hits[own].sum()), int(own.sum()))
        bins.append(
            {
                "low": float(number / BINS),
                "high": float((number + 1) / BINS),
                "rows": int(own.sum()),
                "confidence": float(confidence[own].mean()),
                "accuracy": accuracy,
            }
        )
    return {"binning": f"{BINS} of equal width, by confidence", "bins": bins}
