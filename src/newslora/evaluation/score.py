"""A classifier and labelled rows -> what every number of an evaluation is made of."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from newslora.data.articles import ArticleSet
from newslora.metrics.basic import Labels, Logits
from newslora.predict.classifier import Classifier


@dataclass(frozen=True, slots=True)
class Scored:
    """R rows as the classifier sees them, before its temperature."""

    labels: Labels  # (R,)
    logits: Logits  # (R, C)
    lengths: NDArray[np.int64]  # (R,) tokens as read: cut at the length limit, or those of all windows
    seconds: float


def score_articles(
    classifier: Classifier, articles: ArticleSet, progress: Callable[[int], None] = lambda rows: None
) -> Scored:
    """Score every row once."""
    began = time.monotonic()
    rows = classifier.rows(articles.texts)
    logits = classifier.finite_logits(rows, progress)
    return Scored(articles.labels, logits, rows.tokens.lengths, time.monotonic() - began)
