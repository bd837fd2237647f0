"""Answer sets hold the right label as often as theory says: not less, and not by always holding everything."""

import itertools
import sys
from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom

from newslora.errors import MissingExtraError, SettingsError
from newslora.metrics.basic import softmax
from newslora.predict.conformal import AnswerSets, check_level

pytest.importorskip("mapie")


def exchangeable(generator: np.random.Generator, rows: int, labels: int = 4) -> tuple[Any, Any]:
    truth = generator.integers(0, labels, rows)
    logits = generator.normal(size=(rows, labels)).astype(np.float32)
    logits[np.arange(rows), truth] += 2.5
    return softmax(3 * logits), truth  # badly calibrated: coverage must not rest on honest probabilities


def test_many_labels_of_few_rows_are_no_matter() -> None:
    """scikit-learn would warn of a regression; warnings are errors here."""
    probabilities, _ = exchangeable(np.random.default_rng(0), 150, labels=100)
    assert AnswerSets(probabilities, np.arange(150) % 100, 0.9)(probabilities).shape == (150, 100)


@pytest.mark.parametrize(("level", "calibration_rows"), [(0.9, 99), (0.95, 200), (0.99, 150)])
def test_marginal_coverage_lies_where_theory_says(level: float, calibration_rows: int) -> None:
    """Coverage of one draw follows a beta distribution, hits of n rows a beta-binomial (Vovk 2012); their mean over
    many draws lies between level and level + 1 / (R + 1)."""
    generator = np.random.default_rng(0)
    draws, rows = 150, 200
    covered, answered, right, size = [], 0, 0, 0.0
    for _ in range(draws):
        sets = AnswerSets(*exchangeable(generator, calibration_rows), level)
        probabilities, truth = exchangeable(generator, rows)
        members = sets(probabilities)
        hits = members[np.arange(rows), truth]
        single = members.sum(axis=1) == 1
        covered.append(hits.sum())
        answered, right, size = answered + single.sum(), right + hits[single].sum(), size + members.sum()
    rank = int(np.ceil(round((calibration_rows + 1) * level, 9)))
    theory = betabinom(rows, rank, calibration_rows + 1 - rank)
    assert level <= theory.mean() / rows <= level + 1 / (calibration_rows + 1)
    assert abs(np.mean(covered) - theory.mean()) < 4 * theory.std() / np.sqrt(draws)
    assert theory.cdf(np.percentile(covered, 10)) < 0.35  # draws spread as they should, both ways
    assert theory.sf(np.percentile(covered, 90)) < 0.35
    assert size / (draws * rows) < 3  # not everything
    assert answered > 0
    assert (
        draws * rows - np.sum(covered) >= answered - right
    )  # of all rows, no more are answered wrongly than uncovered
    assert right / answered > 0.9


def test_a_higher_level_gives_larger_sets() -> None:
    generator = np.random.default_rng(1)
    calibration, (probabilities, _) = exchangeable(generator, 500), exchangeable(generator, 300)
    sizes = [AnswerSets(*calibration, level)(probabilities) for level in (0.6, 0.9, 0.99)]
    assert sizes[0].sum() < sizes[1].sum() < sizes[2].sum()
    assert all((low <= high).all() for low, high in itertools.pairwise(sizes))


@pytest.mark.parametrize(("rows", "highest"), [(2, "0.5"), (40, "0.975"), (99, "0.9898"), (640, "0.9984")])
def test_too_few_validation_rows_name_the_highest_level_and_that_one_works(rows: int, highest: str) -> None:
    generator = np.random.default_rng(2)
    probabilities, truth = exchangeable(generator, rows)
    with pytest.raises(
        SettingsError, match=rf"takes 1,000 validation rows.* has {rows}; the highest .* is {highest}\."
    ):
        AnswerSets(probabilities, truth, 0.999)
    assert AnswerSets(probabilities, truth, float(highest))(probabilities).any()


def test_a_level_that_is_just_reached_is_no_error() -> None:
    check_level(0.99, 100)
    with pytest.raises(SettingsError, match="takes 100 validation rows"):
        check_level(0.99, 99)
    check_level(0.9898, 99)
    with pytest.raises(SettingsError, match="takes 99 validation rows"):  # 98.04
        check_level(0.9898, 98)
    with pytest.raises(SettingsError, match="has 1; too few for any"):
        check_level(0.9, 1)


@pytest.mark.parametrize("level", [0.0, 0.49, 1.0, 99.0, -0.9])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(SettingsError, match=r"at least 0\.5 and less than 1"):
        check_level(level, 1000)


def test_labels_without_validation_rows_and_no_rows_at_all() -> None:
    probabilities, truth = exchangeable(np.random.default_rng(3), 100)
    kept = truth != 3
    sets = AnswerSets(probabilities[kept], truth[kept], 0.9)
    assert sets(probabilities).shape == (100, 4)
    assert sets(probabilities[:0]).shape == (0, 4)


def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mapie.classification", None)
    with pytest.raises(MissingExtraError, match=r"Abstaining needs .*pip install 'newslora\[abstain\]'"):
        AnswerSets(*exchangeable(np.random.default_rng(4), 100), 0.9)
