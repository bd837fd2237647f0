"""What abstaining would come to on evaluated rows."""

from typing import Any

import numpy as np

from newslora.errors import MissingExtraError, SettingsError
from newslora.metrics.basic import Labels, Probabilities
from newslora.metrics.intervals import share
from newslora.predict.classifier import Classifier

LEVELS = (0.9, 0.95, 0.99)


def abstention(classifier: Classifier, labels: Labels, probabilities: Probabilities) -> dict[str, Any]:
    """Coverage and the share answered at a few levels of `--abstain`, of (R,) labels and (R, C) probabilities.

    Returns:
        `levels`: each `level` with `coverage` (sets that hold the right label), `mean_set_size`, `answered` (sets of one
        label) and `accuracy_of_answered`; or with the `reason` why it cannot be had.
    """
    return {"levels": [_at_level(classifier, level, labels, probabilities) for level in LEVELS]}


def _at_level(classifier: Classifier, level: float, labels: Labels, probabilities: Probabilities) -> dict[str, Any]:
    try:
        sets = classifier.answer_sets(level)(probabilities)
    except (SettingsError, MissingExtraError) as error:
        return {"level": level, "reason": str(error)}
    rows = len(labels)
    right, answered = sets[np.arange(rows), labels], sets.sum(axis=1) == 1
    return {
        "level": level,
        "coverage": share(int(right.sum()), rows),
        "mean_set_size": float(sets.sum(axis=1).mean()),
        "answered": share(int(answered.sum()), rows),
        "accuracy_of_answered": share(int(right[answered].sum()), int(answered.sum())),
    }
