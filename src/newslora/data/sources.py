"""A source's name -> raw rows, one at a time, bad ones included and marked.

Knows file formats and the hub; knows nothing of labels or text (articles.py does).
"""

import contextlib
import csv
import errno
import functools
import gzip
import hashlib
import io
import itertools
import json
import re
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from newslora.errors import DataError, MissingExtraError, NetworkError, NewsloraError, StorageError, near
from newslora.files import sha256_file

CORPUS = "corpus"  # the bundled corpus, as a source name
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
PACKED = (".gz", ".zst")
CELL_LIMIT = 10_000_000  # characters; a longer cell is a lost quote, not an article
ROLES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
HUB_WAIT = 5.0  # seconds the hub has to give any answer, before only what is on this disk is used
HUB_REMEMBERED = 60.0  # seconds that finding holds
CsvRecord = tuple[list[str], str | None]  # cells, and why they cannot be trusted, if they cannot
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
        path, named, stem = whole, None, text
    else:
        path, named = Path(stem).expanduser(), split
    if path.is_file():
        return Source(text, "file", str(path), named)
    if path.is_dir():
        kind = (
            "arrow" if any((path / name).exists() for name in ("dataset_dict.json", "dataset_info.json")) else "folder"
        )
        return Source(text, kind, str(path), named)
    looks_local = stem.startswith((".", "/", "~"))  # as written: Path drops a leading './' or str(path).count("/") > 1
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
    return tuple(_hub_data_set(source.location).info.splits)


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
    splits = available_splits(source)
    if split is not None and split not in splits:
        known = f"its splits are {', '.join(splits)}" if splits else "it has no splits"
        raise DataError(f"The source '{source.text}' has no split '{split}': {known}.{near(split, splits)}")
    if split is None and splits and "train" not in splits and source.kind != "folder":
        raise DataError(
            f"The data set '{source.location}' has no train split: its splits are {', '.join(splits)}. "
            f"Name one after a colon, as in '{source.location}:{splits[0]}'."
        )
    if source.kind == "hub":
        with _hub_errors(source.location):
            dataset = _hub_data_set(source.location).as_dataset(split=split or "train")
        return _dataset_table(dataset)
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
    with _reading(path):
        if path.stat().st_size == 0:
            raise DataError(f"The file {path} is empty. A data file has at least one row of text and label.")
        digest = sha256_file(path)
        label_names = _class_names(path.parent / "classes.txt")
        if kind == ".parquet":
            columns, rows = _parquet_rows(path)
            return Table(columns, _guarded(path, rows), True, digest, label_names)
        if kind in (".csv", ".tsv"):
            found, has_header, rows = _csv_rows(path, kind, header)
            return Table(found, _guarded(path, rows), has_header, digest, label_names)
        rows = json_rows(path)
        first = list(itertools.islice(rows, 100))
    if not first:
        raise DataError(f"The file {path} holds no rows. A data file has at least one row of text and label.")
    columns = tuple(dict.fromkeys(name for row in first for name in row.fields))
    if all(row.problem or not row.fields for row in first):
        reason = first[0].problem or "an object without fields"
        raise DataError(f"No row of {path} can be read; the first is {reason}. Give one object a line, or one array.")
    return Table(columns, _guarded(path, itertools.chain(first, rows)), True, digest, label_names)


def json_rows(path: Path) -> Iterator[RawRow]:
    """JSON lines, or one JSON array of objects -> rows; a line that is no object becomes a marked row."""
    with _open_text(path) as stream:
        start = stream.read(1)
        while start.isspace():
            start = stream.read(1)
        if start == "[":
            try:
                values = json.loads(start + stream.read())
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"The file {path} is not valid JSON: {error}. Give one object a line, or one array of objects."
                ) from None
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
    try:
        line = json.dumps(value)[:200]
    except RecursionError:
        line = "(nested too deeply to show)"
    return RawRow(number, {"line": line}, f"not a JSON object but {type(value).__name__}")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged or locked file makes its reader raise into a DataError."""
    try:
        yield
    except NewsloraError:
        raise
    except (OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:  # Arrow's own are among them
        raise DataError(f"The file {path} cannot be read to its end: {error}. Make or copy it again.") from error


def _guarded(path: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    with _reading(path):
        yield from rows


def _class_names(path: Path) -> tuple[str, ...] | None:
    """The lines of a classes.txt; None where there is none."""
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise DataError(f"The label names in {path} are not valid UTF-8. Save it as UTF-8, or remove it.") from None
    return tuple(line.strip() for line in lines if line.strip()) or None


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
        import pyarrow as pa

        raw = pa.input_stream(path, compression="zstd")  # zstandard.open ends a truncated file without a word
    else:
        raw = path.open("rb")
    stream = io.BufferedReader(raw)
    try:
        if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"The file {path} is UTF-16. Save it as UTF-8.")
    except BaseException:
        stream.close()
        raise
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_rows(path: Path, kind: str, header: bool | None) -> tuple[tuple[str, ...], bool, Iterator[RawRow]]:
    """Column names ('1', '2', ... without a header), whether there is one, and the rows."""
    from newslora.data.columns import is_header

    with _open_text(path) as peek:
        line = next((line for line in peek if line.strip()), "")
    # csv.Sniffer guesses wrongly on prose; the delimiter a first line holds most of is right for tables of text
    delimiter = "\t" if kind == ".tsv" else max(",;\t", key=line.count)
    csv.field_size_limit(CELL_LIMIT)
    records: Iterator[CsvRecord] = filter(any, _csv_records(path, delimiter))  # ([], None), a blank line, is not a row
    first, problem = next(records, (None, None))
    if first is None:
        raise DataError(f"The file {path} holds no rows. A data file has at least one row of text and label.")
    if problem is not None:
        raise DataError(f"The first row of {path} is {problem}. Repair or remove it.")
    has_header = is_header(first) if header is None else header
    if has_header:
        columns = tuple(name.strip() for name in first)
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise DataError(f"The file {path} names the column '{twice}' twice. Give each column its own name.")
    else:
        columns = tuple(str(number) for number in range(1, len(first) + 1))
        records = itertools.chain([(first, None)], records)
    return columns, has_header, _csv_fields(records, columns)


def _csv_records(path: Path, delimiter: str) -> Iterator[CsvRecord]:
    """Records, and why one cannot be trusted.

    A lost quote swallows lines until the cell limit or the end of the file: only the line that opens it is given up,
    the swallowed ones are read again.
    """
    with _open_text(path) as stream:
        again: deque[str] = deque()  # lines to be read once more
        taken: list[str] = []  # lines of the record being read
        ended = False

        def lines() -> Iterator[str]:
            nonlocal ended
            while line := again.popleft() if again else stream.readline():
                taken.append(line)
                yield line
            ended = True

        while True:
            for cells in _until_error(csv.reader(lines(), delimiter=delimiter)):
                if ended or cells is None:  # a record that wants more lines than there are has an open quote
                    break
                yield cells, None
                taken.clear()
            if not taken:
                return
            problem = f"not readable as CSV: a quote is never closed, or a cell has over {CELL_LIMIT:,} characters"
            yield [taken[0].rstrip("\r\n")[:200]], problem
            again.extendleft(reversed(taken[1:]))
            taken.clear()
            ended = False


def _until_error(reader: Iterator[list[str]]) -> Iterator[list[str] | None]:
    try:
        yield from reader
    except csv.Error:
        yield None


def _csv_fields(records: Iterator[CsvRecord], columns: tuple[str, ...]) -> Iterator[RawRow]:
    for number, (cells, problem) in enumerate(records, 1):
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

    def as_bytes(field: pa.Field) -> pa.Field:
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        return field.with_type(pa.large_binary()) if text else field

    def rows() -> Iterator[RawRow]:
        number = itertools.count(1)
        for batch in file.iter_batches(batch_size=4096):
            # as bytes, for pyarrow refuses a whole batch over one broken text; columns without a text type hold bytes too
            for fields in batch.cast(pa.schema(map(as_bytes, batch.schema))).to_pylist():
                yield RawRow(next(number), {name: _decoded(value) for name, value in fields.items()})

    return tuple(file.schema_arrow.names), rows()


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # the last two: JSON of another shape
        raise DataError(f"The folder {path} cannot be read as a save_to_disk data set: {error}.") from None


@functools.lru_cache(maxsize=8)
def _hub_data_set(name: str) -> Any:
    """The builder of a downloaded hub data set; kept, so that the hub is asked once and all splits are of one commit.

    Raises:
        DataError, NetworkError, StorageError, MissingExtraError: it cannot be had.
    """
    datasets = _datasets()
    before = datasets.config.HF_HUB_OFFLINE
    with _hub_errors(name):
        # its one switch for "use the cache": without it, the library asks a silent hub for minutes
        datasets.config.HF_HUB_OFFLINE = before or not hub_answers()
        try:
            builder = datasets.load_dataset_builder(name)
            builder.download_and_prepare()
            return builder
        finally:
            datasets.config.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _hub_errors(name: str) -> Iterator[None]:
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


_hub_found: tuple[float, bool] | None = None  # when the hub was last tried, and whether it answered


def hub_answers() -> bool:
    """Whether the hub gives any answer within HUB_WAIT seconds; found out at most once in HUB_REMEMBERED seconds.

    The hub libraries retry for half a minute a file on a refused connection, and far longer on a silent one, where the
    wait is per address of the host and the look-up of its name has no limit. Hence one limit here, over everything.
    """
    global _hub_found
    if _hub_found is None or time.monotonic() - _hub_found[0] > HUB_REMEMBERED:
        from huggingface_hub import constants, get_session

        answered = threading.Event()
        knock = functools.partial(_knock, get_session(), constants.ENDPOINT, answered)
        # a daemon, so that a name look-up that hangs does not keep the process alive
        asking = threading.Thread(target=knock, daemon=True)
        asking.start()
        asking.join(HUB_WAIT)
        _hub_found = (time.monotonic(), answered.is_set())
    return _hub_found[1]


def _knock(session: Any, address: str, answered: threading.Event) -> None:
    with contextlib.suppress(Exception):  # whatever it is, it is no answer
        if session.head(address, timeout=HUB_WAIT).status_code < 500:
            answered.set()


def hub_unreachable(error: BaseException) -> bool:
    """Whether this exception, or one behind it, says that the hub gave no answer: no network, offline mode, a failing hub.

    Told by what an exception is, not by its text, which quotes names the user chose.
    """
    for one in _behind(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status is not None:
            return status in (408, 429) or status >= 500
        # the hub's HTTP library is httpx or httpx2, by version; both name the base of 'no answer' TransportError
        names = {kind.__name__ for kind in type(one).__mro__}
        if isinstance(one, (ConnectionError, TimeoutError)) or names & {"LocalEntryNotFoundError", "TransportError"}:
            return True
    return False


def disk_refusal(error: BaseException) -> str | None:
    """What to do when the hub's cache cannot be written, or None when that is not the matter."""
    from huggingface_hub.constants import HF_HOME

    refused = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    for one in _behind(error):
        if isinstance(one, OSError) and one.errno in refused:
            return f"{one.strerror} ({one.filename or HF_HOME}). Free it, or name a folder elsewhere in HF_HOME."
    return None


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those it came from, latest first."""
    for _ in range(20):  # more than any library nests, and an end should one chain in a circle
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
