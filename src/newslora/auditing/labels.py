"""Likely wrong labels: cleanlab on out-of-sample probabilities."""

from dataclasses import dataclass

import numpy as np

from newslora.errors import needing
from newslora.metrics.basic import Labels, Probabilities


@dataclass(frozen=True, slots=True)
class Doubt:
    """A row whose label is probably wrong."""

    row: int  # place among the rows given
    suggested: int  # label id
    confidence: float  # probability of the suggested label
    given_probability: float  # of the label it has: the lower, the likelier wrong


def find_doubtful(labels: Labels, probabilities: Probabilities) -> list[Doubt]:
    """Rows whose label is probably wrong, worst first (confident learning, Northcutt et al. 2021, arXiv:1911.00068).

    The (R, C) probabilities are of models that did not see the row.

    Raises:
        MissingExtraError: cleanlab is not installed.
    """
    with needing("Finding likely wrong labels", "audit"):
        from cleanlab.filter import find_label_issues

    present = np.unique(labels)  # cleanlab wants every label to occur
    if len(present) < 2:
        return []
    narrowed = probabilities[:, present]
    narrowed = narrowed / np.maximum(narrowed.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    places = np.searchsorted(present, labels)
    # rows that confidently look like one other label: fewer than cleanlab's default names, and more of them wrong
    worst_first = find_label_issues(
        places, narrowed, filter_by="both", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    found = []
    for row in worst_first.tolist():
        others = narrowed[row].copy()
        others[places[row]] = -1
        best = int(others.argmax())
        found.append(Doubt(row, int(present[best]), float(narrowed[row, best]), float(narrowed[row, places[row]])))
    return found
