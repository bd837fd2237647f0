"""Which rows of an audit are judged by whom, and what comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from newslora.auditing.embeddings import embed
from newslora.auditing.judges import (
    TOLD,
    Judge,
    folds_possible,
    has_word,
    judge_by_embeddings,
    judge_by_training,
    judge_by_words,
)
from newslora.auditing.labels import Doubt, find_doubtful
from newslora.auditing.rows import AuditRows, Split
from newslora.errors import SettingsError
from newslora.metrics.basic import Probabilities
from newslora.metrics.single_label import ONE_LABEL
from newslora.model.backbones import Backbone
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ONE_CLUSTER = "a label has all its rows in one cluster of copies"
NO_WORDS = "the texts hold no word of two letters or digits"
SEVERAL = "the rows carry several labels each, and a judge weighs one label against the others"


@dataclass(frozen=True, slots=True)
class Encoder:
    """What turns texts into tokens, and, where vectors are asked for, into those."""

    backbone: Backbone
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run says of the rows of one split."""

    probabilities: Probabilities  # (rows of it, C)
    right: NDArray[np.bool_]  # (rows of it,) whether the labels it gives are those of the row


def run_answers(
    run: RunFolder, rows: AuditRows, device: str | None, progress: Callable[[int], None]
) -> tuple[dict[int, Answers], list[int]]:
    """The run's answers of every split it was not trained on, and the numbers of those it was."""
    trained = run.trained_on()
    seen = [number for number, split in enumerate(rows.splits) if split.articles.sha256 in trained]
    others = [number for number in range(len(rows.splits)) if number not in seen]
    if not others:
        return {}, seen
    classifier = Classifier.load(run.path, device)
    return {number: _answers(classifier, rows, rows.splits[number], progress) for number in others}, seen


def _answers(classifier: Classifier, rows: AuditRows, split: Split, progress: Callable[[int], None]) -> Answers:
    mine = slice(split.start, split.stop)
    probabilities = classifier.predict_proba(rows.texts[mine], progress)
    if rows.combinations is None:
        return Answers(probabilities, probabilities.argmax(1) == rows.labels[mine])
    given = probabilities >= classifier.label_thresholds
    return Answers(probabilities, (given == rows.combinations[rows.labels[mine]]).all(axis=1))


def judge_labels(
    rows: AuditRows,
    clusters: NDArray[np.int64],
    judge: Judge,
    predictions: Mapping[int, Answers],
    encoder: Encoder | None,
    run: RunFolder | None,
    device: str | None,
    progress: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[Doubt]]:
    """Likely wrong labels of all splits, worst first, and what judged each split how well.

    Splits in `predictions` are judged by those; all other rows together by `judge`, out of fold. Rows of several labels are
    not judged: a judge weighs one label against the others.

    Raises:
        SettingsError: a judge that needs a run or backbone, without one.
        MissingExtraError: cleanlab is not installed.
    """
    if rows.combinations is not None:
        return [_told(split, None, None, 0, SEVERAL) for split in rows.splits], []
    rest = np.flatnonzero(~np.isin(rows.split_of, list(predictions)))
    unseen = np.zeros((len(rows), len(rows.label_names)))
    for number, found in predictions.items():
        unseen[rows.splits[number].start : rows.splits[number].stop] = found.probabilities
    reason = _why_not(rows, rest, clusters, judge)
    if reason is None:
        unseen[rest] = _out_of_fold(rows, rest, clusters, judge, encoder, run, device, progress)
    told, doubts = [], []
    for number, split in enumerate(rows.splits):
        mine = slice(split.start, split.stop)
        judged = number in predictions or reason is None
        found_here = find_doubtful(rows.labels[mine], unseen[mine]) if judged else []
        doubts += [replace(doubt, row=doubt.row + split.start) for doubt in found_here]
        accuracy = float((unseen[mine].argmax(1) == rows.labels[mine]).mean()) if judged else None
        by = TOLD["run" if number in predictions else judge] if judged else None
        told.append(_told(split, by, accuracy, len(found_here), None if judged else reason))
    return told, sorted(doubts, key=lambda doubt: doubt.given_probability)


def _why_not(rows: AuditRows, places: NDArray[np.int64], clusters: NDArray[np.int64], judge: Judge) -> str | None:
    """Why these rows cannot be judged out of fold; None: they can."""
    labels = rows.labels[places]
    if len(np.unique(labels)) < 2:
        return ONE_LABEL
    if folds_possible(labels, clusters[places]) < 2:
        return ONE_CLUSTER
    if judge == "words" and not any(has_word(rows.texts[place]) for place in places.tolist()):
        return NO_WORDS
    return None


def _told(split: Split, by: str | None, accuracy: float | None, wrong: int, reason: str | None) -> dict[str, Any]:
    """What audit.json says of the labels of a split; `reason`: why nobody judged them."""
    found = {"split": split.name, "judged_by": by, "its_accuracy": accuracy, "likely_wrong": wrong}
    return found | {"rows": split.stop - split.start} | ({} if reason is None else {"reason": reason})


def _out_of_fold(
    rows: AuditRows,
    places: NDArray[np.int64],
    clusters: NDArray[np.int64],
    judge: Judge,
    encoder: Encoder | None,
    run: RunFolder | None,
    device: str | None,
    progress: Callable[[int], None],
) -> Probabilities:
    texts = [rows.texts[place] for place in places.tolist()]
    labels, groups, classes = rows.labels[places], clusters[places], len(rows.label_names)
    if judge == "words":
        return judge_by_words(texts, labels, groups, classes)
    if judge == "training":
        if run is None:
            raise SettingsError("The judge 'training' trains a run's recipe anew and needs a run (--run).")
        recipe = run.recipe()
        changes: dict[str, Any] = {"adapter": None}  # one that the run started from may have learnt these rows by heart
        if encoder is not None:  # the run's, which the adapter's card finds from any working directory
            changes["backbone"] = encoder.backbone.name
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)})
        return judge_by_training(texts, labels, groups, classes, recipe, device)
    if encoder is None:
        raise SettingsError("The judge 'backbone' needs an encoder: that of a run (--run), or a backbone (--backbone).")
    vectors = embed(encoder.backbone, encoder.tokenizer, texts, encoder.max_length, device, progress)
    return judge_by_embeddings(vectors, labels, groups, classes)
