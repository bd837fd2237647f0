"""Answer sets: labels that hold the right one as often as asked, by split conformal prediction (MAPIE)."""

import math
import warnings
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from newslora.errors import SettingsError, needing
from newslora.metrics.basic import Labels, Probabilities

Sets = NDArray[np.bool_]  # (R, C) whether a label is in the row's set


class AnswerSets:
    """Which labels a row may have at a level: those about as likely as the right label was in most validation rows.

    A label is in the set when its probability is at least that which the right label reached in the share `level` of the
    validation rows (least ambiguous sets; Sadinle, Lei and Wasserman 2019). For rows exchangeable with those, the set holds
    the right label with a probability of at least `level`, and at most `level + 1 / (R + 1)` where no two scores tie. It
    is a promise over all rows, not over each label or over the rows answered: of all rows, at most `1 - level` are
    answered wrongly. The validation rows also chose the epoch and fitted the temperature, so they are a little easier
    than others; `newslora evaluate` counts what the promise comes to on rows that chose nothing.

    Args:
        probabilities: (R, C) of the validation rows.
        labels: (R,) their label ids.
        level: share of rows whose set is to hold the right label, as 0.99.

    Raises:
        SettingsError: a level outside 0.5 to 1, or beyond what so few rows can tell.
        MissingExtraError: MAPIE is not installed.
    """

    def __init__(self, probabilities: Probabilities, labels: Labels, level: float) -> None:
        check_level(level, len(labels))
        with needing("Abstaining", "abstain"):
            from mapie.classification import SplitConformalClassifier
        from newslora.predict.given import Given

        self.level = level
        given = Given(probabilities.shape[1])
        self._mapie = SplitConformalClassifier(given, confidence_level=level, conformity_score="lac", prefit=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="WARNING: your conformalization dataset has less labels")
            # scikit-learn takes labels of few rows each for the numbers of a regression
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            self._mapie.conformalize(probabilities, labels)

    def __call__(self, probabilities: Probabilities) -> Sets:
        """(R, C) probabilities -> the answer set of each row, which may be empty."""
        if not len(probabilities):
            return np.zeros(probabilities.shape, dtype=np.bool_)
        return np.asarray(self._mapie.predict_set(probabilities)[1][:, :, 0])


def check_level(level: float, rows: int) -> None:
    """Refuse what is no level, or one that `rows` validation rows cannot tell: a share finer than one of them.

    Raises:
        SettingsError: with the highest level they can.
    """
    number = isinstance(level, Real)
    if not number or not 0.5 <= level < 1:
        said = f"{level:g}" if number else f"{level!r:.60}, which is no number"
        raise SettingsError(f"The level of abstention is {said}. Allowed: at least 0.5 and less than 1, such as 0.99.")
    needed = math.ceil(round(1 / (1 - level), 6))  # 1 - 0.99 is not quite 0.01
    if rows < needed:
        highest = (
            f"the highest they can tell is {math.floor(1e4 * (1 - 1 / rows)) / 1e4:g}"
            if rows > 1
            else "too few for any"
        )
        raise SettingsError(
            f"The level of abstention is {level:g}, which takes {needed:,} validation rows. This run has {rows:,}; {highest}. "
            "Ask for less, or train with more (data.validation_rows)."
        )
