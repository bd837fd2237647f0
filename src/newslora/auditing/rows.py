"""The sources of an audit -> all their rows side by side.

Dimension letters used in auditing/: R rows of all splits together, in the splits' order; C labels; K combinations of labels
that occur; H hidden size.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newslora.config import DataSettings
from newslora.data.articles import ArticleSet, check_quarantine, read_articles
from newslora.data.combinations import rows_of_labels
from newslora.data.labels import LabelSet
from newslora.data.sources import ROLES, Source, available_splits, parse_source
from newslora.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Split:
    """One part of a data set; its rows are `rows.texts[start:stop]`."""

    name: str
    articles: ArticleSet
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class AuditRows:
    """Every usable row of every split; a row's place among them is its number everywhere in auditing/."""

    splits: list[Split]  # the first is what the others must not repeat: the training rows
    label_names: tuple[str, ...]
    texts: list[str]  # (R,)
    labels: NDArray[np.int64]  # (R,) label ids; where rows carry several labels, places in `combinations`
    split_of: NDArray[np.int64]  # (R,)
    numbers: NDArray[np.int64]  # (R,) 1-based row of the source
    combinations: NDArray[np.bool_] | None = None  # (K, C) which labels a combination holds, the same for all splits
    separator: str = ";"  # between a row's labels, where they are told
    label_base: int | None = None  # the number that the data gives the first label, where it numbers them

    def __len__(self) -> int:
        return len(self.texts)

    def told(self, place: int) -> tuple[str, int, str]:
        """(split, row of its source, label) of one row; several labels are joined."""
        label = int(self.labels[place])
        carried = [label] if self.combinations is None else np.flatnonzero(self.combinations[label]).tolist()
        names = self.separator.join(self.label_names[one] for one in carried)
        return self.splits[self.split_of[place]].name, int(self.numbers[place]), names

    def counts(self, split: Split) -> dict[str, int]:
        """Label name -> rows of a split that carry it."""
        labels = self.labels[split.start : split.stop]
        found = rows_of_labels(labels, self.combinations, len(self.label_names))
        return dict(zip(self.label_names, found.tolist(), strict=True))


def read_rows(
    sources: Sequence[str], settings: DataSettings, labels: LabelSet | None, usual: Sequence[str] = ()
) -> AuditRows:
    """Read every split of every source; labels and columns of text are those of the first unless given.

    Args:
        sources: as `data.source`. A folder or hub name stands for all its splits, unless one is named after a colon.
        settings: columns, header and label names.
        labels: of a run; None: learnt from the first split.
        usual: text columns of a run; none: those of the first split.

    Raises:
        SettingsError: no source, or the same data twice.
        DataError: a source that cannot be read, or one without a usable row.
    """
    if not sources or isinstance(sources, str):
        raise SettingsError("An audit needs at least one source in a list: a file, a folder or a hub name.")
    sets: list[ArticleSet] = []
    names: list[str] = []
    for source, split in [one for text in sources for one in _splits_of(parse_source(text))]:
        articles, labels = read_articles(source, split, settings, labels, usual)
        usual = usual or articles.text_columns
        check_quarantine(articles, 1.0, None)  # unusable rows are a finding, unless there are no others
        same = next((other for other, one in zip(names, sets, strict=True) if one.sha256 == articles.sha256), None)
        if same is not None:
            raise SettingsError(f"'{articles.described}' holds the same bytes as '{same}'. Name each file once.")
        sets.append(articles)
        names.append(_free(split or _stem(source), names))
    assert labels is not None  # read_articles learns them from the first split
    stops = np.cumsum([len(one) for one in sets]).tolist()
    joined, combinations = _one_table(sets)
    parts = [Split(name, one, stop - len(one), stop) for name, one, stop in zip(names, sets, stops, strict=True)]
    return AuditRows(
        parts,
        labels.names,
        list(itertools.chain.from_iterable(one.texts for one in sets)),
        joined,
        np.repeat(np.arange(len(parts)), [part.stop - part.start for part in parts]),
        np.concatenate([one.rows for one in sets]),
        combinations,
        settings.label_separator,
        labels.base,
    )


def _one_table(sets: Sequence[ArticleSet]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """(R,) labels of all rows; where they are combinations, places in a (K, C) table of those of all splits.

    Each split numbers its own combinations as they come, so that equal places of two splits need not be equal labels.
    """
    tables = [one.combinations for one in sets if one.combinations is not None]
    if not tables:
        return np.concatenate([one.labels for one in sets]), None
    table, places = np.unique(np.concatenate(tables), axis=0, return_inverse=True)
    starts = np.cumsum([0, *map(len, tables)])
    labels = [places.reshape(-1)[start + one.labels] for start, one in zip(starts, sets, strict=False)]
    return np.concatenate(labels), table


def _splits_of(source: Source) -> list[tuple[Source, str | None]]:
    """The named split, or all there are, training rows first; a file is one."""
    if source.split is not None:
        return [(source, source.split)]
    known = [name for names in ROLES.values() for name in names]
    splits = sorted(
        available_splits(source), key=lambda name: (known.index(name) if name in known else len(known), name)
    )
    return [(replace(source, split=None), name) for name in splits] or [(source, None)]


def _stem(source: Source) -> str:
    return Path(source.location).name.split(".")[0] or "rows"


def _free(name: str, taken: Sequence[str]) -> str:
    numbered = (name if count == 1 else f"{name}-{count}" for count in range(1, len(taken) + 2))
    return next(one for one in numbered if one not in taken)
