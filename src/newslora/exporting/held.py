"""The rows an export is judged by, and those that int8 ranges are measured on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from newslora.config import load_recipe
from newslora.data.articles import ArticleSet, check_quarantine, read_articles
from newslora.data.labels import make_label_set
from newslora.data.sources import parse_source, split_for
from newslora.data.splits import Splits, draw_by_share, load_splits
from newslora.errors import DataError, RunError
from newslora.exporting.gate import Given
from newslora.report.card import data_set
from newslora.runfolder import RunFolder

CALIBRATION_ROWS = 256


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Labelled rows that an export is judged by."""

    name: str  # 'test', 'validation' or the source asked for
    articles: ArticleSet

    def record(self) -> dict[str, Any]:
        """As export.json holds them; of a path its last part only, as an export travels."""
        found = self.articles.record()
        return found | {"source": data_set(found["source"])[1]}

    def truth(self, labels: int) -> Given:
        """(R, C) the labels rows carry."""
        if self.articles.combinations is not None:
            return self.articles.indicators
        return np.asarray(self.articles.labels[:, None] == np.arange(labels))


def held_rows(run: RunFolder, data: str | None, changes: Mapping[str, Any] | None, most: int | None) -> HeldRows:
    """Rows given, else the run's test rows, else its validation rows.

    Args:
        run: a finished run.
        data: a labelled source, as data.source; None: the run's own rows.
        changes: settings of the section data for reading `data`.
        most: rows to draw at random, by share of each label; None: all.

    Raises:
        DataError: rows that cannot be read or used.
        RunError: the run's own rows have changed.
    """
    if data is not None:
        found = HeldRows(f"'{data_set(data.rstrip('/'))[1]}'", _given(run, data, changes))
    else:
        splits = own_rows(run)
        name = "validation" if splits.test is None else "test"
        found = HeldRows(f"the {name} rows", splits.present()[name])
    if not len(found.articles):
        raise DataError(f"{found.name} hold no usable row. Give others with --data.")
    if most is not None and most < len(found.articles):
        places = draw_by_share(found.articles.labels, most, run.recipe().train.seed)
        return HeldRows(f"{found.name} (drawn from {len(found.articles):,})", found.articles.take(places))
    return found


def calibration_texts(run: RunFolder) -> list[str]:
    """Training texts on which the ranges of a static int8 export are measured: none of the rows it is judged by."""
    train = own_rows(run).train
    several = train.combinations is not None
    labels = np.zeros(len(train), dtype=np.int64) if several else train.labels
    count = min(CALIBRATION_ROWS, len(train))
    places = np.arange(len(train)) if count == len(train) else draw_by_share(labels, count, run.recipe().train.seed)
    return [train.texts[int(place)] for place in places]


def own_rows(run: RunFolder) -> Splits:
    """The rows a run was made of, read again from where they were.

    Raises:
        DataError: they cannot be read.
        RunError: they have changed.
    """
    recipe = run.recipe()
    try:
        splits = load_splits(recipe.data, recipe.train.seed)
    except DataError as error:
        raise DataError(f"The rows of {run.path} cannot be read again. {error} Other rows: --data FILE.") from error
    record, now = run.data(), splits.record()
    if changed := [name for name, one in now["splits"].items() if _rows(record["splits"].get(name)) != _rows(one)]:
        raise RunError(
            f"The {changed[0]} rows of {run.path} have changed since it was trained. Restore them, or give held rows with "
            "--data FILE."
        )
    return splits


def _rows(split: Mapping[str, Any] | None) -> dict[str, Any]:
    """What data.json says of a split's rows; its hash knows them under any name of their source."""
    return {key: value for key, value in (split or {}).items() if key != "source"}


def _given(run: RunFolder, data: str, changes: Mapping[str, Any] | None) -> ArticleSet:
    record = run.data()
    settings = load_recipe(run.recipe_file, changes).data
    several = bool(record.get("multi_label"))
    source = parse_source(data)
    spellings = make_label_set(tuple(record["labels"]), record["label_base"])
    settings = settings.model_copy(update={"multi_label": several})  # as trained, whatever is asked
    articles, _ = read_articles(source, split_for(source, "test"), settings, spellings)
    check_quarantine(articles, settings.max_quarantine_share, None)
    return articles
