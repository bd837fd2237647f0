"""The rows an export is judged by, and those that int8 ranges are measured on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from newslora.config import load_recipe
from newslora.data.articles import ArticleSet
from newslora.data.splits import draw
from newslora.errors import DataError
from newslora.evaluation.own import given_rows, held_split, other_settings, own_rows
from newslora.exporting.gate import Given
from newslora.report.card import data_set
from newslora.runfolder import RunFolder

CALIBRATION_ROWS = 256


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Labelled rows that an export is judged by."""

    # as a message has it: 'the test rows' or the source asked for, and of how many the rows were drawn, where they were
    name: str
    articles: ArticleSet
    other: dict[str, Any] = field(default_factory=dict)  # settings that read them, where these are not the run's own

    def record(self) -> dict[str, Any]:
        """As export.json holds them; of a path its last part only, as an export travels."""
        found, kind = self.articles.record(), self.articles.source.kind
        told = found | ({"settings": self.other} if self.other else {})
        return told if kind == "hub" else told | {"source": found["source"].rpartition("/")[2]}

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
        most: rows to draw at random, by share of each label or combination of labels; None: all.

    Raises:
        DataError: rows that cannot be read or used.
        RunError: the run's own rows have changed.
    """
    if data is not None:
        settings = load_recipe(run.recipe(), changes).data
        articles = given_rows(run, data, settings)
        other = other_settings(run, data, settings, articles)
        found = HeldRows(f"'{data_set(data.rstrip('/'))[1]}'", articles, other)
    else:
        splits = own_rows(run)
        name = held_split(splits)
        found = HeldRows(f"the {name} rows", splits.present()[name])
    if not len(found.articles):
        raise DataError(f"No row of {found.name} is usable. Give others (--data).")
    if most is not None and most < len(found.articles):
        places = draw(found.articles, most, run.recipe().train.seed)
        return replace(
            found, name=f"{found.name} (drawn from {len(found.articles):,})", articles=found.articles.take(places)
        )
    return found


def calibration_texts(run: RunFolder) -> list[str]:
    """Training texts on which the ranges of a static int8 export are measured: none of the rows it is judged by."""
    train = own_rows(run).train
    return [train.texts[int(place)] for place in draw(train, CALIBRATION_ROWS, run.recipe().train.seed)]
