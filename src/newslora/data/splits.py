"""A recipe's data settings -> the train, validation and test articles of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from newslora.config import DataSettings
from newslora.data.articles import ArticleSet, check_quarantine, read_articles, require_labels, write_quarantine
from newslora.data.combinations import strata
from newslora.data.labels import LabelSet
from newslora.data.sources import Source, is_relative, parse_again, split_for
from newslora.data.store import FEW, Spool, all_but, chunks
from newslora.data.texts import Quarantine, Texts
from newslora.errors import DataError

OWN_ROWS = "Validation rows of their own are given as data.validation (--validation)."
FEW_FOR_SEED = 1000  # rows; the seed recipe would still be warming up when they end
MANY_ROWS = 10  # rows from which labels that hardly recur look like a mistake


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows of a run. `validation` chooses the epoch, `test` is touched once, at the end."""

    labels: LabelSet
    train: ArticleSet
    validation: ArticleSet
    test: ArticleSet | None
    validation_is_cut_from_train: bool

    @property
    def validation_is_train(self) -> bool:
        """Whether the epoch is chosen on the very rows that train, as very small data may want."""
        return not self.validation_is_cut_from_train and self.validation.sha256 == self.train.sha256

    def present(self) -> dict[str, ArticleSet]:
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: one for name, one in found.items() if one is not None}

    def held(self) -> dict[str, ArticleSet]:
        """Those that do not train."""
        apart = ("train", "validation") if self.validation_is_train else ("train",)
        return {name: one for name, one in self.present().items() if name not in apart}

    @property
    def relative(self) -> bool:
        """Whether some of them were found from the working directory."""
        return any(is_relative(one.source) for one in self.present().values())

    def record(self) -> dict[str, Any]:
        """data.json: enough to know, and to check on resuming, which rows these were."""
        several = {} if self.train.combinations is None else {"multi_label": True}
        return {
            "labels": list(self.labels.names),
            **several,
            "label_base": self.labels.base,
            "validation_is_cut_from_train": self.validation_is_cut_from_train,
            "splits": {name: one.record() for name, one in self.present().items()},
        }


def load_splits(
    settings: DataSettings,
    seed: int,
    quarantine_file: Path | None = None,
    folder: str | None = None,
    names: Sequence[str] | None = None,
) -> Splits:
    """Read everything `settings` names.

    Args:
        settings: the recipe's data section.
        seed: decides which rows are cut from train for validation.
        quarantine_file: where rows set aside are written, before any error about them is raised.
        folder: of a run that was made of them before, the one it was trained in; see `parse_again`.
        names: the labels of a trained head that training goes on with; None: they are learnt.

    Raises:
        DataError: sources that cannot be read, the same rows in two roles, too many unusable rows, fewer than two
            labels, one that is none of `names`, or too few rows to split.
    """
    source = parse_again(settings.source, folder)
    train, labels = read_articles(source, split_for(source, "train"), settings, None, names=names)
    validation = _role(source, settings.validation, "validation", settings, labels, train.text_columns, folder)
    test = _role(source, settings.test, "test", settings, labels, train.text_columns, folder)
    sets = {"train": train, "validation": validation, "test": test}
    _refuse_same_rows(sets)
    present = [one for one in sets.values() if one is not None]
    if quarantine_file is not None:
        write_quarantine(quarantine_file, present)
    check_quarantine(train, settings.max_quarantine_share, quarantine_file)
    require_labels(labels, train)
    for one in present[1:]:
        check_quarantine(one, settings.max_quarantine_share, quarantine_file)
    cut = validation is None
    if validation is None:
        train, validation = cut_validation(train, settings.validation_rows, seed)
    if settings.train_rows is not None and settings.train_rows < len(train):
        train = train.take(draw(train, settings.train_rows, seed))
    return Splits(labels, train, validation, test, cut)


def _refuse_same_rows(sets: dict[str, ArticleSet | None]) -> None:
    """One file under two spellings of its path passes the recipe's own check; its bytes do not.

    Validation rows may be the training rows: that chooses the epoch by training loss, which very small data may want.
    """
    roles: dict[str, str] = {}
    for role, one in sets.items():
        if one is None:
            continue
        other = roles.get(one.sha256)
        if role == "test" and other:
            raise DataError(
                f"The {role} rows, '{one.described}', are the same data as the {other} rows: a score on rows that trained "
                f"or chose the model says nothing. Name other rows as data.{role}, or leave it out."
            )
        roles.setdefault(one.sha256, role)


def cut_validation(train: ArticleSet, rows: int, seed: int) -> tuple[ArticleSet, ArticleSet]:
    """Move `rows` rows out of train, by label share where every label has two rows, else at random.

    Where rows carry several labels, by share of each combination of labels frequent enough for a row of it to be drawn; the
    rows of all other combinations count as one.

    Raises:
        DataError: fewer training rows than that leaves.
    """
    total = len(train)
    least = np.count_nonzero(np.bincount(train.labels)) if train.combinations is None else train.combinations.shape[1]
    if total - rows < least:
        raise DataError(_too_few(train, rows, int(least)))
    moved = draw(train, rows, seed)
    none_aside = Quarantine(train.source.text, Texts.of(()), {})  # they stay with train, to be counted once
    return train.take(all_but(total, moved)), replace(train.take(moved), quarantined=none_aside)


def _too_few(train: ArticleSet, rows: int, labels: int) -> str:
    """Why `rows` validation rows cannot be cut from `train`, and what to do."""
    total = len(train)
    fewer = max(1, total // 10)
    told = f"data.validation_rows is {rows:,}, but '{train.described}' has {total:,} usable rows in all"
    if total - fewer < labels:  # no number would do
        told += f" and {labels:,} different labels in them, each of which needs a row to train on."
        return " ".join(filter(None, [told, asks_for_label(labels, total, train.label_column) or OWN_ROWS]))
    few = " The recipe quickstart is made for so few." if total < FEW_FOR_SEED else ""
    return f"{told}. Set it to some {fewer:,} (--set data.validation_rows={fewer}). {OWN_ROWS}{few}"


def asks_for_label(labels: int, rows: int, column: str | None) -> str | None:
    """A question where nearly every row has a label of its own: a number of the row, say, or an address."""
    if rows < MANY_ROWS or labels * 2 <= rows:
        return None
    return (
        f"{labels:,} different labels in {rows:,} rows: is '{column}' the column of the label? Another is named with --set "
        "data.label_column=NAME."
    )


def draw(articles: ArticleSet, rows: int, seed: int) -> NDArray[np.int64]:
    """`rows` places in the source's order, drawn by share of label or of combination of labels; all where there are no more."""
    if rows >= len(articles):
        return np.arange(len(articles))
    several = articles.combinations is not None
    return draw_by_share(strata(articles.labels, rows) if several else articles.labels, rows, seed)


def draw_by_share(labels: NDArray[np.int64], rows: int, seed: int) -> NDArray[np.int64]:
    """`rows` places drawn by label share (at random where a label has a single row), in the source's order."""
    counts = np.bincount(labels)
    present = counts[counts > 0]
    by_share = bool(present.min() > 1 and len(present) <= rows <= len(labels) - len(present))
    if len(labels) > FEW:
        return _draw_in_passing(labels, counts if by_share else np.array([len(labels)]), rows, seed)
    from sklearn.model_selection import train_test_split

    _, drawn = train_test_split(
        np.arange(len(labels)), test_size=rows, random_state=seed, stratify=labels if by_share else None
    )
    places: NDArray[np.int64] = np.sort(drawn)
    return places


def _draw_in_passing(labels: NDArray[np.int64], counts: NDArray[np.int64], rows: int, seed: int) -> NDArray[np.int64]:
    """The same in one pass and a chunk's memory: selection sampling (Knuth, TAOCP 2, 3.4.2, algorithm S).

    How many of a label's rows fall into a chunk is hypergeometric; which of the chunk's rows, uniform.

    Args:
        labels: (R,) label ids; all count as one label where `counts` has one entry.
        counts: (C,) rows of each label.
        rows: to draw.
        seed: decides which.
    """
    generator = np.random.default_rng(seed)
    shares = rows * counts / counts.sum()
    wanted = np.floor(shares).astype(np.int64)
    wanted[np.argsort(wanted - shares, kind="stable")[: rows - wanted.sum()]] += 1  # the largest remainders
    left = counts.copy()
    drawn = Spool(np.int64)
    for start, stop in chunks(len(labels)):
        chosen = []
        for label in np.flatnonzero(wanted):
            here = np.flatnonzero(labels[start:stop] == label) if len(counts) > 1 else np.arange(stop - start)
            number = generator.hypergeometric(wanted[label], left[label] - wanted[label], len(here))
            chosen.append(generator.choice(here, number, replace=False))
            wanted[label] -= number
            left[label] -= len(here)
        drawn.extend(start + np.sort(np.concatenate(chosen or [np.zeros(0, np.int64)])))
    return drawn.array()


def _role(
    main: Source,
    named: str | None,
    role: str,
    settings: DataSettings,
    labels: LabelSet,
    usual: Sequence[str],
    folder: str | None,
) -> ArticleSet | None:
    """The rows of `role`: the named source, else the main source's own split of that name, else none."""
    if named is not None:
        source = parse_again(named, folder)
        return read_articles(source, split_for(source, role), settings, labels, usual)[0]
    split = split_for(main.whole, role) if main.kind not in ("file", "database") else None
    return read_articles(main.whole, split, settings, labels, usual)[0] if split is not None else None
