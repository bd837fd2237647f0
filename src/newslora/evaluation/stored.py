"""The stored predictions of finished runs, and the rows that all of them scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newslora import files
from newslora.errors import DataError
from newslora.evaluation.evaluate import evaluate
from newslora.evaluation.own import given_reading
from newslora.evaluation.paired import Scores
from newslora.evaluation.rows import COLUMNS, damaged, read_lines, short
from newslora.metrics.single_label import full_metrics
from newslora.records.evaluation import counts_absent
from newslora.runfolder import COUNTED, RunFolder


@dataclass(frozen=True, slots=True)
class Stored:
    """One run's stored evaluation."""

    record: dict[str, Any]  # what its JSON holds
    rows: list[tuple[str, str, str]]  # row number, text, label
    predicted: list[str]
    scores: Scores


def common_evaluation(runs: Sequence[RunFolder]) -> list[Stored]:
    """An evaluation of the same rows by every run: of test rows if there are, of rows that chose the epoch at last.

    Raises:
        DataError: no rows that all have scored, other labels, or several a row.
        RunError: a damaged evaluation.
    """
    stored = [_records(run) for run in runs]
    for name, record in stored[0].items():
        if not all(any(_same_file(record, other) for other in one.values()) for one in stored):
            continue
        scored = [_read(runs[0], name, record)]
        for run, one in zip(runs[1:], stored[1:], strict=True):
            # a run may have scored the same file by several settings, and a part of it as its validation rows
            alike = (_read(run, of, other) for of, other in one.items() if _same_file(record, other))
            scored += next(([other] for other in alike if _same_rows([scored[0], other])), [])
        if len(scored) == len(runs) and len(scored[0].rows):
            return scored
    had = "; ".join(f"{run.path} has {_described(one)}" for run, one in zip(runs, stored, strict=True))
    raise DataError(
        f"These runs have no scored rows in common, so they cannot be compared: {had}. "
        "Score all of them on the same rows, given as data (--data SOURCE)."
    )


def evaluation_of(
    runs: Sequence[RunFolder],
    data: str,
    changes: Mapping[str, Any],
    device: str | None,
    progress: Callable[[int], None],
) -> list[Stored]:
    """Every run's evaluation of the rows of `data`, scored now where it is not stored yet.

    Raises:
        DataError: rows that cannot be used, or that the runs' settings read differently.
    """
    scored = []
    for run in runs:
        record = None if changes else _stored(run, data)
        if record is None:
            record = evaluate(run.path, data, changes=changes, device=device, progress=progress)
        scored.append(_read(run, record["name"], record))
    if not _same_rows(scored):
        raise DataError(
            f"The runs read '{data}' differently: {', '.join(f'{len(one.rows):,} rows' for one in scored)}, or other row "
            "numbers or labels. Give the settings that read it (--set), such as data.label_column."
        )
    return scored


def _stored(run: RunFolder, data: str) -> dict[str, Any] | None:
    """The record of an evaluation of all the same rows, read as they would be now; older ones do not say how they were read."""
    reading = given_reading(run, data, run.recipe().data)
    return next((one for one in _records(run).values() if one.get("reading") == reading), None)


def _same_file(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one["sha256"] == other["sha256"])


def _records(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Evaluation name -> its JSON, of those by the run's adapter whose predictions are there too: test rows first, rows that
    chose the epoch last, and those read by other settings behind others."""
    version = run.manifest()["adapter_sha256"]  # raises where the run is not whole
    found = sorted(path for path in run.evaluation.glob("*.json") if path.with_suffix(".csv").is_file())
    records = {path.stem: run.read_evaluation(path) for path in found}
    ours = {name: one for name, one in records.items() if one["adapter_sha256"] == version}
    order = sorted(
        ours, key=lambda name: (name == "validation", name != "test", bool(ours[name].get("settings")), name)
    )
    return {name: ours[name] for name in order}


def _read(run: RunFolder, name: str, record: dict[str, Any]) -> Stored:
    if record.get("multi_label"):
        raise DataError(f"Rows of {run.path} carry several labels. Only runs of one label a row can be compared.")
    path = run.evaluation / f"{name}.csv"
    names: list[str] = record["labels"]
    place = {label: index for index, label in enumerate(names)}
    lines = list(read_lines(path, [*COLUMNS, *(f"p({label})" for label in names)]))
    try:
        scores = Scores(
            np.array([place[line["label"]] for line in lines], dtype=np.int64),
            np.array([place[line["predicted"]] for line in lines], dtype=np.int64),
            np.array([[float(line[f"p({label})"]) for label in names] for line in lines]).reshape(-1, len(names)),
        )
    except KeyError as error:
        raise damaged(path, ValueError(f"{error} is not one of the run's labels")) from None
    except ValueError as error:
        raise damaged(path, error) from None
    if counts_absent(record):  # beside those of another run, a mean of the same name must be the same mean
        record = record | {
            "macro_f1": full_metrics(scores.labels, scores.probabilities, names)["macro_f1"],
            "note": record["note"].removesuffix(COUNTED).rstrip() or None,
        }
    rows = [(line["row"], line["text"], line["label"]) for line in lines]
    return Stored(record, rows, [line["predicted"] for line in lines], scores)


def _same_rows(scored: Sequence[Stored]) -> bool:
    """Whether row numbers and true labels are equal; texts may be other columns of the same rows.

    Raises:
        DataError: other label names, or other orders of them.
    """
    first = scored[0]
    for other in scored[1:]:
        if set(other.record["labels"]) != set(first.record["labels"]):
            raise DataError(
                f"The runs know other labels: {', '.join(first.record['labels'])} and "
                f"{', '.join(other.record['labels'])}. Only runs with the same labels can be compared."
            )
    keys = [[(row, label) for row, _, label in one.rows] for one in scored]
    return bool(keys[0]) and all(key == keys[0] for key in keys[1:])


def _described(records: Mapping[str, Mapping[str, Any]]) -> str:
    told = [f"{name} ({one['rows']:,} rows of {one['source']})" for name, one in records.items()]
    return ", ".join(told) or "none"


def write_differences(path: Path, names: Sequence[str], scored: Sequence[Stored]) -> None:
    """One line a row on which the runs' labels differ: row, text, label, then each run's label and its probability."""

    def line(place: int) -> list[str]:
        said = [(one.predicted[place], short(one.scores.probabilities[place].max())) for one in scored]
        return [*scored[0].rows[place], *(cell for pair in said for cell in pair)]

    heads = ["row", "text", "label", *(f"{head} {name}" for name in names for head in ("predicted", "p"))]
    files.write_csv(path, heads, map(line, differing(scored)))


def differing(scored: Sequence[Stored]) -> list[int]:
    """Places of the rows on which not all runs give the same label."""
    return [place for place in range(len(scored[0].rows)) if len({one.predicted[place] for one in scored}) > 1]
