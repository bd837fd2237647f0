"""What is told of each row besides its own columns: names, types and values of the columns prediction adds."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from newslora.arguments import as_count
from newslora.predict.classifier import Prediction

DIGITS = 6
KEPT = "input_"  # before the name of an input's own column that an added one takes


@dataclass(frozen=True, slots=True)
class Words:
    """The words that weigh most in an answer."""

    many: int  # a row
    heaviest: Callable[[str, str, int], list[tuple[str, float]]]  # text, label, how many -> words with their scores

    def __post_init__(self) -> None:
        as_count(self.many, "explain", why=", the words to tell of each row")


@dataclass(frozen=True, slots=True)
class Answers:
    """What to tell of each row.

    Columns: `predicted`, `probability` (of the likeliest label) and `error`; with `abstain` also `abstained` and
    `answer_set`; with `top_k` as many of `top_1`, `top_1_probability`, ...; with `probabilities` one `p(LABEL)` a label; with
    `words` also `words`, heaviest first, each with `word` and `score` (nats of log-odds; above zero: for the label).
    Where a row may carry several labels, `predicted` is their list, likeliest first, and `probability` is left out.
    """

    labels: tuple[str, ...]  # of the classifier, in id order
    top_k: int | None = None  # likeliest labels, with their probabilities
    probabilities: bool = False  # of every label
    abstain: float | None = None  # level of the answer sets; None decides every row
    multi_label: bool = False  # whether a row may carry several labels
    words: Words | None = None  # tell those that decided

    def __post_init__(self) -> None:
        if self.top_k is not None:
            as_count(self.top_k, "top-k", most=len(self.labels), why=", the labels of this run")

    @property
    def plain(self) -> bool:
        """Whether nothing beyond label and probability is asked for."""
        extras = (self.top_k, self.abstain, self.words)
        return extras == (None, None, None) and not self.probabilities and not self.multi_label

    def record(self) -> dict[str, Any]:
        """What is told, as plain values."""
        own = {"labels": self.labels, "top_k": self.top_k, "probabilities": self.probabilities, "abstain": self.abstain}
        return own | {"multi_label": self.multi_label, "words": None if self.words is None else self.words.many}

    def columns(self) -> dict[str, type]:
        """Added column -> type of its values, in order."""
        found: dict[str, type] = {"predicted": list} if self.multi_label else {"predicted": str, "probability": float}
        if self.abstain is not None:
            found |= {"abstained": bool, "answer_set": list}
        for place in range(1, (self.top_k or 0) + 1):
            found |= {f"top_{place}": str, f"top_{place}_probability": float}
        if self.probabilities:
            found |= {f"p({label})": float for label in self.labels}
        if self.words is not None:
            found |= {"words": dict}
        return found | {"error": str}

    def kept_as(self, own: Collection[str]) -> dict[str, str]:
        """Added column -> the name under which an input's `own` column of that name is kept: `input_predicted` and its like."""
        found = {}
        for column in (added := self.columns()):
            name = KEPT + column
            while name in own or name in added:
                name = KEPT + name
            found[column] = name
        return found

    def of(self, prediction: Prediction, text: str) -> dict[str, Any]:
        """The added columns of a row that could be classified; `text` is what was."""
        found: dict[str, Any] = {"predicted": prediction.label, "probability": _short(prediction.probability)}
        if self.multi_label:
            found = {"predicted": list(prediction.labels)}
        if self.abstain is not None:
            found |= {"abstained": prediction.abstained, "answer_set": list(prediction.answer_set or ())}
        for place, (label, probability) in enumerate(prediction.top(self.top_k or 0), 1):
            found |= {f"top_{place}": label, f"top_{place}_probability": _short(probability)}
        if self.probabilities:
            found |= {f"p({label})": _short(value) for label, value in prediction.probabilities.items()}
        if self.words is not None:
            label = prediction.label or prediction.top(1)[0][0]
            heaviest = self.words.heaviest(text, label, self.words.many)
            found |= {"words": [{"word": word, "score": _short(score)} for word, score in heaviest]}
        return found | {"error": None}

    def of_failed(self, problem: str) -> dict[str, Any]:
        """The added columns of a row that could not."""
        return dict.fromkeys(self.columns()) | {"error": problem}


def _short(value: float) -> float:
    return round(value, DIGITS)
