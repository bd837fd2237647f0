"""A source's name -> raw rows, one at a time, bad ones included and marked.

Knows file formats and the hub; knows nothing of labels or text (articles.py does).
"""

import csv
import gzip
import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from newslora.errors import DataError, MissingExtraError, NetworkError, near
from newslora.files import sha256_file

CORPUS = "corpus"  # the bundled corpus, as a source name
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
PACKED = (".gz", ".zst")
CELL_LIMIT = 10_000_000  # characters; a longer cell is a lost quote, not an article
ROLES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One record as found. `problem` says why its fields cannot be trusted, if they cannot."""

    number: int  # 1-based, header not counted
    fields: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from: `kind` is 'file', 'folder' (split files), 'arrow' (save_to_disk) or 'hub'."""

    text: str  # as the user wrote it
    kind: str
    location: str  # path or hub name
    split: str | None

    @property
    def path(self) -> Path:
        return Path(self.location)


@dataclass(frozen=True, slots=True)
class Table:
    """An opened source: column names, rows to be read once, and a hash of what was read."""

    columns: tuple[str, ...]
    rows: Iterator[RawRow]
    has_header: bool
    sha256: str
    label_names: tuple[str, ...] | None = None  # a classes.txt beside the file, as AG News is shipped


def parse_source(text: str) -> Source:
    """`'corpus'`, `'news.csv.gz'`, `'folder:test'`, `'fancyzhx/ag_news'` -> Source.

    Raises:
        DataError: a path that does not exist, or a name that is neither path nor hub name.
    """
    if text == CORPUS or text.startswith(CORPUS + ":"):
        folder = Path(__file__).resolve().parent.parent / "corpus"
        return Source(text, "folder", str(folder), text.partition(":")[2] or None)
    whole = Path(text).expanduser()
    stem, colon, split = text.rpartition(":")
    if whole.exists() or not colon or not re.fullmatch(r"[\w.\-\[\]%]+", split):
        path, named = whole, None
    else:
        path, named = Path(stem).expanduser(), split
    if path.is_file():
        return Source(text, "file", str(path), named)
    if path.is_dir():
        kind = (
            "arrow" if any((path / name).exists() for name in ("dataset_dict.json", "dataset_info.json")) else "folder"
        )
        return Source(text, kind, str(path), named)
    looks_local = str(path).startswith((".", "/", "~")) or str(path).count("/") > 1
    if looks_local or _format(path) or not _HUB_NAME.fullmatch(str(path)):
        raise DataError(_not_found(path))
    return Source(text, "hub", str(path), named)


def available_splits(source: Source) -> tuple[str, ...]:
    """The splits a folder or hub data set has; () for a file, which is one split."""
    if source.kind == "file":
        return ()
    if source.kind == "folder":
        return tuple(sorted(_split_files(source.path)))
    if source.kind == "arrow":
        loaded = _load_from_disk(source.path)
        return tuple(loaded) if isinstance(loaded, dict) else ()
    with _hub_errors(source.location):
        return tuple(_datasets().get_dataset_split_names(source.location))


def split_for(source: Source, role: str) -> str | None:
    """The split of `source` that serves `role` ('train', 'validation', 'test'): the named one, else by convention."""
    if source.split is not None:
        return source.split
    return next((name for name in ROLES[role] if name in available_splits(source)), None)


def open_table(source: Source, split: str | None, header: bool | None = None) -> Table:
    """Open one split for reading.

    Args:
        source: from `parse_source`.
        split: one of `available_splits`, or None for a file.
        header: whether a CSV file's first line names its columns; None: found out.

    Raises:
        DataError: an empty or unreadable file, an unknown split or file type.
        NetworkError, MissingExtraError: for hub names.
    """
    if source.kind == "hub":
        with _hub_errors(source.location):
            return _dataset_table(_datasets().load_dataset(source.location, split=split or "train"))
    splits = available_splits(source)
    if split is not None and split not in splits:
        known = f"its splits are {', '.join(splits)}" if splits else "it has no splits"
        raise DataError(f"The source '{source.text}' has no split '{split}': {known}.{near(split, splits)}")
    if source.kind == "arrow":
        loaded = _load_from_disk(source.path)
        return _dataset_table(loaded[split or "train"] if isinstance(loaded, dict) else loaded)
    if source.kind == "folder":
        files = _split_files(source.path)
        if split is None and "train" not in files:
            raise DataError(
                f"The folder {source.path} holds no train split. Looked for train.csv, train.jsonl, train.parquet and the "
                f"like, or a save_to_disk folder; found: {', '.join(sorted(files)) or 'nothing readable'}."
            )
        return open_file(files[split or "train"], header)
    return open_file(source.path, header)


def open_file(path: Path, header: bool | None = None) -> Table:
    """Open a local file by its suffix; see `open_table`."""
    kind = _format(path)
    if kind is None:
        raise DataError(
            f"Cannot tell the format of {path}: its name ends in none of {', '.join(SUFFIXES)} "
            f"(each also with {' or '.join(PACKED)}). Rename it or convert it."
        )
    if path.stat().st_size == 0:
        raise DataError(f"The file {path} is empty. A data file has at least one row of text and label.")
    digest = sha256_file(path)
    classes = path.parent / "classes.txt"
    names = tuple(classes.read_text(encoding="utf-8").split("\n")) if classes.is_file() else ()
    label_names = tuple(name.strip() for name in names if name.strip()) or None
    if kind == ".parquet":
        columns, rows = _parquet_rows(path)
        return Table(columns, rows, True, digest, label_names)
    if kind in (".csv", ".tsv"):
        found, has_header, rows = _csv_rows(path, kind, header)
        return Table(found, rows, has_header, digest, label_names)
    rows = json_rows(_open_text(path))
    first = list(itertools.islice(rows, 100))
    if not first:
        raise DataError(f"The file {path} holds no rows. A data file has at least one row of text and label.")
    columns = tuple(dict.fromkeys(name for row in first for name in row.fields))
    return Table(columns, itertools.chain(first, rows), True, digest, label_names)


def json_rows(stream: IO[str]) -> Iterator[RawRow]:
    """JSON lines, or one JSON array of objects -> rows; a line that is no object becomes a marked row."""
    start = stream.read(1)
    while start.isspace():
        start = stream.read(1)
    if start == "[":
        try:
            values = json.loads(start + stream.read())
        except ValueError as error:
            raise DataError(f"Not valid JSON: {error}. Give one object a line, or one array of objects.") from None
        yield from (_json_row(number, value) for number, value in enumerate(values, 1))
        return
    number = 0
    for line in itertools.chain([start + stream.readline()], stream):
        if not line.strip():
            continue
        number += 1
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield RawRow(number, {"line": line.rstrip("\n")}, f"not JSON: {error}")
        else:
            yield _json_row(number, value)


def _json_row(number: int, value: Any) -> RawRow:
    if isinstance(value, dict):
        return RawRow(number, value)
    return RawRow(number, {"line": str(value)[:200]}, f"not a JSON object but {type(value).__name__}")


def _format(path: Path) -> str | None:
    """The suffix that names the format, compression looked through; None when unknown."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def _split_files(folder: Path) -> dict[str, Path]:
    """Files of a folder named after a split: {'train': folder/train.csv, ...}."""
    known = {name for names in ROLES.values() for name in names}
    return {
        split: path
        for path in sorted(folder.iterdir())
        if path.is_file() and _format(path) and (split := path.name.split(".")[0].lower()) in known
    }


def _not_found(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    beside = [item.name for item in folder.iterdir() if _format(item) or item.is_dir()]
    return f"There is no data file or folder '{path}' (looked in {folder.resolve()}).{near(path.name, beside)}"


def _open_text(path: Path) -> IO[str]:
    """UTF-8 text of a possibly compressed file; undecodable bytes become lone surrogates, found row by row later."""
    raw: Any
    if path.suffix.lower() == ".gz":
        raw = gzip.open(path, "rb")  # noqa: SIM115  # closed with the text stream over it
    elif path.suffix.lower() == ".zst":
        import zstandard

        raw = zstandard.open(path, "rb")
    else:
        raw = path.open("rb")
    if path.suffix.lower() not in PACKED:
        if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"The file {path} is UTF-16. Save it as UTF-8.")
        raw.seek(0)
    return io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_rows(path: Path, kind: str, header: bool | None) -> tuple[tuple[str, ...], bool, Iterator[RawRow]]:
    """Column names ('1', '2', ... without a header), whether there is one, and the rows."""
    from newslora.data.columns import is_header

    with _open_text(path) as peek:
        line = peek.readline()
    # csv.Sniffer guesses wrongly on prose; the delimiter a first line holds most of is right for tables of text
    delimiter = "\t" if kind == ".tsv" else max(",;\t", key=line.count)
    csv.field_size_limit(CELL_LIMIT)
    records = _csv_records(path, delimiter)
    first, problem = next(records, (None, None))
    if first is None:
        raise DataError(f"The file {path} holds no rows. A data file has at least one row of text and label.")
    has_header = is_header(first) if header is None else header
    if has_header:
        columns = tuple(name.strip() for name in first)
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise DataError(f"The file {path} names the column '{twice}' twice. Give each column its own name.")
    else:
        columns = tuple(str(number) for number in range(1, len(first) + 1))
        records = itertools.chain([(first, problem)], records)
    return columns, has_header, _csv_fields(records, columns)


def _csv_records(path: Path, delimiter: str) -> Iterator[tuple[list[str], str | None]]:
    with _open_text(path) as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        while True:
            try:
                yield next(reader), None
            except StopIteration:
                return
            except csv.Error as error:
                yield [], f"not readable as CSV: {error}"


def _csv_fields(records: Iterator[tuple[list[str], str | None]], columns: tuple[str, ...]) -> Iterator[RawRow]:
    number = 0
    for cells, problem in records:
        if not cells and problem is None:
            continue  # a blank line is not a row
        number += 1
        if problem is None and len(cells) != len(columns):
            problem = f"ragged line: {len(cells)} cells where {len(columns)} are expected"
        yield RawRow(number, dict(zip(columns, cells, strict=False)), problem)


def _parquet_rows(path: Path) -> tuple[tuple[str, ...], Iterator[RawRow]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"The file {path} cannot be read as Parquet: {error}.") from None

    def rows() -> Iterator[RawRow]:
        number = itertools.count(1)
        for batch in file.iter_batches(batch_size=4096):
            yield from (RawRow(next(number), fields) for fields in batch.to_pylist())

    return tuple(file.schema_arrow.names), rows()


def _dataset_table(dataset: Any) -> Table:
    """A datasets.Dataset -> Table; class numbers become their names."""
    from datasets import ClassLabel

    named = {name: feature.names for name, feature in dataset.features.items() if isinstance(feature, ClassLabel)}

    def rows() -> Iterator[RawRow]:
        for number, fields in enumerate(dataset, 1):
            for column, names in named.items():
                value = fields[column]
                fields[column] = names[value] if value is not None and 0 <= value < len(names) else None
            yield RawRow(number, fields)

    digest = hashlib.sha256(str(dataset._fingerprint).encode()).hexdigest()
    names: Sequence[Sequence[str]] = list(named.values())
    return Table(tuple(dataset.column_names), rows(), True, digest, tuple(names[0]) if len(names) == 1 else None)


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("Reading a hub or save_to_disk data set", "hub") from None
    return datasets


def _load_from_disk(path: Path) -> Any:
    try:
        return _datasets().load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"The folder {path} cannot be read as a save_to_disk data set: {error}.") from None


class _hub_errors:  # noqa: N801  # a context manager reads better in lower case
    """Turn the hub libraries' many exceptions into ours, by what the user can do."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (MissingExtraError, KeyboardInterrupt)):
            return
        from datasets.exceptions import DatasetNotFoundError

        reached = not isinstance(error, (ConnectionError, DatasetNotFoundError)) or "on the Hub" in str(error)
        if isinstance(error, ValueError) and "split" in str(error).lower():
            raise DataError(f"The hub data set '{self.name}' does not have that split: {error}.") from None
        if isinstance(error, DatasetNotFoundError) and reached and "cannot be accessed" not in str(error):
            raise DataError(
                f"'{self.name}' is neither a file here nor a data set on the hub ({error}). Check the spelling."
            ) from None
        if isinstance(error, Exception):
            raise NetworkError(
                f"The data set '{self.name}' is a hub name, and the hub could not be reached ({type(error).__name__}). "
                "Offline, give a local file or folder with --data, or 'corpus' for the bundled one."
            ) from error
