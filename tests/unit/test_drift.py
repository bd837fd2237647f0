"""Drift: a planted shift is seen, an unshifted stream raises no alarm."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from newslora.predict.calibration import Calibration
from newslora.serving.drift import FEWEST, THRESHOLD, Drift, compare, make_baseline, validation_baseline

LABELS = ("World", "Sports", "Business", "Sci/Tech")
MIX = (0.4, 0.3, 0.2, 0.1)


def answers(
    rng: np.random.Generator, count: int, mix: tuple[float, ...], sure: float
) -> Iterator[tuple[tuple[str, ...], float]]:
    for label, share in zip(rng.choice(len(mix), count, p=mix), rng.beta(sure, 1, count), strict=True):
        yield (LABELS[label],), float(share)


def drift_of(seed: int, count: int = 1000, mix: tuple[float, ...] = MIX, sure: float = 8, rows: int = 640) -> dict:
    rng = np.random.default_rng(seed)
    given, confidences = zip(*answers(rng, rows, MIX, 8), strict=True)
    drift = Drift(make_baseline(given, confidences, "validation rows"), 1000, 500)
    for labels, confidence in answers(rng, count, mix, sure):
        drift.add(labels, confidence)
    return drift.state()


def test_the_index_is_what_its_definition_says() -> None:
    one, other = np.array([30.0, 70.0]), np.array([60.0, 40.0])
    p, q = (one + 0.5) / 101, (other + 0.5) / 101
    shift = compare(one, other)
    assert shift.psi == pytest.approx(float(((p - q) * np.log(p / q)).sum()))
    m = (p + q) / 2
    divergence = float((p * np.log2(p / m)).sum() + (q * np.log2(q / m)).sum()) / 2
    assert shift.js == pytest.approx(divergence**0.5)


def test_few_answers_have_the_limit_that_a_chi_square_gives() -> None:
    from scipy.stats import chi2

    one, other = np.array([3.0, 7.0, 5.0]), np.array([6.0, 4.0, 5.0])
    assert compare(one, other).limit == pytest.approx((1 / 15 + 1 / 15) * chi2.isf(1e-4, 2))


def test_a_first_look_imports_no_statistics_while_requests_wait() -> None:
    script = (
        "import sys, numpy as np\n"
        "from newslora.serving.drift import compare\n"
        "compare(np.array([30.0, 70.0]), np.array([60.0, 40.0]))\n"
        "print('scipy.special' in sys.modules, 'scipy.stats' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["True", "False"]


def test_an_unshifted_stream_raises_no_alarm() -> None:
    alarms = largest = 0
    for seed in range(150):
        for count in (FEWEST, 1000):
            state = drift_of(seed, count)
            for what in ("labels", "confidence"):
                alarms += state[what]["shifted"]
                largest = max(largest, state[what]["psi"])
    assert alarms == 0
    assert largest > 0.02  # the noise was there


@pytest.mark.parametrize("seed", range(5))
def test_planted_shifts_are_seen_each_in_its_place(seed: int) -> None:
    mixed = drift_of(seed, mix=(0.1, 0.2, 0.3, 0.4))
    assert mixed["labels"]["shifted"]
    assert mixed["labels"]["psi"] > THRESHOLD
    assert not mixed["confidence"]["shifted"]
    unsure = drift_of(seed, sure=3)
    assert unsure["confidence"]["shifted"]
    assert not unsure["labels"]["shifted"]


def test_a_label_the_baseline_never_saw_counts() -> None:
    baseline = make_baseline([("World",)] * 300 + [("Sports",)] * 300, [0.9] * 600, "validation rows")
    drift = Drift(baseline, 1000, 500)
    for number in range(400):
        drift.add(("World", "Business")[number % 2 :][:1], 0.9)
    assert drift.state()["labels"]["shifted"]
    assert drift.state()["confidence"]["psi"] < 0.01  # as sure as before, to the last bit


def test_first_answers_serve_where_there_are_no_validation_rows_and_memory_is_bounded() -> None:
    rng = np.random.default_rng(0)
    drift = Drift(None, 200, 150)
    seen = []
    for labels, confidence in answers(rng, 2000, MIX, 8):
        drift.add(labels, confidence)
        seen.append((drift.state()["baseline"], drift.state()["window_answers"]))
    assert seen[148:151] == [(None, 0), ("first answers", 0), ("first answers", 1)]  # each answer counts on one side
    state = drift.state()
    assert (state["baseline_answers"], state["window_answers"]) == (150, 200)
    assert not state["labels"]["shifted"]


def test_a_baseline_is_what_was_answered_right_or_wrong() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]], np.float32))
    held = Calibration(1.0, logits, np.array([0, 0, 0]), {})
    baseline = validation_baseline(held, ("World", "Sports"))
    assert (baseline.labels, baseline.answers) == ({"World": 1, "Sports": 2}, 3)
    hotter = validation_baseline(replace(held, temperature=2.0), ("World", "Sports"))
    assert max(hotter.edges) < max(baseline.edges)  # as sure as the answers are


def test_numbers_of_small_windows_become_json() -> None:
    state = drift_of(0, FEWEST, rows=120)
    assert state["labels"]["limit"] > THRESHOLD, "the limit is chance's, not the custom one"
    assert json.loads(json.dumps(state)) == state


def test_too_few_answers_say_nothing_and_texts_without_a_label_are_a_share_of_their_own() -> None:
    assert drift_of(0, FEWEST - 1)["labels"] is None
    baseline = make_baseline([("World", "Sports")] * 200 + [()] * 20, [0.9] * 220, "first answers")
    drift = Drift(baseline, 1000, 500)
    for _ in range(300):
        drift.add((), 0.9)
    assert drift.state()["labels"]["shifted"]
