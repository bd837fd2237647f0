"""A canary: 32 texts and the logits a classifier gave for them when it had just been trained or exported, kept beside it.

Whoever loads the adapter later can see that it still answers so, and not as another backbone, another head, labels in
another order or no adapter at all would. canary.json holds everything: format, the weights' hash, labels, texts, logits.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from newslora import files
from newslora.errors import CanaryError, RunError
from newslora.metrics.basic import Logits
from newslora.records.reading import Record, read_record

if TYPE_CHECKING:
    from newslora.predict.classifier import Classifier

FORMAT = 1
CANARY = "canary.json"
TEXTS = 32
# fp32 on another chip, with other threads or other neighbours in a batch, sums in another order: some 1e-7 of logits up to
# about 10, grown over up to 24 layers; on minilm packed and padded differ by 2e-6. A wrong weight moves them by far more.
FP32_TOLERANCE = 1e-4
# 8 bits (bf16), 11 (fp16) or quantised weights round at every layer. Of one logit that is at most this share of the largest
COARSE_BAND = 0.1
# and of all together, where roundings do not add up as a wrong weight's errors do, this share: root mean squares
COARSE_SHARE = 0.03
RESTORE = "Its weights, its backbone or its tokenizer are not what they were: restore them, or make it again."


@dataclass(frozen=True, slots=True)
class Canary:
    """What canary.json holds."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    logits: Logits  # (32, C) fp32, before the temperature


class _File(Record):
    """canary.json as it is read."""

    weights_sha256: str
    labels: tuple[str, ...]
    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    logits: list[list[float]]


def canary_texts() -> tuple[str, ...]:
    """Titles of 32 items of the bundled corpus, spread over its test rows: short, so that answering takes a moment."""
    path = Path(__file__).resolve().parent.parent / "corpus" / "test.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        titles = [row["title"] for row in csv.DictReader(stream)]
    return tuple(titles[:: len(titles) // TEXTS][:TEXTS])


def make_canary(classifier: "Classifier") -> Canary:
    """Answer the texts with a classifier that was just trained, in fp32, or exported."""
    texts = canary_texts()
    return Canary(classifier.labels, texts, classifier.logits(classifier.rows(texts)))


def save_canary(canary: Canary, folder: Path, weights_sha256: str) -> None:
    """Write canary.json into an adapter folder, with the adapter's version, so that another's is never taken for its own.

    Raises:
        StorageError: the disk refuses.
    """
    record = {
        "format": FORMAT, "weights_sha256": weights_sha256, "labels": canary.labels, "texts": canary.texts,
        "logits": canary.logits.tolist(),
    }  # fmt: skip
    files.write_json(folder / CANARY, record)


def load_canary(folder: Path, weights_sha256: str) -> Canary | None:
    """The canary of an adapter folder; None where it has none, as before newslora kept any.

    Raises:
        CanaryError: one of another adapter.
        RunError: a damaged file.
    """
    path, remedy = folder / CANARY, "Restore it: an adapter is not served without a check."
    try:
        held = read_record(path, _File, remedy, FORMAT)
    except FileNotFoundError:
        return None
    shapes = {len(row) for row in held.logits} == {len(held.labels)} and len(held.logits) == len(held.texts)
    with np.errstate(over="ignore"):
        logits = np.array(held.logits if shapes else [], dtype=np.float64).astype(np.float32)
    if not shapes or not np.isfinite(logits).all():
        raise RunError(f"{path} is damaged: its logits are not those of its texts and labels. {remedy}")
    if held.weights_sha256 != weights_sha256:
        raise CanaryError(
            f"{path} is of another adapter ({held.weights_sha256[:12]}, not {weights_sha256[:12]}): restore the folder."
        )
    return Canary(held.labels, held.texts, logits)


def check_canary(canary: Canary, labels: tuple[str, ...], logits: Logits, exact: bool, what: str) -> None:
    """Refuse answers that are not the stored ones.

    Args:
        canary: the stored.
        labels: of the classifier, in id order.
        logits: (32, C) its answers now.
        exact: whether it computes in fp32; else one logit may differ by `COARSE_BAND`, and all by `COARSE_SHARE`.
        what: the adapter, for the message.

    Raises:
        CanaryError: naming the largest difference.
    """
    if labels != canary.labels:
        raise CanaryError(
            f"{what} has the labels {', '.join(labels)}, and gave its stored answers with {', '.join(canary.labels)}: they "
            "were changed or reordered. Restore the folder."
        )
    off = np.abs(logits - canary.logits)
    worst = float(off.max()) if np.isfinite(off).all() else float("inf")
    band = FP32_TOLERANCE if exact else COARSE_BAND * max(1.0, float(np.abs(canary.logits).max()))
    if not worst <= band:
        row, column = (int(place) for place in np.unravel_index(np.nan_to_num(off, nan=np.inf).argmax(), off.shape))
        raise CanaryError(
            f"{what} does not answer as it did when it was trained or exported: a logit differs by {worst:.2g}, and at most "
            f"{band:.2g} is rounding (label '{labels[column]}' of '{canary.texts[row][:60]}'). {RESTORE}"
        )
    share = _size(off) / max(1.0, _size(canary.logits))
    if not exact and share > COARSE_SHARE:
        raise CanaryError(
            f"{what} does not answer as it did when it was trained or exported: its logits differ by {share:.1%} of their "
            f"size, and at most {COARSE_SHARE:.0%} is rounding. {RESTORE}"
        )


def _size(numbers: Logits) -> float:
    """Their root mean square."""
    return float(np.sqrt(np.square(numbers, dtype=np.float64).mean()))
