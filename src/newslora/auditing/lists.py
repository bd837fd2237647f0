"""The lists a person works through: one CSV of each kind of finding, texts included."""

from collections.abc import Sequence
from pathlib import Path

from newslora import files
from newslora.auditing.copies import Copies
from newslora.auditing.damage import Damage
from newslora.auditing.labels import Doubt
from newslora.auditing.leakage import Leak
from newslora.auditing.rows import AuditRows


def write_duplicates(path: Path, rows: AuditRows, copies: Copies) -> None:
    """Each row equal to the first of its group, then each near pair, most alike first."""
    pairs = [(group[0], other, "equal", 1.0) for group in copies.exact for other in group[1:]]
    near = sorted(copies.near, key=lambda one: -one.similarity)
    pairs += [(one.first, one.second, "near", one.similarity) for one in near]
    heads = [f"{name}_{side}" for side in ("a", "b") for name in ("split", "row", "label", "text")]
    files.write_csv(
        path,
        ["pair", "kind", "similarity", "labels", *heads],
        (
            [
                number,
                kind,
                f"{similarity:.3f}",
                "differ" if rows.labels[first] != rows.labels[second] else "agree",
                *rows.told(first),
                rows.texts[first],
                *rows.told(second),
                rows.texts[second],
            ]
            for number, (first, second, kind, similarity) in enumerate(pairs, 1)
        ),
    )


def write_leakage(path: Path, rows: AuditRows, leaks: Sequence[Leak]) -> None:
    """Each row of a later split with its nearest copy in each earlier one."""
    heads = ("split", "row", "label", "text")
    files.write_csv(
        path,
        [*heads, "kind", "similarity", *(f"repeats_{name}" for name in heads)],
        (
            [
                *rows.told(leak.row),
                rows.texts[leak.row],
                "equal" if leak.equal else "near",
                f"{leak.similarity:.3f}",
                *rows.told(leak.copy),
                rows.texts[leak.copy],
            ]
            for leak in leaks
        ),
    )


def write_labels(path: Path, rows: AuditRows, doubts: Sequence[Doubt]) -> None:
    """Likely wrong labels, worst first; `verdict` is for the reader."""
    files.write_csv(
        path,
        ["rank", "split", "row", "given", "suggested", "confidence", "given_probability", "text", "verdict"],
        (
            [
                rank,
                *rows.told(doubt.row),
                rows.label_names[doubt.suggested],
                f"{doubt.confidence:.4f}",
                f"{doubt.given_probability:.4f}",
                rows.texts[doubt.row],
                "",
            ]
            for rank, doubt in enumerate(doubts, 1)
        ),
    )


def write_damage(path: Path, rows: AuditRows, damage: Sequence[tuple[int, Damage]]) -> None:
    """Each kind of damage of each row, with its first occurrence."""
    files.write_csv(
        path,
        ["split", "row", "label", "kind", "count", "found", "text"],
        ([*rows.told(row), one.kind, one.count, one.found, rows.texts[row]] for row, one in damage),
    )
