"""Who judges labels: probabilities for each row from a model that has seen neither the row nor a copy of it."""

import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from newslora.config import Recipe
from newslora.metrics.basic import Labels, Probabilities

FOLDS = 5
Judge = Literal["words", "backbone", "training"]  # who judges rows that nothing has judged unseen yet
TOLD = {
    "words": "words and word pairs (TF-IDF) with logistic regression, 5 folds",
    "backbone": "the pretrained backbone's mean embeddings, no adapter, with logistic regression, 5 folds",
    "training": "the run's recipe trained anew for each of 5 folds",
    "run": "the run's own predictions, of rows it was not trained on",
}


def judge_by_words(texts: Sequence[str], labels: Labels, clusters: NDArray[np.int64], classes: int) -> Probabilities:
    """(R, C) out-of-fold probabilities of a linear model of words: needs no pretrained model."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    # the vocabulary knows every row, but no label
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=200_000, dtype=np.float32)
    model = LogisticRegression(C=8, max_iter=1_000)
    return _out_of_fold(model, vectors.fit_transform(texts), labels, clusters, classes)


def has_word(text: str) -> bool:
    """Whether the judge of words sees any in a text: scikit-learn's are of two letters or digits at least."""
    return re.search(r"\w\w", text) is not None


def judge_by_embeddings(
    embeddings: NDArray[np.float32], labels: Labels, clusters: NDArray[np.int64], classes: int
) -> Probabilities:
    """(R, C) out-of-fold probabilities of a linear model of frozen embeddings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1_000))  # C: see docs/results.md
    return _out_of_fold(model, embeddings, labels, clusters, classes)


def judge_by_training(
    texts: Sequence[str],
    labels: Labels,
    clusters: NDArray[np.int64],
    classes: int,
    recipe: Recipe,
    device: str | None = None,
) -> Probabilities:
    """(R, C) out-of-fold probabilities of the run's own recipe, trained `FOLDS` times."""
    from newslora.estimator import NewsClassifier

    return _out_of_fold(
        NewsClassifier(recipe=recipe, device=device), np.array(texts, dtype=object), labels, clusters, classes
    )


def folds_possible(labels: Labels, clusters: NDArray[np.int64]) -> int:
    """How many folds there may be at most, each of which leaves out some rows of every label: those of other clusters of copies
    are in the others."""
    return min(len(np.unique(clusters[labels == label])) for label in np.unique(labels))


def _out_of_fold(model: Any, features: Any, labels: Labels, clusters: NDArray[np.int64], classes: int) -> Probabilities:
    """scikit-learn's cross_val_predict; copies share a fold, for a copy's wrong label would defend its like."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    folds = StratifiedGroupKFold(min(FOLDS, folds_possible(labels, clusters)), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a thousand steps are near enough
        # a rare label may miss in a fold's training rows: it then has probability 0 there, as it should
        warnings.filterwarnings("ignore", message="Number of classes in training fold", category=RuntimeWarning)
        found = cross_val_predict(model, features, labels, groups=clusters, cv=folds, method="predict_proba")
    full = np.zeros((len(labels), classes))
    full[:, np.unique(labels)] = found
    return full
