"""AUROC and average precision of one label against the others, of the rows and of resamples of them."""

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.basic import divided
from newslora.metrics.intervals import Weights


class Ranking:
    """Rows in order of one score, so that each resample costs a pass and no sort.

    The AUROC is the chance that a row of the label scores above a row of another, a tie counting half (Hanley and McNeil
    1982): for each row of the label, the other rows below it.
    """

    def __init__(self, is_label: NDArray[np.bool_], scores: NDArray[np.float64]) -> None:
        self.order = np.argsort(scores, kind="stable")
        self.is_label = is_label[self.order][:, None]
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # first row of each tie

    def auroc(self, weights: Weights) -> NDArray[np.float64]:
        """(rows, resamples) -> (resamples,); NaN where a resample holds only rows of the label, or none."""
        own, others = self._by_tie(weights)
        total = (own + others).sum(axis=0)
        below = np.cumsum(others, axis=0) - others / 2
        own_total = own.sum(axis=0)
        return divided(np.einsum("rb,rb->b", own, below), own_total * (total - own_total), np.nan)

    def average_precision(self, weights: Weights) -> NDArray[np.float64]:
        """(rows, resamples) -> (resamples,); NaN where a resample holds no row of the label.

        The precision among the rows at or above each row of the label, averaged over those rows, as
        `sklearn.metrics.average_precision_score` has it.
        """
        own, others = (part[::-1] for part in self._by_tie(weights))
        hits = np.cumsum(own, axis=0)
        precision = divided(hits, hits + np.cumsum(others, axis=0))
        return divided(np.einsum("rb,rb->b", own, precision), hits[-1], np.nan)

    def _by_tie(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight of the label's rows and of the others at each score, ascending."""
        drawn = weights[self.order]
        own = drawn * self.is_label
        others = drawn - own
        if len(self.starts) == len(drawn):
            return own, others
        return np.add.reduceat(own, self.starts, axis=0), np.add.reduceat(others, self.starts, axis=0)
