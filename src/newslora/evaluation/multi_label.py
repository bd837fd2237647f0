"""Rows of several labels, scored: the numbers, the CSV of every row, and the wrong rows."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora import files
from newslora.data.articles import ArticleSet
from newslora.evaluation.breakdown import breakdowns
from newslora.evaluation.rows import COLUMNS, short
from newslora.evaluation.score import Scored
from newslora.metrics.basic import Probabilities
from newslora.metrics.multi_label import full_multi_metrics
from newslora.predict.classifier import Classifier

TUNED = "They also tuned the threshold of each label: all that depends on which labels are given is optimistic too."


def evaluate_several(
    classifier: Classifier, articles: ArticleSet, scored: Scored, named: dict[str, list[str]], path: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Numbers and wrong rows of labelled rows; the CSV of every row is written. `named`: columns to break accuracy down by.

    Returns:
        All of `full_multi_metrics` with `thresholds` (what tuning them did on the validation rows, None where none were) and
        `accuracy_by`, accuracy being that of all labels of a row; and the wrong rows as `find_errors` has them.
    """
    names, truth = classifier.labels, articles.indicators
    probabilities, thresholds = classifier.probabilities(scored.logits), classifier.label_thresholds
    given = probabilities >= thresholds
    hits = (given == truth).all(axis=1)
    separator = classifier.card.label_separator
    carried, answered = ([separator.join(_named(row, names)) for row in table] for table in (truth, given))
    rows = zip(articles.rows, articles.texts, carried, answered, probabilities, strict=True)
    heads = [*COLUMNS, *(f"p({name})" for name in names)]
    files.write_csv(path, heads, ([*facts, *map(short, row)] for *facts, row in rows))
    numbers = full_multi_metrics(truth, probabilities, thresholds, names) | {
        "thresholds": None if classifier.thresholds is None else classifier.thresholds.record,
        "accuracy_by": breakdowns(hits, None, scored.lengths, named),
    }
    errors = [
        {
            "row": int(articles.rows[place]),
            "text": articles.texts[int(place)],
            "label": carried[place],
            "predicted": answered[place],
            "confidence": sureness,
            "probability": 1 - sureness,
        }
        for place, sureness in _surest_errors(truth, given, probabilities)
    ]
    return numbers, errors


def _named(row: NDArray[np.bool_], names: tuple[str, ...]) -> list[str]:
    return [names[k] for k in np.flatnonzero(row)]


def _surest_errors(
    truth: NDArray[np.bool_], given: NDArray[np.bool_], probabilities: Probabilities
) -> list[tuple[int, float]]:
    """(place, how sure) of the wrong rows, the surest first: the greatest probability of a label wrongly given or withheld."""
    against = np.where(truth != given, np.where(given, probabilities, 1 - probabilities), 0).max(axis=1)
    wrong = np.flatnonzero((truth != given).any(axis=1))
    ordered = wrong[np.argsort(-against[wrong], kind="stable")]
    return [(int(place), float(against[place])) for place in ordered]
