"""What a reader should take away, said in sentences out of the run's numbers; and how fast it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from newslora.config import Recipe
from newslora.report.pages import interval, percent
from newslora.runfolder import OWN_EVALUATIONS

METRICS = {  # key in evaluation/*.json -> name, what it says
    "accuracy": ("Accuracy", "rows labelled rightly; of several labels, all of them"),
    "macro_f1": ("Macro F1", "precision and recall in one, mean over labels"),
    "micro_f1": ("Micro F1", "precision and recall in one, over all labels given together"),
    "samples_f1": ("Samples F1", "precision and recall in one, mean over rows"),
    "hamming_loss": ("Hamming loss", "single yes-or-no answers that are wrong"),
    "macro_precision": ("Macro precision", "of what is given a label, how much has it; mean over labels"),
    "macro_recall": ("Macro recall", "of what has a label, how much is found; mean over labels"),
    "mcc": ("Matthews' coefficient", "1 all right, 0 no better than chance"),
    "auroc": ("AUROC", "ranking each label against the others; 1 perfect, 0.5 chance"),
    "log_loss": ("Log loss", "nats a row; 0 is perfect"),
    "brier": ("Brier score", "squared error of the probabilities; 0 perfect, 2 worst"),
    "ece": ("Calibration error (ECE)", "mean gap between confidence and accuracy over 15 bins"),
    "confidence": ("Mean confidence", "mean probability of the answers"),
}


@dataclass(frozen=True, slots=True)
class Confused:
    """How often one label was taken for another."""

    true: str
    predicted: str
    count: int
    rows: int  # of the true label


@dataclass(frozen=True, slots=True)
class Speed:
    """One line of how fast it was."""

    what: str
    rows: int
    seconds: float
    tokens: int | None

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def tokens_per_second(self) -> float | None:
        return None if self.tokens is None else self.tokens / self.seconds


def findings(one: dict[str, Any]) -> list[str]:
    """An evaluation in a few sentences: weakest label, confidence, abstaining."""
    found = []
    if weakest := weakest_label(one):
        rate = one["per_class"][weakest]["recall"]
        taken = next((pair for pair in confused(one) if pair.true == weakest), None)
        mostly = f"; taken most often for {taken.predicted} instead" if taken else ""
        found.append(
            f"Weakest label: {weakest}. {percent(rate['value'], 1)} of its rows are found "
            f"({interval(rate['interval'])}){mostly}."
        )
    if "ece" in one:
        found.append(
            f"Confidence: it is {percent(one['confidence']['value'], 1)} sure on average and right on "
            f"{percent(one['accuracy']['value'], 1)}; bin by bin the two are {100 * one['ece']['value']:.1f} points apart."
        )
    levels = [level for level in one.get("abstention", {}).get("levels", []) if "answered" in level]
    if levels and (right := levels[-1]["accuracy_of_answered"])["value"] is not None:
        answered = percent(levels[-1]["answered"]["value"], 1)
        found.append(
            f"Left to abstain at level {levels[-1]['level']:g}, it answers {answered} of the rows and is right on "
            f"{percent(right['value'], 1)} of those ({interval(right['interval'])})."
        )
    return found


def weakest_label(one: dict[str, Any]) -> str | None:
    """The label found least often, of those that have rows; None where all are always found."""
    recalls = {name: row["recall"]["value"] for name, row in one["per_class"].items() if row["rows"]}
    name = min(recalls, key=lambda name: float(recalls[name]), default=None)
    return None if name is None or recalls[name] == 1 else name


def confused(one: dict[str, Any]) -> list[Confused]:
    """Pairs of labels taken for each other, most often first; none where rows carry several."""
    if "confusion" not in one:
        return []
    pairs = [
        Confused(true, predicted, hits, sum(row))
        for true, row in zip(one["labels"], one["confusion"], strict=True)
        for predicted, hits in zip(one["labels"], row, strict=True)
        if true != predicted and hits
    ]
    return sorted(pairs, key=lambda pair: -pair.count)


def wrong_rows(one: dict[str, Any]) -> int:
    """How many rows were labelled wrongly."""
    rows: int = one["rows"]
    return rows - round(rows * float(one["accuracy"]["value"]))


def speeds(
    manifest: dict[str, Any], data: dict[str, Any], recipe: Recipe, epochs: int, evaluations: Sequence[dict[str, Any]]
) -> list[Speed]:
    """Training and evaluation: rows, tokens and seconds."""
    rows, tokens = data["splits"]["train"]["rows"], data["tokens"].get("train")
    done = epochs or recipe.train.epochs
    lines = [
        Speed(
            f"training, {done} {'epoch' if done == 1 else 'epochs'} with validation",
            done * rows,
            manifest["training"]["seconds"],
            None if tokens is None else done * tokens,
        )
    ]
    lines += [
        # data.json counts tokens of the run's own splits, and given rows may be called 'train' too
        Speed(
            f"evaluation, {one['name']}",
            one["rows"],
            one["seconds"],
            data["tokens"].get(one["name"]) if one["name"] in OWN_EVALUATIONS else None,
        )
        for one in evaluations
    ]
    return [line for line in lines if line.seconds > 0]
