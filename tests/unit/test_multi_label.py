"""Multi-label numbers are scikit-learn's, intervals hold them, and tuned thresholds beat 0.5 where labels are rare."""

import io
import json
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, log_loss, precision_recall_fscore_support

from newslora.cli.evaluation_tables import evaluation_tables
from newslora.data.batches import Rows
from newslora.data.tokens import TokenTable
from newslora.evaluation.multi_label import _surest_errors
from newslora.metrics.intervals import UNMOVED, wilson
from newslora.metrics.multi_label import _RowStatistics, _values, full_multi_metrics, quick_multi_metrics, sigmoid
from newslora.metrics.ranking import Ranking
from newslora.predict.thresholds import FEWEST, best_threshold, tune_thresholds
from newslora.training.validation import frequency_loss, validation_metrics

NAMES = ("a", "b", "c")
ROWS = 400


def skewed(seed: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Labels carried by 40, 8 and 4 % of the rows, and calibrated-looking probabilities that are never sure of the rare."""
    generator = np.random.default_rng(seed)
    truth = generator.random((rows, 3)) < [0.4, 0.08, 0.04]
    logits = np.where(truth, [1.5, -0.8, -1.5], [-1.5, -3.5, -4.5]) + generator.normal(0, 1, (rows, 3))
    return truth, sigmoid(logits.astype(np.float32))


def test_every_number_is_scikit_learns() -> None:
    truth, probabilities = skewed(0)
    thresholds = np.array([0.5, 0.3, 0.1])
    given = probabilities >= thresholds
    found = full_multi_metrics(truth, probabilities, thresholds, NAMES)
    wanted = {
        "accuracy": (truth == given).all(axis=1).mean(),
        "micro_f1": f1_score(truth, given, average="micro"),
        "macro_f1": f1_score(truth, given, average="macro"),
        "samples_f1": f1_score(truth, given, average="samples", zero_division=1),
        "hamming_loss": hamming_loss(truth, given),
        "log_loss": np.mean([log_loss(truth[:, k], probabilities[:, k]) for k in range(3)]),
    }
    for name, value in wanted.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-9)
        low, high = found[name]["interval"]
        assert low < value < high
    scores = precision_recall_fscore_support(truth, given, average=None)
    for k, name in enumerate(NAMES):
        own = found["per_class"][name]
        assert [own[key]["value"] for key in ("precision", "recall", "f1")] == pytest.approx(
            [one[k] for one in scores[:3]]
        )
        assert own["average_precision"]["value"] == pytest.approx(
            average_precision_score(truth[:, k], probabilities[:, k])
        )
        assert own["rows"] == scores[3][k] == own["counts"]["true_positives"] + own["counts"]["false_negatives"]
        assert own["counts"]["false_positives"] == (given[:, k] & ~truth[:, k]).sum()
        assert own["threshold"] == thresholds[k]


def test_numbers_of_an_epoch_and_of_one_half_are_scikit_learns() -> None:
    truth, probabilities = skewed(0)
    thresholds = np.array([0.5, 0.3, 0.1])
    found = full_multi_metrics(truth, probabilities, thresholds, NAMES)
    assert found["labels_a_row"] == truth.sum() / ROWS
    assert found["at_half"] == quick_multi_metrics(truth, probabilities, 0.5)
    for limits in (thresholds, 0.5):
        given, quick = probabilities >= limits, quick_multi_metrics(truth, probabilities, limits)
        assert quick["loss"] == pytest.approx(np.mean([log_loss(truth[:, k], probabilities[:, k]) for k in range(3)]))
        assert quick["accuracy"] == (truth == given).all(axis=1).mean()
        assert quick["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
        assert quick["macro_f1"] == pytest.approx(f1_score(truth, given, average="macro"))


@pytest.mark.parametrize("seed", range(3))
def test_a_resample_scores_as_its_rows_would(seed: int) -> None:
    truth, probabilities = skewed(seed, 30)
    given, picked = probabilities >= 0.4, np.random.default_rng(seed).integers(0, 30, 30)
    weights = np.stack([np.ones(30), np.bincount(picked, minlength=30)], axis=1)
    statistics = _RowStatistics(truth, probabilities, given)(weights)
    for column, rows in enumerate((np.arange(30), picked)):
        wanted = _values(truth[rows], probabilities[rows], given[rows])
        assert len(wanted) > 5
        for name, value in wanted.items():
            assert statistics[name][column] == pytest.approx(value, nan_ok=True), name


def test_nothing_right_is_not_certain_either() -> None:
    truth = np.tile([True, False, False], (20, 1))
    found = full_multi_metrics(truth, 1.0 - truth, np.full(3, 0.5), NAMES)["micro_f1"]
    end = wilson(0, 60)[1]  # of 20 labels missed and 40 wrongly given
    assert found == {"value": 0.0, "interval": pytest.approx([0, 2 * end / (1 + end)])}


def test_the_surest_error_is_the_greatest_probability_of_a_wrong_answer() -> None:
    truth = np.array([[True, False], [True, True], [False, False], [True, False], [False, True]])
    given = np.array([[True, False], [False, True], [False, True], [True, True], [True, False]])
    probabilities = np.array([[0.99, 0.01], [0.3, 0.9], [0.2, 0.8], [0.9, 0.6], [0.55, 0.05]])
    found = [(place, pytest.approx(sure)) for place, sure in ((4, 0.95), (2, 0.8), (1, 0.7), (3, 0.6))]
    assert _surest_errors(truth, given, probabilities) == found


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Over samples of one population, 95 % intervals of micro F1 miss its value in some 5 % of them."""
    truth, probabilities = skewed(1, 20_000)
    whole = quick_multi_metrics(truth, probabilities)["micro_f1"]
    inside = 0
    for seed in range(40):
        rows = np.random.default_rng(seed).integers(0, len(truth), 150)
        low, high = full_multi_metrics(truth[rows], probabilities[rows], np.full(3, 0.5), NAMES)["micro_f1"]["interval"]
        inside += low <= whole <= high
    assert inside >= 34  # 38 expected; 34 or fewer has a chance of about 2 %, and these seeds do not change


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_average_precision_of_a_resample_is_scikit_learns_with_weights(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 30))
    scores = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), min_size=rows, max_size=rows)))
    carried = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)), dtype=np.float64)
    found = float(Ranking(carried, scores).average_precision(weights[:, None])[0])
    if not weights[carried].sum():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(average_precision_score(carried, scores, sample_weight=weights))


def test_a_label_without_rows_is_told_not_invented() -> None:
    truth, probabilities = skewed(2)
    truth[:, 2] = False
    found = full_multi_metrics(truth, probabilities, np.full(3, 0.5), NAMES)["per_class"]["c"]
    assert found["average_precision"] == {"value": None, "interval": None, "reason": "no rows of this label"}
    assert found["rows"] == 0


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_macro_f1_is_over_the_labels_that_are_carried_or_given(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 8))
    cells = st.lists(st.booleans(), min_size=3 * rows, max_size=3 * rows)
    truth, given_it = (np.array(data.draw(cells)).reshape(rows, 3) for _ in range(2))
    found = full_multi_metrics(truth, given_it.astype(float), np.full(3, 0.5), NAMES)
    json.dumps(found, allow_nan=False)
    occurring = np.flatnonzero((truth | given_it).any(axis=0))
    if not len(occurring):
        assert found["macro_f1"]["value"] is found["micro_f1"]["value"] is None
        assert found["macro_f1"]["reason"] == "no row has a label, and none is predicted"
        return
    wanted = f1_score(truth, given_it, average="macro", labels=occurring, zero_division=0)
    assert found["macro_f1"]["value"] == pytest.approx(wanted)
    assert quick_multi_metrics(truth, given_it.astype(float))["macro_f1"] == pytest.approx(wanted)
    alone = f1_score(truth, given_it, average=None, zero_division=np.nan)
    ours = [found["per_class"][name]["f1"]["value"] for name in NAMES]
    assert ours == [None if np.isnan(value) else pytest.approx(value) for value in alone.tolist()]
    for name in ("macro_f1", "micro_f1"):
        low, high = found[name]["interval"]
        assert 0 <= low <= found[name]["value"] + 1e-12
        assert found[name]["value"] - 1e-12 <= high <= 1
        assert low < high


def test_a_label_always_rightly_given_has_wilsons_interval() -> None:
    truth = np.arange(37)[:, None] % 37 >= [0, 37, 18]
    found = full_multi_metrics(truth, truth.astype(float), np.full(3, 0.5), NAMES)["per_class"]
    assert found["a"]["precision"]["interval"] == pytest.approx([0.9059, 1], abs=1e-4)
    assert found["a"]["f1"]["interval"] == pytest.approx([0.9506, 1], abs=1e-4)
    assert [found["b"][kind]["interval"] for kind in ("precision", "recall", "f1")] == [None, None, None]


def test_rows_without_labels_given_none_are_right() -> None:
    truth, probabilities = np.zeros((4, 3), dtype=bool), np.full((4, 3), 0.1)
    found = full_multi_metrics(truth, probabilities, np.full(3, 0.5), NAMES)
    assert (found["accuracy"]["value"], found["samples_f1"]["value"], found["hamming_loss"]["value"]) == (1, 1, 0)
    low, high = found["accuracy"]["interval"]  # of four rows
    assert low < 0.6
    assert found["samples_f1"]["interval"] == [low, high]
    assert found["hamming_loss"]["interval"] == pytest.approx([0, 1 - low])
    assert found["log_loss"]["interval"] is None
    assert "no interval" in found["log_loss"]["reason"]


def test_a_perfect_average_precision_is_not_certain() -> None:
    truth = np.arange(12)[:, None] % 3 == np.arange(3)
    found = full_multi_metrics(truth, truth.astype(float), np.full(3, 0.5), NAMES)
    assert found["per_class"]["a"]["average_precision"] == {"value": 1.0, "interval": None, "reason": UNMOVED}
    console = Console(width=80, record=True, file=io.StringIO())
    for table in evaluation_tables({"name": "x", "source": "x", "errors": []} | found):
        console.print(table)
    assert re.search(r"a\W+0.500\W+100\W+4\W+0\W+0\W", console.export_text())


def test_tuned_thresholds_beat_one_half_on_other_rows() -> None:
    tuned = tune_thresholds(*skewed(3), NAMES)
    truth, probabilities = skewed(4, 4_000)
    before = quick_multi_metrics(truth, probabilities)
    after = quick_multi_metrics(truth, probabilities, tuned.values)
    assert after["macro_f1"] > before["macro_f1"] + 0.1
    assert after["micro_f1"] > before["micro_f1"]
    assert tuned.record["after"]["macro_f1"] >= tuned.record["before"]["macro_f1"]
    assert tuned.values[2] < tuned.values[0]  # the rare label is given sooner
    own = skewed(3)
    assert tuned.record["rows"] == ROWS
    assert tuned.record["before"] == quick_multi_metrics(*own, 0.5)
    assert tuned.record["after"] == quick_multi_metrics(*own, tuned.values)
    assert [one["rows"] for one in tuned.record["labels"].values()] == own[0].sum(axis=0).tolist()


def test_a_label_of_few_rows_keeps_one_half_and_says_why() -> None:
    truth, probabilities = skewed(5)
    truth[:, 1] = False
    truth[: FEWEST - 1, 1] = True
    tuned = tune_thresholds(truth, probabilities, NAMES)
    assert tuned.values[1] == 0.5
    assert "fewer than 5" in tuned.record["labels"]["b"]["reason"]
    assert tuned.record["labels"]["a"]["reason"] is None
    truth[:, 1] = ~truth[:, 1]  # all rows but four carry it
    assert tune_thresholds(truth, probabilities, NAMES).values[1] == 0.5


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=20))
@example(rows=[(False, 0.0)] * 4 + [(True, 5e-324)] * 4)
def test_no_other_threshold_does_better_on_the_rows_it_was_tuned_on(rows: list[tuple[bool, float]]) -> None:
    carried = np.array([True, False, *(one for one, _ in rows)])
    scores = np.array([0.3, 0.2, *(score for _, score in rows)])
    found = best_threshold(carried, scores)
    assert 0 <= found <= 1
    best = max(f1_score(carried, scores >= other, zero_division=0) for other in [*scores, 0.5])
    assert f1_score(carried, scores >= found, zero_division=0) == pytest.approx(best)


def test_a_threshold_lies_midway_so_that_no_row_decides_alone() -> None:
    carried = np.array([True, True, False, False, False])
    assert best_threshold(carried, np.array([0.4, 0.3, 0.1, 0.05, 0.0])) == pytest.approx(0.2)
    assert best_threshold(carried, np.array([0.4, 0.3, 0.3, 0.05, 0.0])) == pytest.approx(0.175)
    assert best_threshold(carried, np.array([0.9, 0.8, 0.3, 0.2, 0.1])) == 0.5  # as good as any


def test_an_epochs_numbers_of_one_and_of_several_labels() -> None:
    logits = np.array([[3, -1], [-2, 1], [2, 2], [-1, -1]], dtype=np.float32)
    table = TokenTable.of([np.array([1], dtype=np.int32)] * 4)
    one = validation_metrics(Rows(table, np.array([0, 1, 1, 1]), 0), logits, ["a", "b"])
    assert one["accuracy"] == 0.5
    assert one["recall"] == {"a": 1.0, "b": pytest.approx(1 / 3)}
    combinations = np.array([[True, False], [True, True], [False, False]])
    several = validation_metrics(Rows(table, np.array([0, 0, 1, 2]), 0, combinations), logits, ["a", "b"])
    assert several["accuracy"] == 0.75
    assert several["recall"] == {"a": pytest.approx(2 / 3), "b": 1.0}
    nobody = validation_metrics(Rows(table, np.array([0, 0, 0, 0]), 0), logits, ["a", "b"])
    assert nobody["recall"]["b"] is None


def test_the_loss_of_knowing_frequencies_alone_is_scikit_learns_for_constant_answers() -> None:
    table = TokenTable.of([np.array([1], dtype=np.int32)] * 6)
    train = Rows(table, np.array([0, 0, 0, 1, 1, 0]), 0)  # four of a, two of b, none of c
    validation = Rows(table, np.array([0, 1, 0, 2, 0, 0]), 0)
    constant = np.tile([5 / 9, 3 / 9, 1 / 9], (6, 1))
    assert frequency_loss(train, validation, NAMES) == pytest.approx(log_loss(validation.labels, constant), rel=1e-6)

    combinations = np.array([[True, False, False], [True, True, False], [False, False, False]])
    several = Rows(table, np.array([0, 0, 1, 1, 1, 2]), 0, combinations)  # five of a, three of b, none of c
    rates = np.array([6 / 8, 4 / 8, 1 / 8])
    carried = combinations[several.labels]
    wanted = np.mean([log_loss(carried[:, k], np.full(6, rates[k]), labels=[0, 1]) for k in range(3)])
    assert frequency_loss(several, several, NAMES) == pytest.approx(wanted, rel=1e-6)
