"""Which rows of an audit are judged by whom, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from newslora.auditing.embeddings import embed
from newslora.auditing.judges import TOLD, Judge, folds_possible, judge_by_embeddings, judge_by_training, judge_by_words
from newslora.auditing.labels import Doubt, find_doubtful
from newslora.auditing.rows import AuditRows
from newslora.errors import SettingsError
from newslora.metrics import Probabilities
from newslora.model.backbones import Backbone
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoder:
    """What turns texts into tokens, and, where vectors are asked for, into those."""

    backbone: Backbone
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int


def run_predictions(
    run: RunFolder, rows: AuditRows, progress: Callable[[int], None]
) -> tuple[dict[int, Probabilities], list[int]]:
    """The run's probabilities for every split it was not trained on, and the numbers of those it was."""
    trained = run.data()["splits"]["train"]["sha256"]
    seen = [number for number, split in enumerate(rows.splits) if split.articles.sha256 == trained]
    others = [number for number in range(len(rows.splits)) if number not in seen]
    if not others:
        return {}, seen
    classifier = Classifier.load(run.path)
    return {
        number: classifier.predict_proba(rows.texts[rows.splits[number].start : rows.splits[number].stop], progress)
        for number in others
    }, seen


def judge_labels(
    rows: AuditRows,
    clusters: NDArray[np.int64],
    judge: Judge,
    predictions: dict[int, Probabilities],
    encoder: Encoder | None,
    run: RunFolder | None,
    progress: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[Doubt]]:
    """Likely wrong labels of all splits, worst first, and what judged each split how well.

    Splits in `predictions` are judged by those; all other rows together by `judge`, out of fold.

    Raises:
        SettingsError: a judge that needs a run or backbone, without one.
        MissingExtraError: cleanlab is not installed.
    """
    rest = np.flatnonzero(~np.isin(rows.split_of, list(predictions)))
    unseen = np.zeros((len(rows), len(rows.label_names)))
    for number, found in predictions.items():
        unseen[rows.splits[number].start : rows.splits[number].stop] = found
    possible = len(rest) > 0 and folds_possible(rows.labels[rest], clusters[rest])
    if possible:
        unseen[rest] = _out_of_fold(rows, rest, clusters, judge, encoder, run, progress)
    told, doubts = [], []
    for number, split in enumerate(rows.splits):
        mine = slice(split.start, split.stop)
        judged = number in predictions or possible
        found_here = find_doubtful(rows.labels[mine], unseen[mine]) if judged else []
        doubts += [replace(doubt, row=doubt.row + split.start) for doubt in found_here]
        told.append(
            {
                "split": split.name,
                "judged_by": TOLD["run" if number in predictions else judge] if judged else None,
                "its_accuracy": float((unseen[mine].argmax(1) == rows.labels[mine]).mean()) if judged else None,
                "likely_wrong": len(found_here),
                "rows": split.stop - split.start,
            }
        )
    return told, sorted(doubts, key=lambda doubt: doubt.given_probability)


def _out_of_fold(
    rows: AuditRows,
    places: NDArray[np.int64],
    clusters: NDArray[np.int64],
    judge: Judge,
    encoder: Encoder | None,
    run: RunFolder | None,
    progress: Callable[[int], None],
) -> Probabilities:
    texts = [rows.texts[place] for place in places.tolist()]
    labels, groups, classes = rows.labels[places], clusters[places], len(rows.label_names)
    if judge == "words":
        return judge_by_words(texts, labels, groups, classes)
    if judge == "training":
        if run is None:
            raise SettingsError("--judge training trains a run's recipe anew and needs --run.")
        return judge_by_training(texts, labels, groups, classes, run.recipe())
    if encoder is None:
        raise SettingsError("--judge backbone needs the encoder of --run or --backbone.")
    vectors = embed(encoder.backbone, encoder.tokenizer, texts, encoder.max_length, progress)
    return judge_by_embeddings(vectors, labels, groups, classes)
