"""Columns of numbers that may outgrow memory: held while small, else in a file that the system maps in and out.

A `Spool` takes numbers as they come. What is to be found again lies in the cache as a safetensors file, whose header also
holds its checksum; reading one maps it, so its pages are the system's to reclaim.
"""

import contextlib
import json
import os
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from newslora import files
from newslora.errors import StorageError
from newslora.runtime import cache_folder

FEW = 2**20  # rows up to which their order stays in memory: 8 MiB
CHUNK = 2**16  # rows worked on at once where there are more
SPILL = 4 * 2**20  # bytes up to which a column stays in memory
CACHE_LIMIT = 5_000_000_000  # bytes of each folder of the cache; the least recently used files go first
PIECE = 2**20  # bytes read or written at once
Columns = dict[str, NDArray[Any]]
BUFFER = 4096  # single numbers or texts gathered before they are written
_NAMES = {"int64": "I64", "int32": "I32", "uint8": "U8"}  # numpy's and safetensors' names


class Spool:
    """One column being written, from front to back: in memory up to `SPILL`, then in a file without a name."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._memory = bytearray()
        self._file: IO[bytes] | None = None  # once it is needed
        self._held: list[int] = []

    def add(self, number: int) -> None:
        """Append one number."""
        self._held.append(number)
        if len(self._held) == BUFFER:
            self._flush()

    def extend(self, numbers: NDArray[Any] | bytes) -> None:
        """Append many; bytes count as numbers of one byte."""
        self._flush()
        self._write(numbers if isinstance(numbers, bytes) else np.asarray(numbers, self.dtype).tobytes())

    @property
    def spilled(self) -> bool:
        """Whether it has outgrown memory."""
        return self._file is not None

    def array(self) -> NDArray[Any]:
        """All of it, read-only: mapped where it lies in a file."""
        self._flush()
        if self._file is None:
            return np.frombuffer(bytes(self._memory), self.dtype)
        self._file.flush()
        return np.asarray(np.memmap(self._file, self.dtype, "r", shape=(self._file.tell() // self.dtype.itemsize,)))

    def _flush(self) -> None:
        if self._held:
            self._write(np.array(self._held, self.dtype).tobytes())
            self._held.clear()

    def _write(self, content: bytes) -> None:
        if self._file is None and len(self._memory) + len(content) <= SPILL:
            self._memory += content
            return
        folder = _spill_folder()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # lives as long as this
                weakref.finalize(self, self._file.close)  # what is mapped stays
                self._file.write(self._memory)
                self._memory.clear()
            self._file.write(content)
        except OSError as error:
            raise StorageError(
                f"Rows cannot be laid down in {folder}: {error.strerror or error}. Free space there, or set "
                "NEWSLORA_CACHE to a folder on another disk."
            ) from error


def _spill_folder() -> Path:
    """The cache's, which lies on a disk, where it may be written: the system's temporary folder may lie in memory."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.gettempdir())


def chunks(count: int) -> Iterator[tuple[int, int]]:
    """The bounds of `CHUNK` places at a time."""
    return ((start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def gathered(column: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """`column[places]`, in a file where there are many."""
    if len(places) <= CHUNK:
        return column[places]
    spool = Spool(column.dtype)
    for start, stop in chunks(len(places)):
        spool.extend(column[places[start:stop]])
    return spool.array()


def all_but(count: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers below `count` without those at `places`, which ascend."""
    spool = Spool(np.int64)
    for start, stop in chunks(count):
        here = places[np.searchsorted(places, start) : np.searchsorted(places, stop)]
        spool.extend(np.delete(np.arange(start, stop), here - start))
    return spool.array()


def kept(path: Path, columns: Columns, notes: Mapping[str, Any]) -> Columns:
    """Write columns into the cache and map them from there; where it cannot be written, they stay as they are."""
    try:
        write_columns(path, columns, notes)
        trim(path)
    except (StorageError, OSError):
        return columns  # a cache that cannot be written costs time, not the run
    found = read_columns(path)
    return columns if found is None else found[0]


def write_columns(path: Path, columns: Columns, notes: Mapping[str, Any]) -> None:
    """Columns of int64, int32 or uint8, and JSON to keep beside them -> one safetensors file, atomically, at any size.

    The library's own writer wants every tensor in memory; the format is a length, a JSON header and the bytes
    (https://huggingface.co/docs/safetensors, "Format").
    """
    order = sorted(columns, key=lambda name: -columns[name].dtype.itemsize)  # widest first: then all lie aligned
    tensors: dict[str, Any] = {}
    end = 0
    for name in order:
        start, end = end, end + columns[name].nbytes
        dtype = _NAMES[columns[name].dtype.name]
        tensors[name] = {"dtype": dtype, "shape": list(columns[name].shape), "data_offsets": [start, end]}
    facts = json.dumps(notes)
    check = _start(tensors, facts)
    for name in order:
        for piece in _pieces(columns[name]):
            check = zlib.crc32(piece, check)
    header = json.dumps({"__metadata__": {"notes": facts, "crc32": str(check)}, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            for piece in _pieces(columns[name]):
                stream.write(piece)


def read_columns(path: Path) -> tuple[Columns, Any] | None:
    """A file of `write_columns` -> its columns, mapped where large, and its notes; None where it is absent or damaged."""
    try:
        small = path.stat().st_size <= SPILL  # a mapped file that is cut short under its reader ends the process
        raw = np.fromfile(path, np.uint8) if small else np.asarray(np.memmap(path, np.uint8, "r"))
        raw.flags.writeable = False
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        if start > len(raw):
            return None
        tensors = json.loads(raw[8:start].tobytes())
        metadata = tensors.pop("__metadata__")
        check = _start(tensors, metadata["notes"])
        for piece in _pieces(raw[start:]):
            check = zlib.crc32(piece, check)
        if str(check) != metadata["crc32"]:
            return None
        dtypes = {theirs: ours for ours, theirs in _NAMES.items()}
        columns = {}
        for name, tensor in tensors.items():
            first, last = tensor["data_offsets"]
            columns[name] = raw[start + first : start + last].view(dtypes[tensor["dtype"]])
        notes = json.loads(metadata["notes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    with contextlib.suppress(OSError):  # a cache shared read-only still serves
        path.touch()  # recently used, for the size limit
    return columns, notes


def trim(newest: Path) -> None:
    """Keep the folder of `newest` within `CACHE_LIMIT`; a mapped file lives on until its reader ends."""
    held = sorted(newest.parent.glob(f"*{newest.suffix}"), key=lambda item: item.stat().st_mtime, reverse=True)
    size = 0
    for path in held:
        size += path.stat().st_size
        if size > CACHE_LIMIT and path != newest:
            with contextlib.suppress(OSError):
                path.unlink()


def _start(tensors: Mapping[str, Any], facts: str) -> int:
    """The checksum begins with what the header says: a flipped bit there would read other columns."""
    return zlib.crc32(json.dumps([tensors, facts], sort_keys=True).encode())


def _pieces(column: NDArray[Any]) -> Iterator[memoryview]:
    view = np.ascontiguousarray(column).data.cast("B") if column.size else memoryview(b"")
    return (view[start : start + PIECE] for start in range(0, len(view), PIECE))
