"""Data sets of Hugging Face's `datasets`, from the hub or from save_to_disk -> raw rows."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from newslora.data.lines import Meter
from newslora.data.readers import RawRow, Table
from newslora.errors import DataError, MissingExtraError, NetworkError, NewsloraError, StorageError
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
                value = fields[column]
                fields[column] = names[value] if value is not None and 0 <= value < len(names) else None
            for column, names in listed.items():
                values = fields[column]
                fields[column] = None if values is None else [names[value] for value in values]
            yield RawRow(place, fields)

    digest = hashlib.sha256(str(dataset._fingerprint).encode()).hexdigest()
    names: Sequence[Sequence[str]] = list((named | listed).values())
    label_names = tuple(names[0]) if len(names) == 1 else None
    return Table(tuple(dataset.column_names), behind(0, 0), True, digest, label_names, behind, meter)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("Reading a hub or save_to_disk data set", "hub") from None
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

    text = " ".join(str(error.__cause__ or error).split())[:300]
    local = "give a local file or folder with --data, or 'corpus' for the bundled one."
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
            "and give them as a CSV, JSON lines or Parquet file with --data."
        )
    if "Config name is missing" in text:
        known = text.partition("configs: ")[2].partition(" Example")[0]
        return DataError(
            f"The hub data set '{name}' has several configurations ({known.strip('[]')}), and newslora reads data sets of "
            "one. Save the one you want with datasets' save_to_disk, and give that folder with --data."
        )
    return DataError(f"The hub data set '{name}' cannot be read ({type(error).__name__}): {text}")
