"""How a row of probabilities becomes an answer: order, ties, thresholds and sets."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from newslora.predict.classifier import Classifier, Prediction

LABELS = ("World", "Sports", "Business")


def answer(shares: list[float], members: list[bool] | None = None, thresholds: list[float] | None = None) -> Prediction:
    """As a classifier gives it; with thresholds, of any number of labels."""
    stand_in: Any = SimpleNamespace(
        labels=LABELS, multi_label=thresholds is not None, label_thresholds=np.array(thresholds or [])
    )
    return Classifier.answer(stand_in, np.array(shares), None if members is None else np.array(members))


def test_the_likeliest_label_is_the_first_of_the_likeliest() -> None:
    assert answer([0.2, 0.5, 0.3]).top(9) == [("Sports", 0.5), ("Business", 0.3), ("World", 0.2)]
    tied = answer([0.4, 0.4, 0.2])
    assert tied.label == tied.top(1)[0][0] == "World"
    last = answer([0.2, 0.4, 0.4])
    assert last.label == last.top(1)[0][0] == "Sports"
    assert [label for label, _ in last.top(3)] == ["Sports", "Business", "World"]
    every = answer([1 / 3] * 3, members=[True] * 3)
    assert every.answer_set == LABELS  # not by the alphabet


def test_only_a_set_of_one_label_decides() -> None:
    for members, decided in (([False, True, False], "Sports"), ([True, True, False], None), ([False] * 3, None)):
        found = answer([0.3, 0.6, 0.1], members=members)
        assert (found.label, found.labels) == (decided, (decided,) if decided else ())
        assert found.abstained is (decided is None)
        assert found.probability == 0.6  # of the likeliest, given or not
    assert answer([0.3, 0.6, 0.1], members=[True, True, False]).answer_set == ("Sports", "World")  # likeliest first


def test_a_label_is_given_from_its_threshold_on() -> None:
    found = answer([0.5, 0.2, 0.9], thresholds=[0.5, 0.3, 0.1])
    assert (found.label, found.labels) == ("Business", ("Business", "World"))
    surer = answer([0.6, 0.7, 0.2], thresholds=[0.5, 0.8, 0.1])
    assert (surer.label, surer.labels, surer.probability) == ("World", ("World", "Business"), 0.7)
    nothing = answer([0.1, 0.1, 0.05], thresholds=[0.5, 0.3, 0.1])
    assert (nothing.label, nothing.labels, nothing.abstained) == (None, (), False)
