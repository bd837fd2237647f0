"""Where a classifier is right and wrong: accuracy in groups of rows, and the surest mistakes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.metrics.basic import Hits, Labels, Probabilities
from newslora.metrics.intervals import share

MOST_GROUPS = 10
ROWS_A_GROUP = 20  # at least, about: fewer say little
MOST_NAMES = 20
OTHERS = "(all others)"


def accuracy_by_number(values: NDArray[Any], hits: Hits) -> list[dict[str, Any]]:
    """Rows in at most ten groups of about equal size by a number; equal numbers stay together.

    Each group: `low` and `high` (the least and greatest number in it), `rows`, `accuracy` with its interval.
    """
    count = int(np.clip(len(values) // ROWS_A_GROUP, 1, MOST_GROUPS))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1], method="higher"))
    place = np.searchsorted(edges, values)
    found = []
    for number in np.unique(place):
        own = place == number
        least, greatest = values[own].min().item(), values[own].max().item()
        accuracy = share(int(hits[own].sum()), int(own.sum()))
        found.append({"low": least, "high": greatest, "rows": int(own.sum()), "accuracy": accuracy})
    return found


def accuracy_by_name(names: Sequence[str], hits: Hits) -> list[dict[str, Any]]:
    """Rows in groups by a word, the largest first; beyond twenty, the rest together.

    Each group: `name`, `rows`, `accuracy` with its interval.
    """
    rows, right = Counter(names), Counter(name for name, hit in zip(names, hits, strict=True) if hit)
    ordered = sorted(rows, key=lambda name: (-rows[name], name))
    found = [
        {"name": name, "rows": rows[name], "accuracy": share(right[name], rows[name])} for name in ordered[:MOST_NAMES]
    ]
    if rest := ordered[MOST_NAMES:]:
        total = sum(rows[name] for name in rest)
        accuracy = share(sum(right[name] for name in rest), total)
        found.append({"name": OTHERS, "rows": total, "accuracy": accuracy})
    return found


def surest_errors(labels: Labels, probabilities: Probabilities) -> NDArray[np.int64]:
    """Places of the wrong rows, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities.max(axis=1)[wrong]
    return np.asarray(wrong[np.argsort(-confidence, kind="stable")])
