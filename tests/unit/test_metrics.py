"""Numbers agree with scikit-learn, whichever classes occur; groups of rows are counted whole."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from metric_parts import NAMES, assert_intervals_hold_their_values, certain, random_answers, rates
from scipy.special import softmax as scipy_softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

from newslora.metrics.basic import quick_metrics, softmax
from newslora.metrics.calibration import BINS, bin_of, expected_calibration_error, reliability, top_answers
from newslora.metrics.classes import absent_note
from newslora.metrics.groups import OTHERS, accuracy_by_name, accuracy_by_number, surest_errors
from newslora.metrics.intervals import UNMOVED, auroc_score, share, told, undefined
from newslora.metrics.ranking import Ranking
from newslora.metrics.single_label import full_metrics


@pytest.mark.parametrize("shape", [(1, 4), (300, 4), (50, 77), (0, 4)])
def test_softmax_is_scipys_to_the_bit(shape: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).normal(scale=20, size=shape).astype(np.float32)
    assert np.array_equal(softmax(logits, 1.3), scipy_softmax(logits.astype(np.float64) / 1.3, axis=-1))


@pytest.mark.parametrize("seed", range(5))
def test_every_number_is_scikit_learns(seed: int) -> None:
    truth, probabilities = random_answers(seed)
    predicted = probabilities.argmax(axis=1)
    result = full_metrics(truth, probabilities, NAMES)
    assert result["rows"] == len(truth)
    assert result["labels"] == NAMES
    assert result["accuracy"]["value"] == pytest.approx(accuracy_score(truth, predicted))
    assert result["macro_f1"]["value"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert result["macro_precision"]["value"] == pytest.approx(precision_score(truth, predicted, average="macro"))
    assert result["macro_recall"]["value"] == pytest.approx(recall_score(truth, predicted, average="macro"))
    assert result["mcc"]["value"] == pytest.approx(matthews_corrcoef(truth, predicted))
    assert result["loss"] == result["log_loss"]["value"] == pytest.approx(log_loss(truth, probabilities))
    brier = brier_score_loss(truth, probabilities, labels=range(4), scale_by_half=False)
    assert result["brier"]["value"] == pytest.approx(brier)
    assert result["auroc"]["value"] == pytest.approx(roc_auc_score(truth, probabilities, multi_class="ovr"))
    ours = [result["per_class"][name]["auroc"]["value"] for name in NAMES]
    assert ours == pytest.approx([roc_auc_score(truth == k, probabilities[:, k]) for k in range(4)])
    assert result["confidence"]["value"] == pytest.approx(probabilities.max(axis=1).mean())
    assert result["confusion"] == confusion_matrix(truth, predicted).tolist()
    for kind, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        ours = [result["per_class"][name][kind]["value"] for name in NAMES]
        assert ours == pytest.approx(score(truth, predicted, average=None).tolist())
    assert [result["per_class"][name]["rows"] for name in NAMES] == np.bincount(truth).tolist()
    assert_intervals_hold_their_values(result)
    quick = quick_metrics(truth, probabilities)
    assert quick["loss"] == result["loss"]
    assert quick["accuracy"] == result["accuracy"]["value"]
    assert quick["macro_f1"] == pytest.approx(result["macro_f1"]["value"])


ANSWERS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12
)  # (true, predicted) of five


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
@example([(0, 0), (1, 1), (1, 0)])  # three classes neither among the rows nor predicted
@example([(0, 0), (1, 2)])  # one of them absent but predicted
def test_macro_averages_are_scikit_learns_own_whichever_classes_occur(answers: list[tuple[int, int]]) -> None:
    """Its default is the classes that occur among the rows or the answers; what divides by nothing counts as 0 there."""
    truth, predicted = (np.array(column) for column in zip(*answers, strict=True))
    names = ["a", "b", "c", "d", "e"]
    result = full_metrics(truth, certain(predicted.tolist(), 5), names)
    for kind, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        wanted = score(truth, predicted, average="macro", zero_division=0)
        assert result[f"macro_{kind}"]["value"] == pytest.approx(wanted)
        alone = score(truth, predicted, average=None, labels=range(5), zero_division=np.nan)
        ours = [result["per_class"][name][kind]["value"] for name in names]
        assert ours == [None if math.isnan(value) else pytest.approx(value) for value in alone.tolist()]
    assert quick_metrics(truth, certain(predicted.tolist(), 5))["macro_f1"] == pytest.approx(
        result["macro_f1"]["value"]
    )
    assert_intervals_hold_their_values(result)
    json.dumps(result, allow_nan=False)


def test_classes_without_rows_are_named_and_told_apart_by_whether_they_are_predicted() -> None:
    truth, predicted = [0] * 10 + [1] * 10, [0] * 10 + [1] * 8 + [2] * 2
    result = full_metrics(np.array(truth), certain(predicted, 4), NAMES)
    assert result["macro_f1"]["value"] == pytest.approx((1 + 16 / 18 + 0) / 3)
    assert result["macro_f1"]["reason"] == "mean over the labels among the rows or the answers; without: d"
    assert "reason" not in full_metrics(np.array(truth), certain(predicted, 3), NAMES[:3])["macro_f1"]
    nothing = {"value": None, "interval": None}
    per_class = result["per_class"]
    assert per_class["c"]["recall"] == nothing | {"reason": "no rows of this label"}
    assert per_class["c"]["precision"]["value"] == per_class["c"]["f1"]["value"] == 0
    assert per_class["d"]["precision"] == nothing | {"reason": "never predicted"}
    assert per_class["d"]["f1"]["value"] is None
    assert absent_note(per_class) == (
        "No rows of c, d: the numbers say nothing of how well such rows are labelled. Macro averages leave out d. In macro "
        "averages c counts as 0, because other rows were given it."
    )
    assert absent_note({name: per_class[name] for name in ("a", "b")}) is None


def test_of_many_classes_without_rows_ten_are_named() -> None:
    absent = {f"l{number}": {"rows": 0, "precision": undefined("never predicted")} for number in range(12)}
    ten = "l0, l1, l2, l3, l4, l5, l6, l7, l8, l9"
    assert str(absent_note(absent)).startswith(f"No rows of {ten} and 2 more: ")
    assert str(absent_note(absent)).endswith(f"Macro averages leave out {ten} and 2 more.")
    del absent["l10"], absent["l11"]
    assert str(absent_note(absent)).startswith(f"No rows of {ten}: ")


def test_a_perfect_answer() -> None:
    truth = np.array([0, 1, 2, 3] * 10, dtype=np.int64)
    result = full_metrics(truth, certain(truth.tolist(), 4), NAMES)
    assert all(rate["value"] == 1 for name, rate in rates(result).items() if name != "ece")
    assert result["mcc"]["value"] == result["auroc"]["value"] == 1
    assert result["loss"] == result["brier"]["value"] == result["ece"]["value"] == 0
    assert 0.9 < result["accuracy"]["interval"][0] < 1
    assert result["accuracy"]["interval"][1] == 1
    assert_intervals_hold_their_values(result)
    assert result["mcc"] == {"value": 1.0, "interval": None, "reason": UNMOVED}
    assert result["log_loss"]["interval"] is result["brier"]["interval"] is result["confidence"]["interval"] is None
    alone = auroc_score(1, 10, 30)
    assert result["per_class"]["a"]["auroc"]["interval"] == result["auroc"]["interval"] == pytest.approx(alone)
    assert 0.7 < alone[0] < alone[1] == 1


def test_a_rate_in_words() -> None:
    assert told({"value": 0.975, "interval": [0.969, 0.98]}) == "97.50% (96.90% to 98.00%)"
    assert told({"value": 1.0, "interval": None, "reason": UNMOVED}, ".1f") == f"1.0 ({UNMOVED})"
    assert told(undefined("no rows")) == "no rows"


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_of_one_class_only(rows: int) -> None:
    result = full_metrics(np.zeros(rows, dtype=np.int64), certain([0] * rows, 2), ["a", "b"])
    assert result["accuracy"]["value"] == 1
    assert result["macro_f1"]["value"] == 1  # the class without rows or answers is left out, as in scikit-learn
    assert result["macro_f1"]["interval"][0] < 0.8
    assert result["mcc"] == {"value": None, "interval": None, "reason": "the rows are all of one label"}
    assert result["per_class"]["b"]["rows"] == 0
    assert result["per_class"]["b"]["recall"] == {"value": None, "interval": None, "reason": "no rows of this label"}
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


DEGENERATE = {
    "one row": ([0], [0]),
    "one wrong row": ([0], [1]),
    "one label, all right": ([1] * 6, [1] * 6),
    "one label, all wrong": ([1] * 6, [0] * 6),
    "all wrong": ([0, 1, 2] * 4, [1, 2, 0] * 4),
    "a label without rows": ([0, 1] * 5, [0, 1, 1, 0, 2] * 2),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_rows_are_answered_in_json_without_nan(case: str) -> None:
    truth, predicted = DEGENERATE[case]
    result = full_metrics(np.array(truth), certain(predicted, 3), ["a", "b", "c"])
    json.dumps(result, allow_nan=False)
    assert_intervals_hold_their_values(result)
    several = len(set(truth)) > 1
    assert (result["auroc"]["value"] is not None) is several
    if not several:
        assert result["auroc"] == {"value": None, "interval": None, "reason": "the rows are all of one label"}
    if case == "a label without rows":
        assert result["auroc"]["reason"] == "mean over the labels with rows; without: c"
        assert result["per_class"]["c"]["auroc"]["reason"] == "no rows of this label"
    if case == "all wrong":
        assert result["auroc"]["value"] < 0.5
        assert result["mcc"]["value"] < 0
        assert result["brier"]["value"] == 2
        assert result["ece"]["value"] == 1


def test_auroc_counts_ties_half() -> None:
    ranking = Ranking(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.9, 0.1]))
    assert ranking.auroc(np.ones((4, 1))).tolist() == [3.5 / 4]
    assert np.isnan(ranking.auroc(np.array([[1.0], [0], [1], [0]]))).all()


def test_ece_by_hand() -> None:
    # two bins: 10 rows sure at 0.95, 8 of them right; 10 rows at 0.65, 7 right
    confidence = np.array([0.95] * 10 + [0.65] * 10)
    hits = np.array([True] * 8 + [False] * 2 + [True] * 7 + [False] * 3)
    assert expected_calibration_error(hits, confidence) == pytest.approx((0.15 + 0.05) / 2)
    first, second = reliability(hits, confidence)["bins"]
    assert (first["rows"], second["rows"]) == (10, 10)
    assert first["low"] < 0.65 <= first["high"]
    assert first["confidence"] == pytest.approx(0.65)
    assert second["accuracy"] == share(8, 10)


def test_a_bin_holds_its_upper_edge_and_says_so() -> None:
    """As in Guo et al. 2017: B_m is ((m - 1) / M, m / M]."""
    edges = np.linspace(0, 1, BINS + 1)
    assert bin_of(edges).tolist() == [0, *range(BINS)]
    bins = reliability(np.ones(BINS, dtype=bool), edges[1:])["bins"]
    assert [one["rows"] for one in bins] == [1] * BINS
    assert [one["low"] for one in bins] == pytest.approx(edges[:-1].tolist())
    assert [one["high"] for one in bins] == pytest.approx(edges[1:].tolist())


@pytest.mark.parametrize("seed", range(3))
def test_ece_is_the_mean_gap_of_scikit_learns_calibration_curve(seed: int) -> None:
    hits, confidence = top_answers(*random_answers(seed))
    accuracy, mean = calibration_curve(hits, confidence, n_bins=BINS)
    bins = reliability(hits, confidence)["bins"]
    assert [one["accuracy"]["value"] for one in bins] == pytest.approx(accuracy.tolist())
    assert [one["confidence"] for one in bins] == pytest.approx(mean.tolist())
    rows = np.array([one["rows"] for one in bins])
    assert rows.sum() == len(hits)
    assert expected_calibration_error(hits, confidence) == pytest.approx(
        np.average(np.abs(accuracy - mean), weights=rows)
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=400), st.integers(0, 10**6))
def test_groups_by_a_number_hold_every_row_once_and_do_not_overlap(values: list[int], seed: int) -> None:
    hits = np.random.default_rng(seed).random(len(values)) < 0.7
    groups = accuracy_by_number(np.array(values), hits)
    assert sum(group["rows"] for group in groups) == len(values)
    assert 1 <= len(groups) <= 10
    assert all(one["high"] < other["low"] for one, other in itertools.pairwise(groups))
    right = sum(round(group["accuracy"]["value"] * group["rows"]) for group in groups)
    assert right == hits.sum()


def test_groups_by_a_number_are_equal_parts_of_twenty_rows_or_more() -> None:
    values = np.arange(45)
    first, second = accuracy_by_number(values, values < 30)
    assert first == {"low": 0, "high": 22, "rows": 23, "accuracy": share(23, 23)}
    assert second == {"low": 23, "high": 44, "rows": 22, "accuracy": share(7, 22)}
    assert [one["rows"] for one in accuracy_by_number(values[:39], values[:39] < 30)] == [39]
    rows = [one["rows"] for one in accuracy_by_number(np.arange(1_000), np.ones(1_000, dtype=bool))]
    assert (len(rows), min(rows) >= 99, max(rows) <= 101) == (10, True, True)


def test_a_planted_weakness_with_length_is_found_and_none_where_none_is() -> None:
    lengths = np.tile(np.arange(10, 110), 20)
    generator = np.random.default_rng(0)
    weak = accuracy_by_number(lengths, (lengths < 60) | (generator.random(2000) < 0.5))
    assert weak[-1]["accuracy"]["interval"][1] < weak[0]["accuracy"]["interval"][0]
    even = accuracy_by_number(lengths, generator.random(2000) < 0.9)
    assert even[-1]["accuracy"]["interval"][1] > even[0]["accuracy"]["interval"][0]


def test_groups_by_name_are_counted_and_the_small_ones_put_together() -> None:
    names = ["big"] * 10 + ["mid"] * 5 + [f"n{k:02}" for k in range(30)]
    groups = accuracy_by_name(names, np.array([True] * 8 + [False] * 25 + [True] * 5 + [False] * 7))
    assert groups[0] == {"name": "big", "rows": 10, "accuracy": share(8, 10)}
    assert groups[1]["accuracy"]["value"] == 0
    assert [group["name"] for group in groups[2:-1]] == [f"n{k:02}" for k in range(18)]  # of one size, by name
    assert groups[-1] == {"name": OTHERS, "rows": 12, "accuracy": share(5, 12)}
    assert sum(group["rows"] for group in groups) == 45


def test_the_surest_errors_come_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.3, 0.7], [0.3, 0.7]])
    assert surest_errors(np.array([0, 0, 0, 1, 0]), probabilities).tolist() == [2, 4, 1]
