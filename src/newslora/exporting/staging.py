"""An export in the making: hidden beside its place until it is whole.

.NAME.XXXXXXXX.tmp/
    .lock   held by the process that makes it; the system frees it when that process dies, however it dies
    made/   the export, which becomes NAME
    old/    what NAME was, until the new one has its name
"""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from newslora import files
from newslora.errors import RunError
from newslora.model.exported import MANIFEST
from newslora.report.card import FILE as README

LOCK, MADE, OLD = ".lock", "made", "old"
_RANDOM = "?" * 8  # as many characters as mkdtemp puts into a name


def require_place(target: Path, replace: bool) -> None:
    """See that an export may be published as `target`.

    Raises:
        RunError: something stands there, and is not to be replaced, or holds files of someone else.
    """
    if not os.path.lexists(target) or (target.is_dir() and not target.is_symlink() and not any(target.iterdir())):
        return
    odd = _not_an_exports(target)
    if odd is None and replace:
        return
    if odd is None:
        raise RunError(
            f"{target} holds an export already: put the new one in its place with --replace (replace=True), or name "
            "another place (--output)."
        )
    why = f", and replacing (--replace) takes the place of an export only ({odd})" if replace else ""
    raise RunError(f"{target} exists and is not empty{why}: name another place (--output), or remove it.")


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """An empty hidden folder for an export that is to be `target`; gone at the end, unless it was published.

    Raises:
        StorageError: the disk refuses.
    """
    from filelock import FileLock

    with files.disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # under a name that nobody removes, until the lock is held
        new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".new"))
        lock = FileLock(new / LOCK)
        lock.acquire(timeout=0)
        folder = new.rename(new.with_suffix(".tmp"))
        try:
            (folder / MADE).mkdir()
            yield folder / MADE
        finally:
            _end(folder, target)
            lock.release()


def publish(made: Path, target: Path) -> None:
    """Give a folder from `staging` its name.

    Between the two renames of a replacement nothing has it; broken off there, the old one is put back, by `discard_left` if
    need be.
    """
    if os.path.lexists(target) and any(target.iterdir()):
        target.rename(made.with_name(OLD))
    made.rename(target)
    files.flush_to_disk(target.parent)


def discard_left(parent: Path, name: str | None = None) -> None:
    """Remove what exports that were killed left in a folder: hidden ones whose maker is no longer alive.

    Args:
        parent: where the exports are.
        name: of the export; None: any.
    """
    from filelock import FileLock

    for folder in parent.glob(f".{'*' if name is None else glob.escape(name)}.{_RANDOM}.tmp"):
        if not (folder / LOCK).is_file():
            continue  # not of this module
        with contextlib.suppress(OSError), FileLock(folder / LOCK, timeout=0):  # a Timeout: somebody is at work in it
            _end(folder, parent / folder.name[1 : -len(f".{_RANDOM}.tmp")])


def _end(folder: Path, target: Path) -> None:
    """Put back what was taken away for nothing, then remove all, the lock at last: without it the rest would never go."""
    if (folder / OLD).is_dir() and not os.path.lexists(target):
        (folder / OLD).rename(target)
    for part in (folder / OLD, folder / MADE, folder):
        shutil.rmtree(part, ignore_errors=True)


def _not_an_exports(target: Path) -> str | None:
    """What tells that a folder is no export, or not only one; None where it is one."""
    if target.is_symlink() or not target.is_dir():
        return "it is not a folder"
    try:
        named = set(files.read_json(target / MANIFEST)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has no {MANIFEST} that can be read"
    others = sorted(path.name for path in target.iterdir() if path.name not in named | {MANIFEST, README})
    return f"it also holds {others[0]}" if others else None
