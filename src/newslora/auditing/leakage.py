"""Rows of one split that repeat rows of an earlier one, and what they do to a run's accuracy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.auditing.copies import Copies
from newslora.auditing.rows import AuditRows
from newslora.metrics.intervals import Statistics, Weights, bootstrap, rate, share

CAVEAT = (
    "Leaked and clean rows are different rows, so this is no paired comparison: leaked rows may also be easier or harder by "
    "nature. The difference is between all rows and the clean ones among them."
)


@dataclass(frozen=True, slots=True)
class Leak:
    """A row of a later split and its nearest copy in an earlier one."""

    row: int
    copy: int
    similarity: float
    equal: bool  # word for word; texts of the same shingles in another order are not


def find_leaks(rows: AuditRows, copies: Copies) -> list[Leak]:
    """The best copy of each row in each earlier split, by row."""
    best: dict[tuple[int, int], Leak] = {}  # (row, split of the copy)

    def consider(row: int, copy: int, similarity: float, equal: bool) -> None:
        key = (row, int(rows.split_of[copy]))
        if rows.split_of[copy] < rows.split_of[row] and (key not in best or similarity > best[key].similarity):
            best[key] = Leak(row, copy, similarity, equal)

    def firsts(group: list[int]) -> list[int]:
        """One row of each split."""
        return list({int(rows.split_of[place]): place for place in reversed(group)}.values())

    for group in copies.exact:
        for copy in firsts(group):
            for row in group:
                consider(row, copy, 1.0, equal=True)
    for pair in copies.near:
        one, other = copies.rows_equal_to(pair.first), copies.rows_equal_to(pair.second)
        for these, those in ((one, other), (other, one)):
            for copy in firsts(these):
                for row in those:
                    consider(row, copy, pair.similarity, equal=False)
    return sorted(best.values(), key=lambda leak: (leak.row, leak.copy))


def leakage_table(rows: AuditRows, leaks: list[Leak]) -> list[dict[str, Any]]:
    """For every two splits: rows of the later that repeat the earlier."""
    found = []
    for later, split in enumerate(rows.splits):
        for earlier in range(later):
            mine = [leak for leak in leaks if rows.split_of[leak.row] == later and rows.split_of[leak.copy] == earlier]
            found.append(
                {
                    "split": split.name,
                    "repeats": rows.splits[earlier].name,
                    "equal_rows": sum(leak.equal for leak in mine),
                    "near_rows": sum(not leak.equal for leak in mine),
                    "with_another_label": sum(bool(rows.labels[leak.row] != rows.labels[leak.copy]) for leak in mine),
                    "rows": split.stop - split.start,
                }
            )
    return found


def effect_on_accuracy(
    rows: AuditRows, leaks: list[Leak], trained_on: int, later: int, right: NDArray[np.bool_]
) -> dict[str, Any]:
    """Accuracy on a split with and without the rows that repeat the rows a run was trained on.

    Args:
        rows: all rows.
        leaks: from `find_leaks`.
        trained_on: number of the split that trained the run.
        later: number of the split that was scored.
        right: (rows of that split,) whether the run labels them as they are; of several labels, with all of them.
    """
    split = rows.splits[later]
    leaked = np.zeros(len(right), dtype=bool)
    for leak in leaks:
        if (rows.split_of[leak.row], rows.split_of[leak.copy]) == (later, trained_on):
            leaked[leak.row - split.start] = True

    def rise(weights: Weights) -> Statistics:
        clean = np.maximum(~leaked @ weights, 1)  # a resample of leaked rows alone has no clean accuracy
        return {"rise": right @ weights / weights.sum(0) - (right & ~leaked) @ weights / clean}

    result: dict[str, Any] = {"split": split.name, "trained_on": rows.splits[trained_on].name, "caveat": CAVEAT}
    for name, part in {"all": np.ones_like(leaked), "clean": ~leaked, "leaked": leaked}.items():
        result[name] = {"rows": int(part.sum())} | share(int(right[part].sum()), int(part.sum()))
    if leaked.any() and not leaked.all():
        value = float(rise(np.ones((len(right), 1)))["rise"][0])
        result["rise"] = rate(value, bootstrap(rise, len(right), 2, seed=0)["rise"])
    return result
