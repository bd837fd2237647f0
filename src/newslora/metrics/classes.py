"""Precision, recall and F1 of each class, and their means over the classes.

What would divide by nothing is undefined: the precision of a class that is never given, the recall of one without rows,
the F1 of one that is neither. The means are scikit-learn's: over the classes that occur among the rows or the answers,
what one of those does not define counting as 0.

Dimension letters: C classes, B resamples.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.errors import first_of
from newslora.metrics.basic import divided
from newslora.metrics.intervals import Bounds, f1_share, rate, share, undefined

Counts = NDArray[np.float64]  # (C, B)

KINDS = ("precision", "recall", "f1")
SHOWN = 10  # names of classes in a sentence
NO_ROWS = "no rows of this label"
NOT_GIVEN = "never predicted"
NEITHER = "no rows of this label, and never predicted"
NOTHING = "no row has a label, and none is predicted"


def class_rates(hits: int, given: int, rows: int) -> dict[str, dict[str, Any]]:
    """A class's `precision`, `recall` and `f1` with intervals, out of its rows, those given it, and the hits among these."""
    return {
        "precision": share(hits, given, NOT_GIVEN),
        "recall": share(hits, rows, NO_ROWS),
        "f1": f1_share(hits, given + rows - 2 * hits, NEITHER),
    }


def class_means(hits: Counts, given: Counts, rows: Counts) -> dict[str, NDArray[np.float64]]:
    """(C, B) counts as in `class_rates` -> (B,) `macro_precision`, `macro_recall`, `macro_f1`; NaN where no class occurs."""
    occurs = (given + rows) > 0
    scores = {"precision": divided(hits, given), "recall": divided(hits, rows), "f1": divided(2 * hits, given + rows)}
    count = occurs.sum(axis=0).astype(np.float64)
    # a class that does not occur has a score of 0, so the sums are those over the others
    return {f"macro_{kind}": divided(values.sum(axis=0), count, np.nan) for kind, values in scores.items()}


def macro_rate(kind: str, value: float, bounds: Bounds, per_class: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A mean over classes as the JSON holds it, with the classes it leaves out.

    Args:
        kind: of `KINDS`.
        value: the mean; NaN where no class occurs.
        bounds: its bootstrap interval; None where no resample moves it.
        per_class: name -> `class_rates`.
    """
    occurring = {name: own[kind] for name, own in per_class.items() if own["f1"]["value"] is not None}
    if not occurring:
        return undefined(NOTHING)
    found = rate(value, bounds or _added_up(list(occurring.values())))
    if left_out := [name for name in per_class if name not in occurring]:
        found["reason"] = f"mean over the labels among the rows or the answers; without: {', '.join(left_out)}"
    return found


def absent_note(per_class: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What classes without rows mean for the numbers; None where every class has rows."""
    absent = [name for name, own in per_class.items() if not own["rows"]]
    if not absent:
        return None
    given = [name for name in absent if per_class[name]["precision"]["value"] is not None]
    left_out = [name for name in absent if name not in given]
    said = [f"No rows of {first_of(absent, SHOWN)}: the numbers say nothing of how well such rows are labelled."]
    if left_out:
        said.append(f"Macro averages leave out {first_of(left_out, SHOWN)}.")
    if given:
        each = "" if len(given) == 1 else "each of "
        said.append(f"In macro averages {each}{first_of(given, SHOWN)} counts as 0, because other rows were given it.")
    return " ".join(said)


def _added_up(rates: Sequence[Mapping[str, Any]]) -> list[float]:
    """The interval of a mean of classes that no resample moves, as where every row is right.

    The bootstrap's would be a point, however few the rows. The classes' own distances from their bounds are squared and added
    instead, as for independent proportions (Newcombe 1998, Statistics in Medicine 17:873; Zou and Donner 2008, 27:1693). A
    class that occurs but does not define its rate, and counts as 0, may have any.
    """
    values = [one["value"] or 0.0 for one in rates]
    bounds = [one["interval"] or [0.0, 1.0] for one in rates]
    mean = math.fsum(values) / len(values)
    down, up = (
        math.sqrt(sum((value - pair[side]) ** 2 for value, pair in zip(values, bounds, strict=True))) / len(values)
        for side in (0, 1)
    )
    return [max(0.0, mean - down), min(1.0, mean + up)]
