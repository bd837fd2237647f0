"""A planted miscalibration is found and undone, none is made where none is, and answers never change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from newslora.errors import RunError
from newslora.files import sha256_file
from newslora.metrics.basic import softmax
from newslora.predict.calibration import (
    CALIBRATION,
    LOGITS,
    Calibration,
    calibrate,
    fit_temperature,
    load_calibration,
    save_calibration,
)


def calibrated(seed: int, rows: int = 4000, labels: int = 4) -> tuple[Any, Any]:
    """Logits whose probabilities are true: each row's label is drawn from them."""
    generator = np.random.default_rng(seed)
    logits = (2 * generator.normal(size=(rows, labels))).astype(np.float32)
    drawn = (softmax(logits).cumsum(axis=1) > generator.random((rows, 1))).argmax(axis=1)
    return logits, drawn.astype(np.int64)


@pytest.mark.parametrize("labels", [2, 4, 9])
@pytest.mark.parametrize("scale", [3.0, 1.0, 0.4])
def test_planted_miscalibration_is_found_and_none_where_none_is(labels: int, scale: float) -> None:
    logits, truth = calibrated(1, labels=labels)
    found = calibrate(np.float32(scale) * logits, truth)
    assert found.temperature == pytest.approx(scale, rel=0.08)
    before, after = found.record["before"], found.record["after"]
    assert after["ece"] < 0.03
    assert after["log_loss"] <= before["log_loss"] + 1e-9
    if scale == 1:
        assert before["ece"] < 0.03
    else:
        assert before["ece"] > 0.07
        assert after["brier"] < before["brier"]


def test_the_temperature_is_the_one_of_least_log_loss() -> None:
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import log_loss

    logits, truth = calibrated(2, rows=300)
    best = minimize_scalar(lambda t: log_loss(truth, softmax(5 * logits, t)), bounds=(0.1, 10), method="bounded")
    assert fit_temperature(5 * logits, truth)[0] == pytest.approx(best.x, rel=1e-4)


def test_rows_that_look_like_probabilities_are_taken_as_logits() -> None:
    # scikit-learn would take the logarithm of these
    probabilities = softmax(calibrated(3, rows=500)[0]).astype(np.float32)
    truth = calibrated(3, rows=500)[1]
    assert fit_temperature(probabilities, truth)[0] == pytest.approx(
        fit_temperature(probabilities + 7, truth)[0], rel=1e-3
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), temperature=st.floats(0.1, 10))
def test_a_temperature_changes_no_answer(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(size=(50, 4)).astype(np.float32)
    assert (softmax(logits, temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_labels_without_validation_rows_do_not_matter() -> None:
    logits, truth = calibrated(4)
    kept = truth != 2
    temperature, reason = fit_temperature(3 * logits[kept], truth[kept])
    assert reason is None
    assert 2 < temperature < 6
    few = np.flatnonzero(truth == 1)[:3]  # fewer rows of a label than scikit-learn's folds ask
    some = np.concatenate([np.flatnonzero(truth == 0)[:40], few])
    assert fit_temperature(3 * logits[some], truth[some])[1] is None


def test_many_labels_of_few_rows_are_no_matter() -> None:
    """scikit-learn would warn of a regression; warnings are errors here."""
    logits, _ = calibrated(7, rows=40, labels=30)
    temperature, _ = fit_temperature(logits, np.arange(40) % 30)
    assert temperature == fit_temperature(logits + 1, np.arange(40) % 30)[0]


def test_where_nothing_can_be_fitted_the_temperature_is_1_and_says_why() -> None:
    sure = np.eye(3, dtype=np.float32)[[0, 1, 2]]
    assert fit_temperature(sure, np.array([0, 1, 2])) == (
        1.0, "all 3 validation rows are right, so the log loss is least at certainty",
    )  # fmt: skip
    temperature, reason = fit_temperature(sure, np.array([1, 2, 0]))  # always wrong: no opinion would be better
    assert temperature == 1
    assert reason is not None
    assert "outside 0.1 to 10" in reason
    off = calibrate(*calibrated(5, rows=50), fit=False)
    assert (off.temperature, off.fitted) == (1.0, False)
    assert "evaluation.calibrate" in off.record["reason"]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Calibration]:
    logits, truth = calibrated(6, rows=30)
    one = calibrate(2 * logits, truth)
    save_calibration(one, tmp_path, "version")
    return tmp_path, one


def test_it_comes_back_as_saved(saved: tuple[Path, Calibration]) -> None:
    folder, one = saved
    again = load_calibration(folder, "version", 4)
    assert again is not None
    assert again.temperature == one.temperature
    assert again.record == one.record
    assert np.array_equal(again.logits, one.logits)
    assert np.array_equal(again.labels, one.labels)
    assert np.array_equal(again.probabilities(), softmax(one.logits, one.temperature))


def test_a_folder_from_before_has_none(tmp_path: Path) -> None:
    assert load_calibration(tmp_path, "version", 4) is None


DAMAGE = {
    "another adapter's": lambda folder: None,
    "torn": lambda folder: (folder / CALIBRATION).write_text("{"),
    "no object": lambda folder: (folder / CALIBRATION).write_text("[]"),
    "without temperature": lambda folder: edit(folder, temperature=None),
    "negative": lambda folder: edit(folder, temperature=-1.0),
    "no temperature that is fitted": lambda folder: edit(folder, temperature=1e-9),
    "other logits": lambda folder: (folder / LOGITS).write_bytes(b"x" * 100),
    "no logits": lambda folder: (folder / LOGITS).unlink(),
    "of fewer labels": lambda folder: refill(folder, lambda logits, labels: (logits[:, 1:], labels)),
    "of one label": lambda folder: refill(folder, lambda logits, labels: (logits[:, 0], labels)),
    "of other rows": lambda folder: refill(folder, lambda logits, labels: (logits[1:], labels)),
    "NaN": lambda folder: refill(folder, lambda logits, labels: (np.nan * logits, labels)),
    "whole numbers": lambda folder: refill(folder, lambda logits, labels: (logits.astype(np.int8), labels)),
    "labels beyond": lambda folder: refill(folder, lambda logits, labels: (logits, labels + 1)),
    "labels below": lambda folder: refill(folder, lambda logits, labels: (logits, labels - 1)),
    "a lone label": lambda folder: refill(folder, lambda logits, labels: (logits, np.int64(0))),
    "labels that are shares": lambda folder: refill(folder, lambda logits, labels: (logits, labels / 4)),
}


def refill(folder: Path, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
    """Other logits and labels, under their right hash."""
    held = load_file(folder / LOGITS)
    found = zip(("logits", "labels"), change(held["logits"], held["labels"]), strict=True)
    save_file({name: np.ascontiguousarray(one) for name, one in found}, folder / LOGITS)
    edit(folder, logits_sha256=sha256_file(folder / LOGITS))


def edit(folder: Path, **values: Any) -> None:
    record = json.loads((folder / CALIBRATION).read_text())
    (folder / CALIBRATION).write_text(json.dumps(record | values))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_and_never_answered_from(damage: str, saved: tuple[Path, Calibration]) -> None:
    folder, _ = saved
    DAMAGE[damage](folder)
    with pytest.raises(RunError, match="calibration"):
        load_calibration(folder, "another" if damage == "another adapter's" else "version", 4)
