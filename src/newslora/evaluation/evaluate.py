"""A classifier and labelled rows -> one JSON of metrics, one CSV of every row's prediction, one of the wrong rows."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from newslora import files
from newslora.config import DataSettings, data_changes, in_words, load_recipe
from newslora.data.articles import ArticleSet
from newslora.data.columns import other_columns
from newslora.data.frames import Frame, is_frame, keep_frame
from newslora.data.outputs import refuse_overwriting
from newslora.data.sources import open_table, parse_again, parse_source
from newslora.errors import RunError
from newslora.evaluation.abstention import abstention
from newslora.evaluation.breakdown import as_scored, breakdowns, by_name, column_values, find_column, source_column
from newslora.evaluation.multi_label import TUNED, evaluate_several
from newslora.evaluation.naming import result_name
from newslora.evaluation.own import (
    given_rows,
    held_split,
    is_export,
    other_settings,
    own_rows,
    refuse_idle,
    require_same_weights,
    run_of_export,
)
from newslora.evaluation.rows import damaged, find_errors, read_lines, shortened, write_errors, write_rows
from newslora.evaluation.score import Scored, score_articles
from newslora.metrics.basic import softmax
from newslora.metrics.calibration import calibration_numbers, reliability, top_answers
from newslora.metrics.classes import absent_note
from newslora.metrics.single_label import full_metrics
from newslora.predict.classifier import Classifier
from newslora.runfolder import SCORE_AGAIN, RunFolder, run_path
from newslora.runtime import check_device

TRAINED = "These rows trained the classifier, or hold rows that did: the figures say nothing about other rows."
SELECTION_BIAS = (
    "These rows also chose the kept epoch, so the figures are optimistic; rows that took no part in training tell more."
)
FITTED = (
    "They also fitted the temperature and set the levels of abstention: calibration and coverage are optimistic too."
)


def evaluate_articles(
    classifier: Classifier,
    articles: ArticleSet,
    name: str,
    folder: Path,
    settings: DataSettings,
    *,
    chose_the_epoch: bool,
    trained: bool = False,
    by: str | None = None,
    scored: Scored | None = None,
    other: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Score every row once and write `folder/NAME.json`, `folder/NAME.csv` and `folder/NAME-errors.csv`.

    Args:
        classifier: the trained run.
        articles: labelled rows, at least one, label ids as in the classifier.
        name: of the files, usually the split.
        folder: where they go.
        settings: how the rows were read.
        chose_the_epoch: whether these rows were used to pick the best epoch, which the result then says.
        trained: whether they were trained on, which the result then says.
        by: a column of the data to break accuracy down by; None: one that names the news' source, where there is one.
        scored: the rows' logits, where they are known already.
        other: settings by which they were read, where these are not the run's own, which the result then says.
        progress: told the rows of each finished batch.

    Returns:
        What the JSON holds: the rows' record, all of `full_metrics` (where rows carry several labels, of `evaluate_several`,
        without calibration and abstention), and
        `calibration`: temperature, why it is 1 where it is, and log loss, Brier, ECE and confidence before and after,
            and the reliability before (that after stands in `full_metrics`);
        `abstention`: coverage, set size and share answered at a few levels (newslora.evaluation.abstention);
        `accuracy_by`: a list of breakdowns (newslora.evaluation.breakdown);
        `errors`: the fifty most confidently wrong rows (newslora.evaluation.rows);
        `chose_the_epoch`, `trained`, `note`: why scores may be higher than on new rows, which labels have none, and which
            columns held the text where they are not those of the training, or which settings read them;
        `reading`, `settings`: a hash of how the rows were read, and the settings that are not the run's own;
        `adapter_sha256`, `precision`, `seconds`: what scored them, and how long it took;
        `export`: name, kind and hash of the weights, where an export scored them.

    Raises:
        DataError: no column `by`.
    """
    named = source_column(articles, settings.header, by)
    scored = scored or score_articles(classifier, articles, progress)
    measure = evaluate_several if classifier.multi_label else _evaluate_one
    numbers, errors = measure(classifier, articles, scored, named, folder / f"{name}.csv")
    result = {"name": name, **articles.record(), **numbers}
    result |= {
        "errors": shortened(errors),
        "chose_the_epoch": chose_the_epoch,
        "trained": trained,
        "note": _note(classifier, articles, chose_the_epoch, trained, numbers, other or {}),
        "reading": articles.reading,
        "settings": dict(other or {}),
        "adapter_sha256": classifier.card.weights_sha256,
        "precision": classifier.precision.name,
        "seconds": round(scored.seconds, 3),
        **_exported(classifier),
    }
    write_errors(folder / f"{name}-errors.csv", errors)
    files.write_json(folder / f"{name}.json", result)
    return result


def _evaluate_one(
    classifier: Classifier, articles: ArticleSet, scored: Scored, named: dict[str, list[str]], path: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Numbers and wrong rows of rows of one label; the CSV of every row is written."""
    labels, probabilities = scored.labels, softmax(scored.logits, classifier.temperature)
    write_rows(path, articles, classifier.labels, probabilities)
    numbers = full_metrics(labels, probabilities, classifier.labels) | {
        "calibration": _calibration(classifier, scored),
        "abstention": abstention(classifier, labels, probabilities),
        "accuracy_by": breakdowns(*top_answers(labels, probabilities), scored.lengths, named),
    }
    return numbers, find_errors(articles, classifier.labels, labels, probabilities)


def evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | Frame | None = None,
    *,
    by: str | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Evaluate a finished run, or one of its exports, on its own test rows (else validation rows), or on another source.

    What an export scored is kept in the run's evaluation/exports/NAME, apart from what the run itself did.

    Args:
        run: the run folder, or an export in its exports/.
        data: as `data.source`, or a table in memory such as a frame of pandas or polars, which is kept in the run's rows/; None
            gives a run's result as stored when it finished, and lets an export score the same rows.
        by: a column of the data to break accuracy down by.
        changes: settings of the section data for reading `data`, over those of the run's recipe.
        device: that scores rows: 'cpu', 'cuda', ...; None picks. A stored result takes none.
        progress: told the rows of each finished batch.

    Returns:
        As `evaluate_articles`.

    Raises:
        RunError: an unfinished or damaged run, one whose stored data cannot be found again, a stored result of another adapter,
            or an export outside of its run.
        DataError: rows that cannot be used, or no column `by`.
        SettingsError: `data` is read from a file that the result would take the place of, changes without `data`, or a device
            that is not here.

    Example:
        >>> result = newslora.evaluate("runs/mine", "test.csv")  # doctest: +SKIP
        >>> result["accuracy"]["value"]  # doctest: +SKIP
        0.9255
    """
    check_device(device)
    path = run_path(run)
    name = None if data is None or is_frame(data) else parse_source(cast("str | os.PathLike[str]", data)).text
    export = is_export(path)
    source = run_of_export(path) if export else RunFolder.open(path)
    settings = load_recipe(source.recipe(), data_changes(changes)).data
    refuse_idle(changes, data)
    if data is None and not export:
        stored = _stored_result(source)
        return stored if by is None else _broken_down(source, stored, settings, by)
    classifier, folder = Classifier.load(path, device), source.evaluation
    if export:
        require_same_weights(source, path, classifier.card)
        folder = source.evaluation / "exports" / path.resolve().name
    if is_frame(data):
        name = str(keep_frame(data, source.rows))
    rows = _own(source) if name is None else _given(source, name, settings, folder)
    if name is not None:
        refuse_overwriting([folder / f"{rows.name}{end}" for end in (".json", ".csv", "-errors.csv")], [name])
    return evaluate_articles(
        classifier, rows.articles, rows.name, folder, settings,
        chose_the_epoch=rows.chose, trained=rows.trained, by=by, other=rows.other, progress=progress,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows to be scored, and what they were to the run."""

    name: str
    articles: ArticleSet
    chose: bool  # the epoch
    trained: bool
    other: Mapping[str, Any]  # settings that read them, where these are not the run's own


def _own(run: RunFolder) -> _Rows:
    splits = own_rows(run)
    name = held_split(splits)
    chose = name == "validation"
    return _Rows(name, splits.present()[name], chose, chose and splits.validation_is_train, {})


def _given(run: RunFolder, data: str, settings: DataSettings, folder: Path) -> _Rows:
    articles, record = given_rows(run, data, settings), run.data()
    roles = [role for role, split in record["splits"].items() if split["sha256"] == articles.sha256]
    chose = "validation" in roles or ("train" in roles and record["validation_is_cut_from_train"])
    other = other_settings(run, data, settings, articles)
    return _Rows(
        result_name(folder, data, articles, other), articles, chose, articles.sha256 in run.trained_on(), other
    )


def _exported(classifier: Classifier) -> dict[str, Any]:
    """Which export scored the rows; nothing where the run did."""
    if classifier.export_sha256 is None:
        return {}
    name = classifier.folder.resolve().name
    return {"export": {"name": name, "kind": classifier.card.export, "weights_sha256": classifier.export_sha256}}


def _calibration(classifier: Classifier, scored: Scored) -> dict[str, Any]:
    """What the temperature does to these rows."""
    calibration = classifier.calibration
    unscaled = softmax(scored.logits)
    before = calibration_numbers(scored.labels, unscaled)
    after = calibration_numbers(scored.labels, softmax(scored.logits, classifier.temperature))
    return {
        "temperature": classifier.temperature,
        "reason": "this run has none" if calibration is None else calibration.record["reason"],
        "validation_rows": None if calibration is None else len(calibration.labels),
        "before": before | {"reliability": reliability(*top_answers(scored.labels, unscaled))},
        "after": after,
    }


def _note(
    classifier: Classifier,
    articles: ArticleSet,
    chose_the_epoch: bool,
    trained: bool,
    numbers: Mapping[str, Any],
    other: Mapping[str, Any],
) -> str | None:
    """Why scores may be higher than on new rows, of which labels they tell nothing, and how else the rows were read."""
    said = [TRAINED] if trained else []
    if chose_the_epoch:
        said.append(SELECTION_BIAS)
        said += [FITTED] if classifier.calibration is not None else []
        said += [TUNED] if classifier.thresholds is not None else []
    if absent := absent_note(numbers["per_class"]):
        said.append(absent)
    if columns := other_columns(articles.text_columns, classifier.card.text_columns):
        said.append(columns)
    if other:
        told = "; ".join(f"data.{name} is {in_words(value)}" for name, value in other.items())
        said.append(f"These rows were read by other settings than the run's own: {told}.")
    return " ".join(said) or None


def _stored_result(run: RunFolder) -> dict[str, Any]:
    found = run.own_evaluation()
    if found is None:
        raise RunError(f"The run {run.path} has no evaluation yet. Finish it: `newslora train --resume {run.path}`.")
    if found["adapter_sha256"] != (version := run.manifest()["adapter_sha256"]):
        raise RunError(
            f"{run.evaluation / found['name']}.json is of another adapter ({found['adapter_sha256'][:12]}) than the run's "
            f"({version[:12]}). {SCORE_AGAIN}"
        )
    return found


def _broken_down(run: RunFolder, result: dict[str, Any], settings: DataSettings, by: str) -> dict[str, Any]:
    """A stored evaluation with accuracy by one more column, read from the rows' source; nothing is scored again."""
    source = parse_again(result["source"], run.trained_in())
    table = open_table(source, source.split, settings.header)
    if table.sha256 != result["sha256"]:
        raise RunError(
            f"'{source.text}' has changed since {run.path} was evaluated on it. Restore it, or score it as it is now, "
            f"given as data (--data {source.text} --by {by})."
        )
    find_column(table, source, by, set())
    path = run.evaluation / f"{result['name']}.csv"
    try:
        lines = [(int(line["row"]), line["text"], line["label"] == line["predicted"]) for line in read_lines(path)]
    except ValueError as error:
        raise damaged(path, error) from None
    texts = {row: text for row, text, _ in lines}
    table = replace(table, rows=as_scored(table.rows, texts, result.get("text_columns", ()), source.text, by))
    values = column_values(table, by, list(texts))
    others = [one for one in result.get("accuracy_by", []) if (one["by"], one["kind"]) != (by, "name")]
    result["accuracy_by"] = [*others, by_name(by, values, np.array([hit for *_, hit in lines]))]
    files.write_json(path.with_suffix(".json"), result)
    return result
