"""Numbers agree with scikit-learn and scipy, and every interval holds its value and, mostly, the truth."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score

from newslora.metrics import full_metrics, quick_metrics, softmax

NAMES = ["a", "b", "c", "d"]


def random_answers(seed: int, rows: int = 300, labels: int = 4, skill: float = 1.5) -> tuple[Any, Any]:
    """Labels of uneven shares, and probabilities that know something of them."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(labels, rows, p=np.arange(1, labels + 1) / np.arange(1, labels + 1).sum())
    logits = generator.normal(size=(rows, labels)).astype(np.float32)
    logits[np.arange(rows), truth] += skill
    return truth.astype(np.int64), softmax(logits)


def certain(predicted: list[int], labels: int) -> Any:
    return np.eye(labels)[predicted]


def rates(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {"accuracy": result["accuracy"], "macro_f1": result["macro_f1"]}
    for name, own in result["per_class"].items():
        found |= {f"{name} {kind}": own[kind] for kind in ("precision", "recall", "f1")}
    return found


def assert_intervals_hold_their_values(result: dict[str, Any]) -> None:
    for name, rate in rates(result).items():
        low, high = rate["interval"]
        assert 0 <= low <= rate["value"] + 1e-12, name
        assert rate["value"] - 1e-12 <= high <= 1, name


@pytest.mark.parametrize("seed", range(5))
def test_every_number_is_scikit_learns(seed: int) -> None:
    truth, probabilities = random_answers(seed)
    predicted = probabilities.argmax(axis=1)
    result = full_metrics(truth, probabilities, NAMES)
    assert result["rows"] == len(truth)
    assert result["labels"] == NAMES
    assert result["accuracy"]["value"] == pytest.approx(accuracy_score(truth, predicted))
    assert result["macro_f1"]["value"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert result["loss"] == pytest.approx(log_loss(truth, probabilities))
    assert result["confusion"] == confusion_matrix(truth, predicted).tolist()
    for kind, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        ours = [result["per_class"][name][kind]["value"] for name in NAMES]
        assert ours == pytest.approx(score(truth, predicted, average=None).tolist())
    assert [result["per_class"][name]["rows"] for name in NAMES] == np.bincount(truth).tolist()
    assert_intervals_hold_their_values(result)
    quick = quick_metrics(truth, probabilities)
    assert quick["accuracy"] == result["accuracy"]["value"]
    assert quick["macro_f1"] == result["macro_f1"]["value"]


def wilson_by_hand(hits: int, rows: int) -> list[float]:
    z = norm.ppf(0.975)
    share = hits / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return [middle - half, middle + half]


@pytest.mark.parametrize(("hits", "rows"), [(605, 640), (1, 10), (0, 20), (20, 20), (7_200, 7_600)])
def test_accuracy_has_wilsons_interval(hits: int, rows: int) -> None:
    truth = np.zeros(rows, dtype=np.int64)
    result = full_metrics(truth, certain([0] * hits + [1] * (rows - hits), 2), ["a", "b"])
    assert result["accuracy"]["interval"] == pytest.approx(wilson_by_hand(hits, rows), abs=1e-9)
    assert result["per_class"]["a"]["recall"]["interval"] == result["accuracy"]["interval"]


def test_a_known_wilson_interval() -> None:
    # 10 of 20, a textbook case: 0.2993 to 0.7007
    result = full_metrics(np.zeros(20, dtype=np.int64), certain([0] * 10 + [1] * 10, 2), ["a", "b"])
    assert result["accuracy"]["interval"] == pytest.approx([0.2993, 0.7007], abs=1e-4)


def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    # precision of one class with a known truth: of rows predicted 'a', 80 % are 'a'
    generator = np.random.default_rng(0)
    covered, trials = 0, 100
    for _ in range(trials):
        truth = (generator.random(150) > 0.8).astype(np.int64)
        low, high = full_metrics(truth, certain([0] * 150, 2), ["a", "b"])["per_class"]["a"]["precision"]["interval"]
        assert high - low < 0.2
        covered += low <= 0.8 <= high
    assert 88 <= covered <= 100  # 95 % +- 3 standard errors


def test_the_bootstrap_agrees_with_the_normal_approximation() -> None:
    truth = np.array([0] * 1600 + [1] * 400, dtype=np.int64)
    interval = full_metrics(truth, certain([0] * 2000, 2), ["a", "b"])["per_class"]["a"]["precision"]["interval"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 2000)
    assert interval == pytest.approx([0.8 - half, 0.8 + half], abs=0.003)


def test_the_same_seed_gives_the_same_intervals() -> None:
    truth, probabilities = random_answers(0)
    assert full_metrics(truth, probabilities, NAMES, seed=1) == full_metrics(truth, probabilities, NAMES, seed=1)
    one, two = (full_metrics(truth, probabilities, NAMES, seed=seed)["macro_f1"]["interval"] for seed in (1, 2))
    assert one != two
    assert one == pytest.approx(two, abs=0.02)


def test_a_perfect_answer() -> None:
    truth = np.array([0, 1, 2, 3] * 10, dtype=np.int64)
    result = full_metrics(truth, certain(truth.tolist(), 4), NAMES)
    assert all(rate["value"] == 1 for rate in rates(result).values())
    assert result["loss"] == 0
    assert 0.9 < result["accuracy"]["interval"][0] < 1
    assert result["accuracy"]["interval"][1] == 1
    assert_intervals_hold_their_values(result)


def test_intervals_hold_the_value_where_resamples_miss_classes() -> None:
    # eight rows of eight classes, all right: a resample misses some class almost surely, and its macro F1 is below 1
    truth = np.arange(8)
    result = full_metrics(truth, certain(truth.tolist(), 8), [str(k) for k in range(8)])
    assert result["macro_f1"]["value"] == 1
    assert result["macro_f1"]["interval"][0] < 0.9
    assert_intervals_hold_their_values(result)


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_of_one_class_only(rows: int) -> None:
    result = full_metrics(np.zeros(rows, dtype=np.int64), certain([0] * rows, 2), ["a", "b"])
    assert result["accuracy"]["value"] == 1
    assert result["macro_f1"]["value"] == 0.5  # the class without rows counts as 0, as in scikit-learn
    assert result["per_class"]["b"]["rows"] == 0
    assert result["per_class"]["b"]["recall"] == {"value": 0.0, "interval": [0.0, 1.0]}
    assert_intervals_hold_their_values(result)


def test_everything_wrong_costs_a_large_but_finite_loss() -> None:
    result = full_metrics(np.array([0, 1]), certain([1, 0], 2), ["a", "b"])
    assert result["accuracy"]["value"] == 0
    assert 100 < result["loss"] < 1000
    assert_intervals_hold_their_values(result)


def test_softmax_sums_to_one_and_survives_large_logits() -> None:
    logits = np.array([[1e4, -1e4, 0], [0, 0, 0], [1, 2, 3]], dtype=np.float32)
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float64
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-15
    assert probabilities[1].tolist() == pytest.approx([1 / 3] * 3)
    assert probabilities[2, 2] / probabilities[2, 1] == pytest.approx(math.e)
