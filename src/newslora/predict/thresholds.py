"""From which probability a label is given, where a text may carry several: tuned on validation rows, kept beside the adapter.

thresholds.json   a threshold a label, what it was tuned on, and what it changed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from newslora import files
from newslora.errors import RunError
from newslora.metrics.basic import Probabilities, divided
from newslora.metrics.multi_label import HALF, Indicators, quick_multi_metrics
from newslora.records.evaluation import Thresholds
from newslora.records.reading import Record, read_record

FORMAT = 1
THRESHOLDS = "thresholds.json"
FEWEST = 5  # rows with the label, and rows without it, from which a threshold is tuned; fewer would tune it to chance


@dataclass(frozen=True, slots=True)
class LabelThresholds:
    """What thresholds.json holds."""

    values: NDArray[np.float64]  # (C,)
    record: dict[str, Any]  # method, rows, before and after, and by label: threshold, rows with it, why it is 0.5


class _File(Record, Thresholds):
    """thresholds.json as it is read."""

    weights_sha256: str
    values: list[Annotated[float, Field(ge=0, le=1)]]


def tune_thresholds(indicators: Indicators, probabilities: Probabilities, names: Sequence[str]) -> LabelThresholds:
    """The threshold of best F1 for each of C labels by itself, on R validation rows."""
    values = np.full(len(names), HALF)
    labels: dict[str, Any] = {}
    for k, name in enumerate(names):
        rows = int(indicators[:, k].sum())
        reason = None
        if min(rows, len(indicators) - rows) < FEWEST:
            reason = f"fewer than {FEWEST} validation rows with it, or without it"
        else:
            values[k] = best_threshold(indicators[:, k], probabilities[:, k])
        labels[name] = {"threshold": float(values[k]), "rows": rows, "reason": reason}
    record = {
        "method": "best F1 of each label by itself, on the rows that chose the epoch",
        "rows": len(indicators),
        "before": quick_multi_metrics(indicators, probabilities),
        "after": quick_multi_metrics(indicators, probabilities, values),
        "labels": labels,
    }
    return LabelThresholds(values, record)


def best_threshold(carried: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    """The threshold of best F1 (`sklearn.metrics.precision_recall_curve`); 0.5 where none is better.

    It lies midway between the least probability it takes in and the next below, so that neither decides alone. Some of the
    (R,) rows carry the label, some do not.
    """
    from sklearn.metrics import f1_score, precision_recall_curve

    precision, recall, scores = precision_recall_curve(carried, probabilities)
    precision, recall = precision[:-1], recall[:-1]  # the last point takes no row in
    f1 = divided(2 * precision * recall, precision + recall)
    best = int(f1.argmax())
    if f1[best] <= f1_score(carried, probabilities >= HALF, zero_division=0):
        return HALF
    below = scores[best - 1] if best else 0.0
    middle = (scores[best] + below) / 2
    return float(middle if middle > below else scores[best])  # between neighbouring floats there is none


def save_thresholds(thresholds: LabelThresholds, folder: Path, weights_sha256: str) -> None:
    """Write thresholds.json into an adapter folder, with the adapter's version, so that another's is never taken for its own.

    Raises:
        StorageError: the disk refuses.
    """
    head = {"format": FORMAT, "weights_sha256": weights_sha256, "values": thresholds.values.tolist()}
    files.write_json(folder / THRESHOLDS, head | thresholds.record)


def load_thresholds(folder: Path, weights_sha256: str, labels: int) -> LabelThresholds | None:
    """The thresholds of an adapter folder; None where it has none, and 0.5 serves.

    Raises:
        RunError: a damaged file, or one of another adapter.
    """
    path = folder / THRESHOLDS
    try:
        held = read_record(path, _File, "Restore it, or remove it to answer from 0.5 on.", FORMAT)
    except FileNotFoundError:
        return None
    if held.weights_sha256 != weights_sha256 or len(held.values) != labels:
        raise RunError(f"{path} is not of this adapter, or damaged: restore the folder, or remove {THRESHOLDS}.")
    record = held.model_dump(exclude={"format", "weights_sha256", "values"})
    return LabelThresholds(np.array(held.values, dtype=np.float64), record)
