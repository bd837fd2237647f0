"""Data sets of Hugging Face's `datasets`, from the hub or from save_to_disk -> raw rows."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from newslora.data.lines import Meter
from newslora.data.readers import RawRow, Table
from newslora.errors import DataError, NetworkError, NewsloraError, StorageError, needing, one_line
from newslora.hub import disk_refusal, hub_answers, hub_unreachable


def dataset_table(dataset: Any) -> Table:
    """A datasets.Dataset -> Table; class numbers become their names."""
    from datasets import ClassLabel

    named = {name: feature.names for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)}
    inner = {name: getattr(feature, "feature", None) for name, feature in dataset.features.items()}  # of a list
    listed = {name: feature.names for name, feature in inner.items() if isinstance(feature, ClassLabel)}

    meter = Meter()

    def behind(number: int, end: int) -> Iterator[RawRow]:
        for place, fields in enumerate(dataset.skip(number), number + 1):
            meter.share = place / len(dataset)
            for column, names in named.items():
                fields[column] = _class_name(fields[column], names)
            for column, names in listed.items():
                values = fields[column]
                fields[column] = None if values is None else [_class_name(value, names) for value in values]
            yield RawRow(place, fields)

    digest = hashlib.sha256(str(dataset._fingerprint).encode()).hexdigest()
    names: Sequence[Sequence[str]] = list((named | listed).values())
    label_names = tuple(names[0]) if len(names) == 1 else None
    return Table(tuple(dataset.column_names), behind(0, 0), True, digest, label_names, behind, meter)


def _class_name(number: int | None, names: Sequence[str]) -> str | None:
    """None for a number that names no class: datasets marks what has no label by -1."""
    return names[number] if number is not None and 0 <= number < len(names) else None


def hub_table(name: str, split: str, where: str) -> Table:
    """A split of a downloaded hub data set, or slices of its splits, as 'train[:10%]' or 'train[10:20]+test'.

    Raises:
        DataError: slices that cannot be read; `where` is what the user wrote.
        NetworkError, StorageError, MissingExtraError: as `hub_data_set`.
    """
    builder = hub_data_set(name)
    if split not in builder.info.splits:
        _read_slices(split, {name: one.num_examples for name, one in builder.info.splits.items()}, where)
    with hub_errors(name):
        return dataset_table(builder.as_dataset(split=split))


def saved_table(loaded: Mapping[str, Any], split: str, where: str) -> Table:
    """The same of a data set from save_to_disk."""
    if split in loaded:
        return dataset_table(loaded[split])
    slices = _read_slices(split, {name: len(one) for name, one in loaded.items()}, where)
    parts = [loaded[one.splitname].select(range(one.from_, one.to)) for one in slices]
    return dataset_table(_datasets().concatenate_datasets(parts))


def is_sliced(split: str) -> bool:
    """Whether a split's name is not a name, but says which slices of which splits."""
    return "[" in split or "+" in split


def _read_slices(split: str, lengths: Mapping[str, int], where: str) -> Sequence[Any]:
    """Slices as `datasets` understands them, of splits of these lengths -> name, first and last row of each.

    Raises:
        DataError: it understands none, or one is empty.
    """
    try:
        slices: Sequence[Any] = _datasets().ReadInstruction.from_spec(split).to_absolute(dict(lengths))
        if empty := [one for one in slices if one.from_ >= one.to]:
            raise ValueError(f"rows {empty[0].from_} to {empty[0].to} of '{empty[0].splitname}' are none.")
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise DataError(
            f"The slice of '{where}' cannot be read: {reason}. Write it as the library datasets does, with whole numbers: "
            "NAME:train[:10%], NAME:train[100:200] or NAME:train[-5%:]+test."
        ) from None
    return slices


def _datasets() -> Any:
    with needing("Reading a hub or save_to_disk data set", "hub"):
        import datasets
    return datasets


def load_from_disk(path: Path) -> Any:
    try:
        return _datasets().load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # the last two: JSON of another shape
        raise DataError(f"The folder {path} cannot be read as a save_to_disk data set: {error}.") from None


@functools.lru_cache(maxsize=8)
def hub_data_set(name: str) -> Any:
    """The builder of a downloaded hub data set; kept, so that the hub is asked once and all splits are of one commit.

    Raises:
        DataError, NetworkError, StorageError, MissingExtraError: it cannot be had.
    """
    datasets = _datasets()
    before = datasets.config.HF_HUB_OFFLINE
    with hub_errors(name):
        # its one switch for "use the cache": without it, the library asks a silent hub for minutes
        datasets.config.HF_HUB_OFFLINE = before or not hub_answers()
        try:
            builder = datasets.load_dataset_builder(name)
            builder.download_and_prepare()
            return builder
        finally:
            datasets.config.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn the hub libraries' many exceptions into ours, by what the user can do."""
    try:
        yield
    except NewsloraError:
        raise
    except Exception as error:
        raise _hub_error(name, error) from error


def _hub_error(name: str, error: Exception) -> NewsloraError:
    from datasets.exceptions import DatasetNotFoundError

    text = one_line(error.__cause__ or error)
    local = "give a local file or folder (--data), or 'corpus' for the bundled one."
    if refusal := disk_refusal(error):
        return StorageError(f"The hub data set '{name}' cannot be stored: {refusal}")
    if hub_unreachable(error):
        return NetworkError(
            f"The data set '{name}' is a hub name and is not on this disk, and the hub could not be reached. Offline, {local}"
        )
    if "is a gated dataset" in str(error):
        return DataError(f"The hub data set '{name}' asks for its terms to be accepted and for `hf auth login`: {text}")
    if isinstance(error, DatasetNotFoundError):
        return DataError(
            f"'{name}' is neither a file here nor a data set on the hub that can be read without logging in. Check the "
            f"spelling (hub names are mostly OWNER/NAME, such as fancyzhx/ag_news), or {local}"
        )
    if "scripts are no longer supported" in text:
        return DataError(
            f"The hub data set '{name}' needs its own Python code, which newslora never runs. Download its rows "
            "and give them as a CSV, JSON lines or Parquet file (--data)."
        )
    if "Config name is missing" in text:
        known = text.partition("configs: ")[2].partition(" Example")[0]
        return DataError(
            f"The hub data set '{name}' has several configurations ({known.strip('[]')}), and newslora reads data sets of "
            "one. Save the one you want with datasets' save_to_disk, and give that folder (--data)."
        )
    return DataError(f"The hub data set '{name}' cannot be read ({type(error).__name__}): {text}")
