"""The lists a person works through: one CSV of each kind of finding, texts included."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from newslora import files
from newslora.auditing.copies import Copies
from newslora.auditing.damage import Damage
from newslora.auditing.labels import Doubt
from newslora.auditing.leakage import Leak
from newslora.auditing.rows import AuditRows

ROW = ("split", "row", "label", "text")  # what is told of a row


def write_duplicates(path: Path, rows: AuditRows, copies: Copies) -> None:
    """Each row equal to the first of its group, then each near pair, most alike first."""
    pairs = [(group[0], other, "equal", 1.0) for group in copies.exact for other in group[1:]]
    near = sorted(copies.near, key=lambda one: -one.similarity)
    pairs += [(one.first, one.second, "near", one.similarity) for one in near]
    heads = ["pair", "kind", "similarity", "labels", *(f"{name}_{side}" for side in ("a", "b") for name in ROW)]
    lines = (
        [number, kind, f"{similarity:.3f}", _labels(rows, first, second), *_row(rows, first), *_row(rows, second)]
        for number, (first, second, kind, similarity) in enumerate(pairs, 1)
    )
    files.write_csv(path, heads, lines)


def write_leakage(path: Path, rows: AuditRows, leaks: Sequence[Leak]) -> None:
    """Each row of a later split with its nearest copy in each earlier one."""
    heads = [*ROW, "kind", "similarity", *(f"repeats_{name}" for name in ROW)]
    lines = (
        [*_row(rows, leak.row), "equal" if leak.equal else "near", f"{leak.similarity:.3f}", *_row(rows, leak.copy)]
        for leak in leaks
    )
    files.write_csv(path, heads, lines)


def write_labels(path: Path, rows: AuditRows, doubts: Sequence[Doubt]) -> None:
    """Likely wrong labels, worst first; `verdict` is for the reader."""
    heads = ["rank", "split", "row", "given", "suggested", "confidence", "given_probability", "text", "verdict"]
    lines = (
        [
            rank, *rows.told(doubt.row), rows.label_names[doubt.suggested], f"{doubt.confidence:.4f}",
            f"{doubt.given_probability:.4f}", rows.texts[doubt.row], "",
        ]
        for rank, doubt in enumerate(doubts, 1)
    )  # fmt: skip
    files.write_csv(path, heads, lines)


def write_damage(path: Path, rows: AuditRows, damage: Sequence[tuple[int, Damage]]) -> None:
    """Each kind of damage of each row, with its first occurrence."""
    heads = ["split", "row", "label", "kind", "count", "found", "text"]
    lines = ([*rows.told(row), one.kind, one.count, one.found, rows.texts[row]] for row, one in damage)
    files.write_csv(path, heads, lines)


def _row(rows: AuditRows, place: int) -> tuple[Any, ...]:
    return *rows.told(place), rows.texts[place]


def _labels(rows: AuditRows, first: int, second: int) -> str:
    return "differ" if rows.labels[first] != rows.labels[second] else "agree"
