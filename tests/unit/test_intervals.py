"""Every interval holds its value and, mostly, the truth; Wilson's, Newcombe's and the bootstrap's are what they say."""

import functools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_parts import NAMES, assert_intervals_hold_their_values, certain, random_answers
from scipy.stats import norm

from newslora.metrics import intervals
from newslora.metrics.basic import softmax
from newslora.metrics.classes import class_rates
from newslora.metrics.intervals import UNMOVED, auroc_score, bootstrap
from newslora.metrics.single_label import _RowStatistics, _values, full_metrics


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
def test_the_intervals_of_a_class_cover_the_truth_as_often_as_they_say(
    rows: int, right: float, spill: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the rows are of the class; `right` of them are given it, and `spill` of the others."""
    monkeypatch.setattr(intervals, "wilson", functools.cache(intervals.wilson))  # many trials have the same counts
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
    one = full_metrics(np.array([0]), certain([1], 2), ["a", "b"])["macro_precision"]
    assert one["value"] == 0  # of b, given once and wrongly; a is never given, so its precision may be any
    assert one["interval"] == pytest.approx([0, math.sqrt(1 + wilson_by_hand(0, 1)[1] ** 2) / 2])


def test_the_same_seed_gives_the_same_intervals() -> None:
    truth, probabilities = random_answers(0)
    assert full_metrics(truth, probabilities, NAMES, seed=1) == full_metrics(truth, probabilities, NAMES, seed=1)
    one, two = (full_metrics(truth, probabilities, NAMES, seed=seed)["macro_f1"]["interval"] for seed in (1, 2))
    assert one != two
    assert one == pytest.approx(two, abs=0.02)


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


def test_a_mean_of_perfect_rankings_has_the_mean_of_their_bounds() -> None:
    truth = np.repeat([0, 1, 2], [4, 8, 20])
    low, high = full_metrics(truth, certain(truth.tolist(), 3), ["a", "b", "c"])["auroc"]["interval"]
    assert low == pytest.approx(np.mean([auroc_score(1, own, 32 - own)[0] for own in (4, 8, 20)]))
    assert high == 1


def test_a_resample_of_one_class_says_nothing_of_matthews_coefficient() -> None:
    truth = [0] * 9 + [1]  # a third of the resamples miss the last row
    assert full_metrics(np.array(truth), certain(truth, 2), ["a", "b"])["mcc"]["interval"] is None  # 0 to 1 by zeros
    some = full_metrics(np.array(truth), certain([1, *truth[1:]], 2), ["a", "b"])["mcc"]
    assert 0.3 < some["interval"][0] < some["value"] == pytest.approx(2 / 3)
    none = full_metrics(np.array([0] * 5 + [1] * 5), certain([0] * 10, 2), ["a", "b"])["mcc"]
    assert none == {"value": 0.0, "interval": None, "reason": UNMOVED}  # answers of one label alone: 0, as ever


def test_intervals_hold_the_value_where_resamples_miss_classes() -> None:
    # eight rows of eight classes, one of them right: resamples mostly miss that one, and it is all the macro F1 there is
    truth = np.arange(8)
    result = full_metrics(truth, certain([0, 0, 0, 0, 0, 0, 0, 0], 8), [str(k) for k in range(8)])
    assert result["macro_f1"]["value"] == pytest.approx(2 / 9 / 8)
    assert_intervals_hold_their_values(result)


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
        ranked = [value for name, value in wanted.items() if name.startswith("auroc/")]
        if "auroc" in ours:  # the mean over the labels that are defined among these rows
            assert ours["auroc"] == pytest.approx(np.mean(ranked) if ranked else math.nan, nan_ok=True)
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
