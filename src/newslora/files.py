"""Writing files so that a crash leaves the old one or the new one, never half of one; and hashing them."""

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from newslora.errors import NewsloraError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_TOLD = re.compile(r"\(os error (\d+)\)")  # in the own errors of safetensors and tokenizers, which are Rust
_BREAKS = ("\x85", "\u2028", "\u2029")  # line ends to Unicode, and so to str.splitlines, which JSON lets stand bare


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system refusal while writing `path` into a StorageError that says what to do."""
    try:
        yield
    except NewsloraError:
        raise  # says more already, though NetworkError and StorageError are OSErrors too
    except Exception as error:
        refused = refusal(error)
        if refused is None:
            raise
        if refused.errno in _FULL:
            remedy = "free space or name another place (--output); nothing finished before was lost"
        else:
            remedy = "check that the place exists and may be written, or name another (--output)"
        raise StorageError(f"Cannot write {path}: {refused.strerror or refused}. To go on: {remedy}.") from error


def refusal(error: Exception) -> OSError | None:
    """The operating system's refusal that an exception is, or tells of; None where it is about something else."""
    if isinstance(error, OSError):
        return error
    told = _TOLD.search(str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


@contextlib.contextmanager
def atomic_path(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and takes `path`'s name in one step.

    Args:
        path: the file to write.
        mode: its permissions, and 0600 until then; None: what the umask leaves.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else 0o600)
        allowed = os.fstat(handle).st_mode & 0o777
        os.close(handle)
        try:
            yield temporary
            # what safetensors puts in its place would lock colleagues out of a shared folder
            os.chmod(temporary, allowed if mode is None else mode)
            flush_to_disk(temporary)
            os.replace(temporary, path)
            flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(lock: Path, target: Path, taken: NewsloraError, seconds: float = 0) -> Iterator[None]:
    """Held while a process writes `target`; the system frees it when that process dies, however it dies.

    Args:
        lock: the file that is locked.
        target: what it is for, in the message where the disk refuses.
        taken: raised where another process holds it.
        seconds: to wait for that one.

    Raises:
        StorageError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    with disk_errors(target):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=seconds)
        except Timeout:  # an OSError too, so it is caught inside
            raise taken from None
    try:
        yield
    finally:
        held.release()


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write `text` as UTF-8, atomically; `mode` as in `atomic_path`."""
    with atomic_path(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any, mode: int | None = None) -> None:
    """Write `value` as JSON, atomically; key order is kept, so equal values give equal bytes. `mode` as in `atomic_path`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", mode)


def write_csv(path: Path, heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file with a header, atomically; lines are taken one at a time."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(heads)
        writer.writerows(lines)


def json_line(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """`value` as one line of a JSON lines file, its end included: UTF-8 can write it, and no reader splits it.

    Args:
        value: what JSON can hold; lone surrogates, which stand for broken bytes, become escapes.
        default: makes of anything else something JSON can hold.
    """
    text = json_text(value, default)
    return unbroken(text.encode("utf-8", "backslashreplace").decode("utf-8")) + "\n"


def json_text(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """`value` as JSON that any reader takes: NaN and infinities, which JSON has no numbers for, are null."""
    try:
        return json.dumps(value, ensure_ascii=False, default=default, allow_nan=False)
    except ValueError:
        numbers = json.loads(json.dumps(value, default=default), parse_constant=lambda name: None)
        return json.dumps(numbers, ensure_ascii=False)


def unbroken(text: str) -> str:
    """JSON text with its bare line ends escaped; they stand in strings only."""
    for one in _BREAKS:
        text = text.replace(one, f"\\u{ord(one):04x}")
    return text


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        ValueError: it holds no JSON, or some that is nested beyond all reason.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """fsync a file or a folder: without it a rename may outlive the bytes it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
