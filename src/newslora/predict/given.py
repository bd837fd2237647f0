"""A scikit-learn classifier whose rows already are its answers. Imported where scikit-learn is needed, not before."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn carries no types
    """Lets scikit-learn and MAPIE work on logits or probabilities that were computed before: X is (R, C) of them."""

    def __init__(self, labels: int) -> None:
        self.labels = labels
        self.classes_ = np.arange(labels)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any) -> "Given":  # noqa: N803  # scikit-learn's name
        return self

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        return X

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        return X

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.asarray(X).argmax(axis=1)
