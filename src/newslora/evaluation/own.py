"""The run behind an export, the rows a run was made of, and others read as it reads its own."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from newslora.config import DataSettings
from newslora.data.articles import ArticleSet, check_quarantine, read_articles, reading_of
from newslora.data.labels import LabelSet, make_label_set
from newslora.data.sources import Source, parse_source, split_for
from newslora.data.splits import Splits, load_splits
from newslora.errors import DataError, RunError, SettingsError
from newslora.model.adapter import AdapterCard
from newslora.model.exported import MANIFEST
from newslora.runfolder import RunFolder

# settings that decide what rows say
READING = ("text_columns", "label_column", "label_names", "label_separator", "header")


def is_export(path: Path) -> bool:
    """Whether a folder is what `newslora export` made, rather than a run."""
    return (path / MANIFEST).is_file()


def run_of_export(folder: Path) -> RunFolder:
    """The run in whose exports/ an export lies.

    Raises:
        RunError: it lies elsewhere.
    """
    run = RunFolder(folder.resolve().parent.parent)
    if folder.resolve().parent != run.exports or not run.recipe_file.is_file():
        raise RunError(
            f"{folder} is an export outside of its run, and evaluating it needs what the run knows: its rows, and how labels "
            "are read. Put it into the exports/ of that run, or evaluate the run itself."
        )
    return run


def require_same_weights(run: RunFolder, folder: Path, card: AdapterCard) -> None:
    """Refuse an export (its card) of other weights than those of the finished run it lies in.

    Raises:
        RunError: it was made before the run was trained anew, or of another.
    """
    if card.weights_sha256 != run.manifest()["adapter_sha256"]:
        raise RunError(
            f"{folder} was made of other weights than {run.path} holds. Export the run again in its place (--replace)."
        )


def own_rows(run: RunFolder) -> Splits:
    """The rows a run was made of, read again from where they were.

    Raises:
        DataError: they cannot be read.
        RunError: they have changed.
    """
    recipe, folder, record = run.recipe(), run.trained_in(), run.data()
    # a run that went on from an adapter had its labels from there, not from its rows
    names = None if recipe.model.adapter is None else record["labels"]
    try:
        splits = load_splits(recipe.data, recipe.train.seed, folder=folder, names=names)
    except DataError as error:
        whose = run.path if folder is None else f"{run.path}, trained in {folder},"
        raise DataError(
            f"The rows of {whose} cannot be read again. {error} Or give other rows as data (--data FILE)."
        ) from error
    now, was = splits.record(), record["splits"]
    for name, one in now["splits"].items():
        if was.get(name, {}).get("sha256") != one["sha256"]:
            raise RunError(
                f"The {name} rows of {run.path} have changed since it was trained. Restore them, or give held rows as data "
                "(--data FILE)."
            )
        if _rows(was[name]) != _rows(one) or now["labels"] != record["labels"]:
            raise RunError(
                f"The {name} rows of {run.path} lie in the same bytes as when it was trained, and are read otherwise now: an "
                "older newslora trained it, or its recipe.toml was changed. Give held rows as data (--data FILE)."
            )
    return splits


def held_split(splits: Splits) -> str:
    """The name of those that trained nothing: the test rows where there are any, else the validation rows."""
    return "validation" if splits.test is None else "test"


def as_trained(settings: DataSettings, record: Mapping[str, Any]) -> DataSettings:
    """Settings that read one label a row or several as the run (its data.json) was trained, whatever is asked."""
    return settings.model_copy(update={"multi_label": bool(record.get("multi_label"))})


def given_rows(run: RunFolder, data: str, settings: DataSettings) -> ArticleSet:
    """Labelled rows of another source (its test split where it has splits), with the run's labels.

    The text is taken from the columns of the training where all are there and `settings` names no others.

    Raises:
        DataError: they cannot be read or used.
    """
    articles, _ = read_articles(*_as_given(run, data, settings))
    check_quarantine(articles, settings.max_quarantine_share, None)
    return articles


def given_reading(run: RunFolder, data: str, settings: DataSettings) -> str:
    """The `reading` that `given_rows` of the same would have.

    Raises:
        DataError: they cannot be read.
    """
    return reading_of(*_as_given(run, data, settings))


def _as_given(
    run: RunFolder, data: str, settings: DataSettings
) -> tuple[Source, str | None, DataSettings, LabelSet, Sequence[str]]:
    """How another source's rows are read with the run's labels."""
    record, source = run.data(), parse_source(data)
    spellings = make_label_set(tuple(record["labels"]), record["label_base"])
    usual = record["splits"]["train"]["text_columns"]
    return source, split_for(source, "test"), as_trained(settings, record), spellings, usual


def other_settings(run: RunFolder, data: str, used: DataSettings, articles: ArticleSet) -> dict[str, Any]:
    """Settings that read given rows otherwise than the run's own would, as JSON has them; nothing where they do not."""
    own = run.recipe().data
    found = {name: value for name in READING if (value := getattr(used, name)) != getattr(own, name)}
    with contextlib.suppress(DataError):  # its own cannot read them at all
        if found and given_reading(run, data, own) == articles.reading:
            return {}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def refuse_idle(changes: Mapping[str, Any] | None, data: object) -> None:
    """Refuse settings for reading rows where no rows are given: a run's own are read as they were in training.

    Raises:
        SettingsError: with the first of them.
    """
    if changes and data is None:
        raise SettingsError(
            f"'{next(iter(changes))}' is a setting (--set) for reading rows that are given as data (--data), and none are. "
            "Give them, or leave it out: the run's own rows are read as in its training."
        )


def _rows(split: Mapping[str, Any]) -> dict[str, Any]:
    """What data.json says of a split's rows; its hash knows them under any name of their source."""
    return {key: value for key, value in split.items() if key != "source"}
