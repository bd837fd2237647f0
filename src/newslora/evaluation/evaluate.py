"""A classifier and labelled rows -> one JSON of metrics and one CSV of every row's prediction."""

import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from newslora import files
from newslora.config import load_recipe
from newslora.data.articles import ArticleSet, check_quarantine, make_label_set, read_articles
from newslora.data.sources import parse_source, split_for
from newslora.errors import RunError
from newslora.metrics import Labels, Probabilities, full_metrics
from newslora.predict.classifier import Classifier
from newslora.runfolder import RunFolder

SELECTION_BIAS = (
    "These rows also chose the kept epoch, so the figures are optimistic; rows that took no part in training tell more."
)


def evaluate_articles(
    classifier: Classifier,
    articles: ArticleSet,
    name: str,
    folder: Path,
    chose_the_epoch: bool,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Score every row once and write `folder/NAME.json` and `folder/NAME.csv`.

    Args:
        classifier: the trained run.
        articles: labelled rows, label ids as in the classifier.
        name: of the files, usually the split.
        folder: where they go.
        chose_the_epoch: whether these rows were used to pick the best epoch, which the result then says.
        progress: told the rows of each finished batch.

    Returns:
        What the JSON holds.
    """
    labels: Labels = np.array([article.label for article in articles.articles], dtype=np.int64)
    began = time.monotonic()
    probabilities = classifier.predict_proba([article.text for article in articles.articles], progress=progress)
    seconds = time.monotonic() - began
    result: dict[str, Any] = {"name": name, **articles.record()}
    result |= full_metrics(labels, probabilities, classifier.labels)
    result |= {
        "chose_the_epoch": chose_the_epoch,
        "note": SELECTION_BIAS if chose_the_epoch else None,
        "adapter_sha256": classifier.card.weights_sha256,
        "precision": classifier.precision.name,
        "seconds": round(seconds, 3),
    }
    _write_rows(folder / f"{name}.csv", articles, classifier.labels, probabilities)
    files.write_json(folder / f"{name}.json", result)
    return result


def evaluate_run(
    run_path: Path,
    data: str | None,
    changes: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Evaluate a finished run on its own test rows (else validation rows), or on another source.

    Args:
        run_path: the run folder.
        data: as `data.source`; None gives the result stored when the run finished.
        changes: settings of the section data for reading `data`, over those of the run's recipe.
        progress: told the rows of each finished batch.

    Raises:
        RunError: an unfinished run, or one whose stored data cannot be found again.
        DataError: rows that cannot be used.
    """
    run = RunFolder.open(run_path)
    if data is None:
        return _stored_result(run)
    classifier = Classifier.load(run_path)
    settings, record = load_recipe(run.recipe_file, changes).data, run.data()
    source = parse_source(data)
    spellings = make_label_set(tuple(record["labels"]), record["label_base"])
    articles, _ = read_articles(source, split_for(source, "test"), settings, spellings)
    check_quarantine(articles, settings.max_quarantine_share, None)
    same = articles.sha256 in {split["sha256"] for name, split in record["splits"].items() if name != "test"}
    name = _file_name(data)
    return evaluate_articles(classifier, articles, name, run.evaluation, chose_the_epoch=same, progress=progress)


def _stored_result(run: RunFolder) -> dict[str, Any]:
    for name in ("test", "validation"):
        path = run.evaluation / f"{name}.json"
        if path.is_file():
            value: dict[str, Any] = files.read_json(path)
            return value
    raise RunError(f"The run {run.path} has no evaluation yet. Finish it: `newslora train --resume {run.path}`.")


def _file_name(source: str) -> str:
    stem = source.rstrip("/").rpartition("/")[2].split(".")[0] or "data"
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)
    return f"{safe}-data" if safe in ("validation", "test") else safe


def _write_rows(path: Path, articles: ArticleSet, names: tuple[str, ...], probabilities: Probabilities) -> None:
    """One line a row: row number, text, true label, predicted label, its probability, all probabilities."""
    with files.atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "text", "label", "predicted", "probability", *(f"p({name})" for name in names)])
        for article, row in zip(articles.articles, probabilities, strict=True):
            best = int(row.argmax())
            rounded = [f"{value:.6f}" for value in row]
            writer.writerow([article.row, article.text, names[article.label], names[best], rounded[best], *rounded])
