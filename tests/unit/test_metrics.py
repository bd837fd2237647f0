"""Numbers agree with scikit-learn and scipy, and every interval holds its value and, mostly, the truth."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm
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

from newslora.metrics import full_metrics, quick_metrics, softmax
from newslora.metrics.calibration import BINS, expected_calibration_error, reliability, top_answers
from newslora.metrics.classes import absent_note, class_rates
from newslora.metrics.groups import OTHERS, accuracy_by_name, accuracy_by_number, surest_errors
from newslora.metrics.intervals import UNMOVED, auroc_score, bootstrap, share, told, undefined
from newslora.metrics.ranking import Ranking
from newslora.metrics.single_label import _RowStatistics, _values

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


OVERALL = (
    "accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc", "log_loss", "brier", "ece", "auroc", "confidence",
)  # fmt: skip
SHARES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "ece", "confidence")


def rates(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Everything between 0 and 1."""
    found = {name: result[name] for name in SHARES}
    for name, own in result["per_class"].items():
        found |= {f"{name} {kind}": own[kind] for kind in ("precision", "recall", "f1")}
    return found


def assert_intervals_hold_their_values(result: dict[str, Any]) -> None:
    for name in OVERALL:
        if result[name]["interval"] is None:
            assert result[name]["reason"], name
        else:
            low, high = result[name]["interval"]
            assert low - 1e-12 <= result[name]["value"] <= high + 1e-12, name
    for name, rate in rates(result).items():
        if rate["value"] is None:
            assert rate["interval"] is None
        if rate["interval"] is None:
            assert rate["reason"], name
            continue
        low, high = rate["interval"]
        assert low < high, name
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
        "averages c counts as 0, for other rows are given it."
    )
    assert absent_note({name: per_class[name] for name in ("a", "b")}) is None


def test_a_resample_without_a_class_does_not_count_it_as_wrong() -> None:
    # two rows of the rare class, all rows right but one: seven resamples of a hundred miss it, and miss no answer by that
    truth = np.array([0] * 99 + [1] * 2)
    result = full_metrics(truth, certain([0] * 98 + [1] * 3, 2), ["a", "b"])
    assert result["macro_f1"]["interval"][0] > 0.49
    absent = full_metrics(truth, np.pad(certain([0] * 98 + [1] * 3, 2), ((0, 0), (0, 1))), ["a", "b", "never"])
    assert absent["macro_f1"]["interval"] == result["macro_f1"]["interval"]


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


def test_a_perfect_precision_of_few_rows_is_not_certain() -> None:
    result = class_rates(37, 37, 40)
    assert result["precision"]["interval"] == pytest.approx([0.9059, 1], abs=1e-4)
    assert result["precision"]["interval"] == pytest.approx(wilson_by_hand(37, 37), abs=1e-9)
    assert result["f1"]["value"] == pytest.approx(74 / 77)
    ends = [2 * end / (1 + end) for end in wilson_by_hand(37, 40)]  # 37 hits, 3 errors
    assert result["f1"]["interval"] == pytest.approx(ends, abs=1e-9)
    assert class_rates(37, 37, 37)["f1"]["interval"] == pytest.approx([0.9506, 1], abs=1e-4)


@pytest.mark.parametrize(("rows", "right", "spill"), [(30, 0.97, 0.05), (150, 0.8, 0.1), (60, 0.5, 0.5)])
def test_the_intervals_of_a_class_cover_the_truth_as_often_as_they_say(rows: int, right: float, spill: float) -> None:
    """Half of the rows are of the class; `right` of them are given it, and `spill` of the others."""
    generator = np.random.default_rng(0)
    trials = 1000
    precision, f1 = right / (right + spill), 2 * right / (1 + right + spill)
    covered = dict.fromkeys(("precision", "recall", "f1"), 0)
    for _ in range(trials):
        truth = generator.random(rows) < 0.5
        given_it = generator.random(rows) < np.where(truth, right, spill)
        found = class_rates(int((truth & given_it).sum()), int(given_it.sum()), int(truth.sum()))
        for kind, value in (("precision", precision), ("recall", right), ("f1", f1)):
            low, high = found[kind]["interval"]
            covered[kind] += low <= value <= high
    assert all(0.92 * trials <= count <= 0.99 * trials for count in covered.values()), covered


def test_the_bootstrap_agrees_with_the_normal_approximation() -> None:
    hits = np.array([1.0] * 1600 + [0.0] * 400)
    interval = bootstrap(lambda weights: {"share": hits @ weights / 2000}, 2000, cost=1, seed=0)["share"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 2000)
    assert interval == pytest.approx([0.8 - half, 0.8 + half], abs=0.003)


def test_macro_averages_that_no_resample_moves_are_not_certain_either() -> None:
    truth = np.array([0] * 40 + [1] * 40)
    right = full_metrics(truth, certain(truth.tolist(), 2), ["a", "b"])
    low, high = right["macro_recall"]["interval"]
    distance = 1 - wilson_by_hand(40, 40)[0]
    assert (low, high) == (pytest.approx(1 - distance / math.sqrt(2)), 1)  # of two classes as good as each other
    assert right["macro_f1"]["interval"][0] < 0.98
    wrong = full_metrics(truth, certain((1 - truth).tolist(), 2), ["a", "b"])
    assert wrong["macro_f1"]["interval"][0] == 0 < wrong["macro_f1"]["interval"][1] < 0.2


def test_the_same_seed_gives_the_same_intervals() -> None:
    truth, probabilities = random_answers(0)
    assert full_metrics(truth, probabilities, NAMES, seed=1) == full_metrics(truth, probabilities, NAMES, seed=1)
    one, two = (full_metrics(truth, probabilities, NAMES, seed=seed)["macro_f1"]["interval"] for seed in (1, 2))
    assert one != two
    assert one == pytest.approx(two, abs=0.02)


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


@pytest.mark.parametrize(("value", "own", "others"), [(1.0, 10, 30), (0.0, 10, 30), (0.5, 20, 30), (0.9, 50, 7)])
def test_the_interval_of_an_area_solves_newcombes_equation(value: float, own: int, others: int) -> None:
    def left_over(t: float) -> float:
        mean = (own + others) / 2
        spread = 1 + (mean - 1) * ((1 - t) / (2 - t) + t / (1 + t))
        return float((value - t) ** 2 - norm.ppf(0.975) ** 2 * t * (1 - t) * spread / (own * others))

    low, high = auroc_score(value, own, others)
    assert left_over(low) == pytest.approx(0, abs=1e-9)
    assert left_over(high) == pytest.approx(0, abs=1e-9)
    assert 0 <= low <= value <= high <= 1
    assert high - low > 0.1
    assert auroc_score(1 - value, own, others) == pytest.approx([1 - high, 1 - low])
    assert auroc_score(1.0, 10**8, 10**8)[0] == pytest.approx(1, abs=1e-7)


def test_a_perfect_ranking_comes_as_seldom_of_its_lower_bound_as_it_says() -> None:
    low, _ = auroc_score(1.0, 5, 5)
    generator = np.random.default_rng(0)
    own, others = generator.normal(size=(2, 20_000, 5))
    perfect = own.min(axis=1) + math.sqrt(2) * norm.ppf(low) > others.max(axis=1)  # two normal scores of that area
    assert 0.015 < perfect.mean() < 0.03  # 2.5 % on one side
    added = 1 - (1 - low) / math.sqrt(2)  # were the two labels' rankings independent; they are one
    perfect = own.min(axis=1) + math.sqrt(2) * norm.ppf(added) > others.max(axis=1)
    assert perfect.mean() > 0.05


def test_two_labels_have_one_ranking_and_so_has_their_mean() -> None:
    truth = np.array([0] * 12 + [1] * 8)
    result = full_metrics(truth, certain(truth.tolist(), 2), ["a", "b"])
    assert result["auroc"]["interval"] == result["per_class"]["b"]["auroc"]["interval"] == auroc_score(1, 8, 12)


def test_a_resample_of_one_class_says_nothing_of_matthews_coefficient() -> None:
    truth = [0] * 9 + [1]  # a third of the resamples miss the last row
    assert full_metrics(np.array(truth), certain(truth, 2), ["a", "b"])["mcc"]["interval"] is None  # 0 to 1 by zeros
    some = full_metrics(np.array(truth), certain([1, *truth[1:]], 2), ["a", "b"])["mcc"]
    assert 0.3 < some["interval"][0] < some["value"] == pytest.approx(2 / 3)
    none = full_metrics(np.array([0] * 5 + [1] * 5), certain([0] * 10, 2), ["a", "b"])["mcc"]
    assert none == {"value": 0.0, "interval": None, "reason": UNMOVED}  # answers of one label alone: 0, as ever


def test_a_rate_in_words() -> None:
    assert told({"value": 0.975, "interval": [0.969, 0.98]}) == "97.50% (96.90% to 98.00%)"
    assert told({"value": 1.0, "interval": None, "reason": UNMOVED}, ".1f") == f"1.0 ({UNMOVED})"
    assert told(undefined("no rows")) == "no rows"


def test_intervals_hold_the_value_where_resamples_miss_classes() -> None:
    # eight rows of eight classes, one of them right: resamples mostly miss that one, and it is all the macro F1 there is
    truth = np.arange(8)
    result = full_metrics(truth, certain([0, 0, 0, 0, 0, 0, 0, 0], 8), [str(k) for k in range(8)])
    assert result["macro_f1"]["value"] == pytest.approx(2 / 9 / 8)
    assert_intervals_hold_their_values(result)


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


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 40), labels=st.integers(2, 5), ties=st.booleans())
def test_a_resample_scores_as_its_rows_would(seed: int, rows: int, labels: int, ties: bool) -> None:
    """What the bootstrap computes from row weights is what scikit-learn computes from the rows drawn."""
    truth, probabilities = random_answers(seed, rows, labels)
    if ties:
        probabilities = softmax(np.round(np.log(probabilities)))
    statistics = _RowStatistics(truth, probabilities)
    whole = statistics(np.ones((rows, 1)))
    drawn = np.random.default_rng(seed).integers(0, rows, (3, rows))
    weights = np.stack([np.bincount(one, minlength=rows) for one in drawn], axis=1).astype(float)
    many = statistics(weights)
    for column, picked in enumerate([np.arange(rows), *drawn], -1):
        wanted = _values(truth[picked], probabilities[picked], labels)
        ours = {
            name: value[0] if column < 0 else value[column] for name, value in (many if column >= 0 else whole).items()
        }
        for name, value in wanted.items():
            assert ours[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
        undefined = {name for name in ours if name.startswith("auroc/")} - set(wanted)
        assert all(math.isnan(ours[name]) for name in undefined)


def test_the_bootstrap_is_scipys() -> None:
    from scipy.stats import bootstrap as scipy_bootstrap

    truth, probabilities = random_answers(3)
    own = -np.log(probabilities[np.arange(len(truth)), truth])
    theirs = scipy_bootstrap((own,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    ours = full_metrics(truth, probabilities, NAMES, seed=0)["log_loss"]["interval"]
    assert ours == pytest.approx(list(theirs.confidence_interval))  # the same seed draws the same rows


def test_many_rows_take_fewer_resamples_and_bounded_memory() -> None:
    drawn: list[tuple[int, int]] = []

    def mean(weights: Any) -> dict[str, Any]:
        drawn.append(weights.shape)
        return {"mean": weights.sum(axis=0) / len(weights)}

    bootstrap(mean, 50_000, cost=50, seed=0)
    assert sum(count for _, count in drawn[1:]) == 500
    assert max(rows * count for rows, count in drawn) <= 1_000_000


def test_resamples_that_miss_a_label_leave_no_nan() -> None:
    truth = np.array([0] * 30 + [1])
    result = full_metrics(truth, softmax(np.random.default_rng(0).normal(size=(31, 2)).astype(np.float32)), ["a", "b"])
    json.dumps(result, allow_nan=False)
    assert 0 <= result["auroc"]["interval"][0] <= result["auroc"]["value"] <= result["auroc"]["interval"][1] <= 1


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


def test_a_planted_weakness_with_length_is_found_and_none_where_none_is() -> None:
    lengths = np.tile(np.arange(10, 110), 20)
    generator = np.random.default_rng(0)
    weak = accuracy_by_number(lengths, (lengths < 60) | (generator.random(2000) < 0.5))
    assert weak[-1]["accuracy"]["interval"][1] < weak[0]["accuracy"]["interval"][0]
    even = accuracy_by_number(lengths, generator.random(2000) < 0.9)
    assert even[-1]["accuracy"]["interval"][1] > even[0]["accuracy"]["interval"][0]


def test_groups_by_name_are_counted_and_the_small_ones_put_together() -> None:
    names = ["big"] * 10 + ["mid"] * 5 + [f"n{k:02}" for k in range(30)]
    groups = accuracy_by_name(names, np.array([True] * 8 + [False] * 37))
    assert groups[0] == {"name": "big", "rows": 10, "accuracy": share(8, 10)}
    assert groups[1]["accuracy"]["value"] == 0
    assert groups[-1]["name"] == OTHERS
    assert len(groups) == 21
    assert sum(group["rows"] for group in groups) == 45


def test_the_surest_errors_come_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.3, 0.7], [0.3, 0.7]])
    assert surest_errors(np.array([0, 0, 0, 1, 0]), probabilities).tolist() == [2, 4, 1]
