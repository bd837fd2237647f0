"""The temperature of a trained classifier, and the validation logits that it and the answer sets rest on.

Kept beside the adapter, whose own files stay stock PEFT:

calibration.safetensors   logits (R, C) and labels (R,) of the validation rows
calibration.json          temperature, what it changed, hashes; written last
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from newslora import files
from newslora.errors import RunError
from newslora.metrics.basic import Labels, Logits, Probabilities, softmax
from newslora.metrics.calibration import calibration_numbers
from newslora.records.reading import Record, read_record

FORMAT = 1
CALIBRATION = "calibration.json"
LOGITS = "calibration.safetensors"
# outside these the fit ran off to certainty or to no opinion at all, which few rows can make it do
LOWEST, HIGHEST = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration.json and calibration.safetensors hold."""

    temperature: float
    logits: Logits
    labels: Labels
    record: dict[str, Any]  # rows, before, after, and why the temperature is 1 where none was fitted

    @property
    def fitted(self) -> bool:
        return self.record["reason"] is None

    def probabilities(self) -> Probabilities:
        """(R, C) of the validation rows, as the classifier answers them."""
        return softmax(self.logits, self.temperature)


class _File(Record):
    """calibration.json as it is read."""

    weights_sha256: str
    logits_sha256: str
    temperature: Annotated[float, Field(ge=LOWEST, le=HIGHEST)]
    reason: str | None


def calibrate(logits: Logits, labels: Labels, fit: bool = True) -> Calibration:
    """Fit the temperature on validation rows, (R, C) logits and (R,) label ids.

    Without `fit` it is 1, and only the rows are kept, from which answer sets can be had.
    """
    temperature, reason = fit_temperature(logits, labels) if fit else (1.0, "evaluation.calibrate is false")
    record = {
        "method": "temperature scaling (Guo et al. 2017, arXiv:1706.04599), on the rows that chose the epoch",
        "temperature": temperature,
        "reason": reason,
        "rows": len(labels),
        "before": calibration_numbers(labels, softmax(logits)),
        "after": calibration_numbers(labels, softmax(logits, temperature)),
    }
    return Calibration(temperature, logits, labels, record)


def fit_temperature(logits: Logits, labels: Labels) -> tuple[float, str | None]:
    """The temperature of least log loss (Guo et al. 2017), and where it is not to be used (1 then), why.

    scikit-learn's `CalibratedClassifierCV(method="temperature")` fits it; dividing all logits of a row by one number
    changes no answer.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    from newslora.predict.given import Given

    # with nothing wrong, ever surer is ever better: there is no best temperature
    if (logits.argmax(axis=1) == labels).all():
        return 1.0, f"all {len(labels):,} validation rows are right, so the log loss is least at certainty"
    rows = np.arange(len(labels))
    # one fold of all rows: the classifier is trained already, and folds would ask five rows of each label
    frozen = FrozenEstimator(Given(logits.shape[1]))
    model = CalibratedClassifierCV(frozen, method="temperature", ensemble=True, cv=[(rows, rows)])
    with warnings.catch_warnings():
        # scikit-learn takes labels of few rows each for the numbers of a regression
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        # and rows between 0 and 1 that sum to 1 for probabilities; with a greatest logit of 0 none is
        model.fit(logits.astype(np.float64) - logits.max(axis=1, keepdims=True), labels)
    temperature = 1 / float(model.calibrated_classifiers_[0].calibrators[0].beta_)
    if not LOWEST <= temperature <= HIGHEST:
        return 1.0, f"the fit on {len(labels):,} validation rows gave {temperature:.3g}, outside {LOWEST} to {HIGHEST}"
    return temperature, None


def save_calibration(calibration: Calibration, folder: Path, weights_sha256: str) -> None:
    """Write both files into an adapter folder, with the adapter's version, so that another's are never taken for its own.

    Raises:
        StorageError: the disk refuses.
    """
    from safetensors.numpy import save_file

    with files.atomic_path(folder / LOGITS) as temporary:
        save_file({"labels": calibration.labels, "logits": calibration.logits}, temporary)
    hashes = {"weights_sha256": weights_sha256, "logits_sha256": files.sha256_file(folder / LOGITS)}
    files.write_json(folder / CALIBRATION, {"format": FORMAT} | calibration.record | hashes)


def load_calibration(folder: Path, weights_sha256: str, classes: int) -> Calibration | None:
    """The calibration of an adapter folder; None where it has none, as before newslora fitted any.

    Args:
        folder: the adapter's.
        weights_sha256: its version.
        classes: how many labels it has.

    Raises:
        RunError: damaged files, or those of another adapter.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / CALIBRATION
    try:
        held = read_record(path, _File, "Restore it, or remove it to answer uncalibrated.", FORMAT)
    except FileNotFoundError:
        return None
    try:
        if held.weights_sha256 != weights_sha256 or files.sha256_file(folder / LOGITS) != held.logits_sha256:
            raise RunError(f"{path} is not of this adapter, or damaged: restore the folder, or remove {CALIBRATION}.")
        tensors = load_file(folder / LOGITS)
        logits, labels = tensors["logits"], tensors["labels"]
    except FileNotFoundError:
        raise RunError(f"{folder / LOGITS} is missing. Restore it, or remove {CALIBRATION} beside it.") from None
    except (KeyError, SafetensorError) as error:
        raise RunError(
            f"{folder / LOGITS} is damaged ({error}). Restore it, or remove {CALIBRATION} beside it."
        ) from None
    if not _belong(logits, labels, classes):
        raise RunError(
            f"{folder / LOGITS} does not hold a finite logit of each of {classes} labels, and the right one, for every row. "
            f"Restore it, or remove {CALIBRATION} beside it."
        )
    record = held.model_dump(exclude={"format", "weights_sha256", "logits_sha256"})
    return Calibration(held.temperature, logits, labels, record)


def _belong(logits: Logits, labels: Labels, classes: int) -> bool:
    """Whether they are (R, C) and (R,) of the same rows and these classes: drift and answer sets count on it."""
    shapes = labels.ndim == 1 and logits.shape == (len(labels), classes)
    kinds = logits.dtype.kind == "f" and labels.dtype.kind == "i"
    return bool(shapes and kinds and np.isfinite(logits).all() and ((labels >= 0) & (labels < classes)).all())
