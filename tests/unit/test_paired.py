"""Paired statistics: right where the answer is known, silent where there is nothing, loud where there is something."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score, log_loss

from newslora.evaluation.paired import Scores, contrast_intervals, holm, mcnemar

PAIR = np.array([[1.0, -1.0]])


def drawn(seed: int, rows: int, *accuracies: float, classes: int = 4) -> list[Scores]:
    """Runs that are right on each row with these chances, each by itself; what is wrong is any other label."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=rows)
    runs = []
    for accuracy in accuracies:
        wrong = (labels + generator.integers(1, classes, size=rows)) % classes
        predicted = np.where(generator.random(rows) < accuracy, labels, wrong)
        probabilities = generator.dirichlet(np.ones(classes), size=rows) * 0.4 + 0.6 * np.eye(classes)[predicted]
        runs.append(Scores(labels, predicted, probabilities))
    return runs


def test_mcnemar_counts_discordant_rows_and_takes_the_exact_binomial() -> None:
    labels = np.zeros(20, dtype=np.int64)
    first, second = np.zeros(20, dtype=np.int64), np.zeros(20, dtype=np.int64)
    second[:10] = 1  # only the first is right
    first[10:12] = 1  # only the second is
    first[12:14] = second[12:14] = 1  # neither is
    even = np.full((20, 2), 0.5)
    wins, losses, p = mcnemar(Scores(labels, first, even), Scores(labels, second, even))
    assert (wins, losses) == (10, 2)
    assert p == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert mcnemar(Scores(labels, first, even), Scores(labels, first, even)) == (0, 0, 1.0)


def test_a_stored_probability_of_zero_is_one_that_rounds_to_it() -> None:
    run = Scores(np.array([0, 1]), np.array([1, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))  # six decimals
    assert run.row_losses.tolist() == [pytest.approx(-np.log(0.0000005)), 0.0]


def test_holm_on_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_value_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, new in zip(p_values, adjusted, strict=True):
        assert raw <= new <= min(1.0, raw * len(p_values)) + 1e-12
    for (raw, new), (other, other_new) in combinations(zip(p_values, adjusted, strict=True), 2):
        assert (raw - other) * (new - other_new) >= 0
    assert min(adjusted) == pytest.approx(min(1.0, min(p_values) * len(p_values)))


def test_differences_are_those_of_scikit_learns_metrics() -> None:
    first, second = drawn(0, 300, 0.9, 0.7)
    found = contrast_intervals([first, second], np.array([[1, -1], [-1, 1]]))

    def both(metric: str) -> float:
        values = []
        for run in (first, second):
            if metric == "loss":
                values.append(log_loss(run.labels, run.probabilities, labels=range(4)))
            elif metric == "accuracy":
                values.append(accuracy_score(run.labels, run.predicted))
            else:
                values.append(f1_score(run.labels, run.predicted, average="macro"))
        return float(values[0] - values[1])

    for metric in ("accuracy", "macro_f1", "loss"):
        assert found[0][metric]["value"] == pytest.approx(both(metric))
        low, high = found[0][metric]["interval"]
        assert low < both(metric) < high
        assert found[1][metric]["interval"] == pytest.approx([-high, -low])


def test_macro_f1_leaves_out_labels_that_neither_occur_nor_are_predicted() -> None:
    first, second = drawn(0, 200, 0.9, 0.7, classes=3)
    wider = [Scores(one.labels, one.predicted, np.pad(one.probabilities, ((0, 0), (0, 2)))) for one in (first, second)]
    assert contrast_intervals(wider, PAIR) == contrast_intervals([first, second], PAIR)
    second.predicted[second.right.argmin()] = 3  # absent but predicted: it counts as 0 for the second run alone
    wider[1] = Scores(second.labels, second.predicted, wider[1].probabilities)
    values = [f1_score(one.labels, one.predicted, average="macro") for one in wider]
    assert contrast_intervals(wider, PAIR)[0]["macro_f1"]["value"] == pytest.approx(values[0] - values[1])


def test_thousands_of_labels_take_no_table_of_all_pairs_of_them() -> None:
    """With one a resample, 3,000 labels would take 144 GB."""
    first, second = drawn(0, 60, 0.9, 0.5, classes=3_000)
    (found,) = contrast_intervals([first, second], PAIR)
    values = [f1_score(one.labels, one.predicted, average="macro") for one in (first, second)]
    assert found["macro_f1"]["value"] == pytest.approx(values[0] - values[1])
    assert 0 < found["macro_f1"]["interval"][0] < found["macro_f1"]["value"]


def test_a_run_does_not_differ_from_itself() -> None:
    (run,) = drawn(1, 100, 0.8)
    (found,) = contrast_intervals([run, run], PAIR)
    assert all(one == {"value": 0.0, "interval": [0.0, 0.0]} for one in found.values())


def test_equally_accurate_runs_are_seldom_told_apart_and_others_nearly_always() -> None:
    draws = 400
    equal = sum(mcnemar(*drawn(seed, 300, 0.85, 0.85))[2] < 0.05 for seed in range(draws))
    other = sum(mcnemar(*drawn(seed, 300, 0.95, 0.8))[2] < 0.05 for seed in range(draws))
    assert equal <= binom.ppf(0.999, draws, 0.05)
    assert equal > 0  # the exact test is cautious, not blind
    assert other > 0.98 * draws


def test_holm_keeps_the_chance_of_any_false_finding_among_many_pairs() -> None:
    draws, raw, corrected = 300, 0, 0
    for seed in range(draws):
        runs = drawn(seed, 200, *[0.8] * 5)
        p_values = [mcnemar(one, other)[2] for one, other in combinations(runs, 2)]
        raw += min(p_values) < 0.05
        corrected += min(holm(p_values)) < 0.05
    assert corrected <= binom.ppf(0.999, draws, 0.05)
    assert raw > binom.ppf(0.999, draws, 0.05)  # without it the chance is far above


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    draws = 80
    held = {"accuracy": 0, "loss": 0}
    first, second = drawn(99, 100_000, 0.9, 0.8)
    truth = np.mean(first.row_losses - second.row_losses)
    for seed in range(draws):
        (found,) = contrast_intervals(drawn(seed, 200, 0.9, 0.8), PAIR, seed)
        for metric, true in (("accuracy", 0.1), ("loss", truth)):
            low, high = found[metric]["interval"]
            held[metric] += low <= true <= high
    # a percentile interval of 200 rows covers a little less than 95 %
    assert all(binom.ppf(0.001, draws, 0.93) <= count for count in held.values())
    assert all(count < draws for count in held.values())  # nor is it everything


def test_intervals_of_many_pairs_are_wider() -> None:
    runs = drawn(3, 200, 0.8, 0.8)
    (one,) = contrast_intervals(runs, PAIR)
    many = contrast_intervals(runs, np.repeat(PAIR, 10, axis=0))
    width = [np.ptp(found["accuracy"]["interval"]) for found in (one, many[0])]
    assert width[0] < width[1]
