"""AUROC of one label against the others, of the rows and of resamples of them."""

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.intervals import Weights


class Ranking:
    """Rows in order of one score, so that the AUROC of each resample costs a pass and no sort.

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
        drawn = weights[self.order]
        total = drawn.sum(axis=0)
        own = drawn * self.is_label
        others = drawn - own
        if len(self.starts) < len(drawn):
            own, others = (np.add.reduceat(part, self.starts, axis=0) for part in (own, others))
        below = np.cumsum(others, axis=0) - others / 2
        own_total = own.sum(axis=0)
        pairs = own_total * (total - own_total)
        found = np.full(pairs.shape, np.nan)
        np.divide(np.einsum("rb,rb->b", own, below), pairs, out=found, where=pairs > 0)
        return found
