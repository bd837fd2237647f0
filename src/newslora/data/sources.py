"""A source's name -> its table of raw rows: a file, a folder of split files, a save_to_disk folder, a database or a hub name.

Knows nothing of labels or text (articles.py does).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from newslora.config import is_database
from newslora.data.databases import database_table, split_address
from newslora.data.hubsets import dataset_table, hub_data_set, hub_table, is_sliced, load_from_disk, saved_table
from newslora.data.readers import Table, file_format, open_file
from newslora.errors import DataError, NewsloraError, listed, near, shortened

CORPUS = "corpus"  # the bundled corpus, as a source name
ROLES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
CHARACTERS_SHOWN = 200  # of a name that is none
FILES_SHOWN = 5  # of one split
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # as the hub names the parts of a split, often the only one
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_NAMED = re.compile(r"(.+):([\w.+\-%\]]+)")  # 'name:split'
_SLICED = re.compile(r"(.+?):([\w.+\-]*\[[^/]*)")  # 'name:train[:10%]+test[5:]', whose slices hold colons too


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from: `kind` is 'file', 'folder' (split files), 'arrow' (save_to_disk), 'database' or 'hub'."""

    text: str  # as the user wrote it
    kind: str
    location: str  # path or hub name
    split: str | None

    @property
    def path(self) -> Path:
        return Path(self.location)

    @property
    def whole(self) -> "Source":
        """The same without the split that was named."""
        return self if self.split is None else replace(self, text=self.text.removesuffix(f":{self.split}"), split=None)


def parse_source(text: str | os.PathLike[str]) -> Source:
    """`'corpus'`, `'news.csv.gz'`, `'folder:test'`, `'sqlite:///corrections.db'`, `'fancyzhx/ag_news:train[:10%]'` -> Source.

    Raises:
        DataError: a path that does not exist, a name that is neither path nor hub name, or an address with a password.
    """
    if isinstance(text, os.PathLike):
        text = os.fspath(text)
    if not isinstance(text, str):
        raise DataError(
            f"A source of rows is the name of a file, folder or hub data set, not {type(text).__name__}. Write rows in memory "
            "to a CSV or Parquet file first, a data set of `datasets` with save_to_disk. newslora.train and newslora.evaluate "
            "take a frame of pandas or polars as it is."
        )
    if not text:  # an empty path would be the current folder
        raise DataError("A source of rows has an empty name. Name a file, a folder or a hub data set.")
    if text == CORPUS or text.startswith(CORPUS + ":"):
        folder = Path(__file__).resolve().parent.parent / "corpus"
        return Source(text, "folder", str(folder), text.partition(":")[2] or None)
    if is_database(text):
        split_address(text)
        return Source(text, "database", text, None)
    with _looking(text):
        whole = Path(text).expanduser()
        parted = None if whole.exists() else _SLICED.fullmatch(text) or _NAMED.fullmatch(text)
        stem, named = (text, None) if parted is None else parted.groups()
        path = Path(stem).expanduser()
        if path.is_file():
            return Source(text, "file", str(path), named)
        if path.is_dir():
            saved = any((path / name).exists() for name in ("dataset_dict.json", "dataset_info.json"))
            return Source(text, "arrow" if saved else "folder", str(path), named)
        if path.exists():
            raise DataError(
                f"'{path}' is no regular file but a pipe or device, and a source is read more than once. Write it to a file."
            )
    looks_local = stem.startswith((".", "/", "~"))  # as written: Path drops a leading './' or str(path).count("/") > 1
    if looks_local or file_format(path) or not _HUB_NAME.fullmatch(str(path)):
        raise DataError(_not_found(path))
    return Source(text, "hub", str(path), named)


def parse_again(text: str, folder: str | None) -> Source:
    """`parse_source` of what a run was made of: a file that does not lie under its name here is looked for in the folder
    the run was trained in; None: nobody knows which."""
    if folder is not None and not _lies_here(text):
        with contextlib.suppress(DataError):
            there = parse_source(_seen_from(folder, text))
            if source_files(there):
                return replace(there, text=text)
    return parse_source(text)


def is_relative(source: Source) -> bool:
    """Whether its files are found from one working directory only."""
    return any(not path.is_absolute() for path in source_files(source))


def _lies_here(text: str) -> bool:
    try:
        return bool(source_files(parse_source(text)))
    except DataError:
        return False


def _seen_from(folder: str, text: str) -> str:
    if not is_database(text):
        return str(Path(folder) / text)
    start, slashes, path = text.partition(":///")
    return f"{start}{slashes}{Path(folder) / path}"  # which is `path` where that is absolute


def available_splits(source: Source) -> tuple[str, ...]:
    """The splits a folder or hub data set has; () for a file or database, which is one split."""
    if source.kind in ("file", "database"):
        return ()
    if source.kind == "folder":
        return tuple(sorted(_split_files(source.path)))
    if source.kind == "arrow":
        loaded = load_from_disk(source.path)
        return tuple(loaded) if isinstance(loaded, dict) else ()
    return tuple(hub_data_set(source.location).info.splits)


def split_for(source: Source, role: str) -> str | None:
    """The split of `source` that serves `role` ('train', 'validation', 'test'): the named one, else by convention."""
    if source.split is not None:
        return source.split
    return next((name for name in ROLES[role] if name in available_splits(source)), None)


def source_files(source: Source) -> tuple[Path, ...]:
    """The files on this machine that a source is read from, all its splits; () for the hub and for servers."""
    if source.kind == "folder":
        return tuple(_split_files(source.path).values())
    if source.kind == "arrow":
        return tuple(path for path in source.path.rglob("*") if path.is_file())
    if source.kind == "database":  # 'sqlite:///corrections.db#news'; behind 'postgresql:///' stands a server's database
        if not source.location.startswith("sqlite"):
            return ()
        path = Path(split_address(source.location)[0].partition("///")[2].partition("?")[0])
    else:
        path = source.path
    return (path,) if source.kind != "hub" and path.is_file() else ()


def open_table(source: Source, split: str | None, header: bool | None = None) -> Table:
    """Open one split for reading.

    Args:
        source: from `parse_source`.
        split: one of `available_splits`, or slices of those of a data set of `datasets`; None for a file.
        header: whether a CSV file's first line names its columns; None: found out.

    Raises:
        DataError: an empty or unreadable file, an unknown split or file type, slices that cannot be read.
        NetworkError, MissingExtraError, StorageError: for hub names and databases.
    """
    splits = available_splits(source)
    if split is not None and split not in splits and not (splits and _can_slice(source) and is_sliced(split)):
        known = f"its splits are {', '.join(splits)}" if splits else "it has no splits"
        hint = near(split, splits)
        if is_sliced(split) and not _can_slice(source):
            hint = (
                " Only data sets of the hub or of save_to_disk can be sliced; data.train_rows draws rows of any source."
            )
        raise DataError(f"The source '{source.text}' has no split '{split}': {known}.{hint}")
    if split is None and splits and "train" not in splits and source.kind != "folder":
        raise DataError(
            f"The data set '{source.location}' has no train split: its splits are {', '.join(splits)}. "
            f"Name one after a colon, as in '{source.location}:{splits[0]}'."
        )
    if source.kind == "database":
        return database_table(source.location)
    if source.kind == "hub":
        return hub_table(source.location, split or "train", source.text)
    if source.kind == "arrow":
        loaded = load_from_disk(source.path)
        return saved_table(loaded, split or "train", source.text) if isinstance(loaded, dict) else dataset_table(loaded)
    if source.kind == "folder":
        files = _split_files(source.path)
        if split is None and "train" not in files:
            raise DataError(
                f"The folder {source.path} holds no train split. Looked for train.csv, train.jsonl, train.parquet and the "
                f"like, or a save_to_disk folder; found: {', '.join(sorted(files)) or 'nothing readable'}."
            )
        return open_file(files[split or "train"], header)
    return open_file(source.path, header)


def _can_slice(source: Source) -> bool:
    return source.kind in ("hub", "arrow")


def _split_files(folder: Path) -> dict[str, Path]:
    """Files of a folder named after a split: {'train': folder/train.csv, ...}."""
    known = {name for names in ROLES.values() for name in names}
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        split = _SHARD.sub("", path.name.split(".")[0].lower())
        if split in known and file_format(path) and path.is_file():
            found.setdefault(split, []).append(path)
    for split, paths in found.items():
        if len(paths) > 1:
            names = listed([path.name for path in paths], FILES_SHOWN)
            raise DataError(
                f"The folder {folder} holds {len(paths)} files of its split '{split}': {names}. A split is one file: join "
                f"them or move the others away, or name one itself, as in '{paths[0]}'."
            )
    return {split: paths[0] for split, paths in found.items()}


@contextlib.contextmanager
def _looking(text: str) -> Iterator[None]:
    """Turn what the system says to a name that can be no path, or one out of reach, into a DataError."""
    try:
        yield
    except NewsloraError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: '~nobody'
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"There is no data file '{shortened(text, CHARACTERS_SHOWN)}' that can be read: {reason}.{_text_way(text)}"
        ) from None


def _text_way(text: str) -> str:
    """What to do where the name of a source has blanks in it, as a text has."""
    way = " A text to be classified comes on standard input: echo 'TEXT' | newslora predict RUN -"
    return way if any(map(str.isspace, text)) else ""


def _stem(name: str) -> str:
    """A name without its endings, in which names of data files are alike that have nothing in common."""
    return name.split(".")[0].casefold()


def _not_found(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    there = [item.name for item in folder.iterdir() if file_format(item) or item.is_dir()]
    beside = [name for name in there if near(_stem(path.name), [_stem(name)]) or _stem(name) == _stem(path.name)]
    name = shortened(str(path), CHARACTERS_SHOWN)
    missing = f"There is no data file or folder '{name}' (looked in {folder.resolve()})."
    return missing + near(path.name, beside) + _text_way(path.name)
