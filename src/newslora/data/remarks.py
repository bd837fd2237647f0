"""What was read of a run's data, in short sentences: columns, labels with their rows, and what looks like a mistake."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from newslora.config import DataSettings
from newslora.data.combinations import rows_of_labels
from newslora.data.labels import LABELS_SHOWN
from newslora.data.splits import Splits, asks_for_label
from newslora.errors import first_of, listed

ALIKE_SHOWN = 3  # groups of labels spelt alike


def remarks(splits: Splits, settings: DataSettings) -> list[str]:
    """One sentence each, most of them only where there is something to see."""
    names, train = splits.labels.names, splits.train
    counts = rows_of_labels(train.labels, train.combinations, len(names))
    labels = [f"{names[place]} {counts[place]:,}" for place in np.argsort(-counts, kind="stable")]
    told = [
        f"text: {' + '.join(train.text_columns)}; label: {train.label_column}; {len(names):,} labels: "
        f"{first_of(labels, LABELS_SHOWN)}"
    ]
    if train.combinations is not None:
        told[0] += f"; {counts.sum() / max(1, len(train)):.1f} labels a row"
    # a run's own recipe states every setting, so that one which was given can only be told from the default by its value
    default = type(settings).model_fields["validation_rows"].default
    if not splits.validation_is_cut_from_train and settings.validation_rows != default:
        told.append(
            f"data.validation_rows is {settings.validation_rows:,}, which is not used: no rows are cut from train where there "
            f"are validation rows of their own ({len(splits.validation):,} of {splits.validation.described})."
        )
    if splits.labels.base is not None:
        told.append(_numbers(names, splits.labels.base, settings.label_names is not None))
    if alike := _alike(names):
        told.append(
            f"Labels that differ by case, spaces or what cannot be seen are labels of their own here: {alike}. Where they mean "
            "the same, spell them alike."
        )
    if question := asks_for_label(int(np.count_nonzero(counts)), len(train), train.label_column):
        told.append(question)
    return told


def _numbers(names: Sequence[str], base: int, by_setting: bool) -> str:
    owner = "data.label_names" if by_setting else "the data set's own names"
    return f"labels {base} to {base + len(names) - 1} are called {first_of(names, LABELS_SHOWN)} ({owner})"


def _alike(names: Sequence[str]) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups["".join(_seen(name).casefold().split())].append(name)
    several = [" and ".join(_told_apart(group)) for group in groups.values() if len(group) > 1]
    return listed(several, ALIKE_SHOWN)


def _told_apart(group: Sequence[str]) -> list[str]:
    """Names in quotes; with escapes where two of them look the same."""
    same = len({" ".join(_seen(name).split()) for name in group}) < len(group)
    return [ascii(name) if same else f"'{name}'" for name in group]


def _seen(name: str) -> str:
    """What two labels that look the same have in common: compatible characters as one, those without width left out."""
    return "".join(one for one in unicodedata.normalize("NFKC", name) if unicodedata.category(one) != "Cf")
