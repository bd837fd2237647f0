"""A folder whose sub-folders are adapters: served under their names as they come, change and go.

A sub-folder counts once its card (adapters, exports) or its manifest (runs) is there, which are written last. One that is
half written or refused leaves what was served under its name as it is, and is tried again when something in it changes. No
sub-folder, whatever is the matter with it, keeps the others from being served.
"""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from newslora.errors import DrainingError, NewsloraError, SettingsError, UnknownAdapterError, needing
from newslora.model.adapter import CARD
from newslora.runfolder import RunFolder
from newslora.serving.keys import NAME, NAME_RULE

Stamp = tuple[tuple[str, int, int, int], ...]  # path inside, size, time of change in ns and inode of each file
Level = Literal["info", "warning", "error"]  # of a log
Tell = Callable[[Level, str, str], None]  # how bad, name of an adapter, a sentence on what became of it
REST_MS = 500  # how long a folder must be still before it is looked at (milliseconds)
LOOK_MS = 2000  # after this long without news it is looked at all the same (milliseconds)


class Holder(Protocol):
    """What loads and removes: a Service, or whoever stands before one."""

    def load(self, name: str, folder: Path) -> object: ...
    def remove(self, name: str) -> None: ...


class Watch:
    """Keeps a service as a folder is.

    Args:
        service: loads and removes.
        folder: the watched one.
        tell: told what was loaded, removed or refused.
        fixed: names that the folder does not touch, such as those given on the command line.

    Raises:
        SettingsError: no such folder.
    """

    def __init__(self, service: Holder, folder: Path, tell: Tell, fixed: tuple[str, ...] = ()) -> None:
        check_watched(folder)
        self.service, self.folder, self.tell, self.fixed = service, folder, tell, fixed
        self._seen: dict[str, Stamp] = {}
        self._served: set[str] = set()
        self._faults: dict[Path, str] = {}  # told, of folders that are left alone for now

    def look(self) -> None:
        """Load what is new or changed, remove what has gone; whatever fails is told. Blocks."""
        try:
            self._look()
        except Exception as error:  # noqa: BLE001 - the next look may go well
            self.tell("error", self.folder.name, f"looking at {self.folder} failed: {type(error).__name__}: {error}")

    def _look(self) -> None:
        try:
            found = self._found()
        except OSError as error:  # the watched folder itself: that is no word that its adapters are to go
            self._tell_faults({self.folder: f"cannot be watched now: {error.strerror or error}. What is served stays."})
            return
        for name in sorted(set(self._seen) - set(found)):
            del self._seen[name]
            if name in self._served:
                self._remove(name)
        for name, stamp in sorted(found.items()):
            if self._seen.get(name) != stamp:
                self._seen[name] = stamp
                self._load(name)

    @property
    def all_refused(self) -> bool:
        """Whether there are adapters and none of them is served."""
        return bool(self._seen) and not self._served

    def follow(self, stop: threading.Event) -> None:
        """Look now, and again whenever something in the folder has changed and come to rest, until told to stop. Blocks.

        Where the system cannot tell of changes, the folder is looked through every few seconds instead.

        Raises:
            MissingExtraError: watching needs the extra 'serve'.
        """
        with needing("Watching a folder", "serve"):
            from watchfiles import watch
        self.look()
        # also after a while without news: a network drive tells of nothing, and something may change before the first watch
        changes = partial(
            watch, self.folder, stop_event=stop, debounce=4 * REST_MS, step=REST_MS, raise_interrupt=False,
            rust_timeout=LOOK_MS, yield_on_timeout=True, ignore_permission_denied=True,
        )  # fmt: skip
        try:
            for _ in changes():
                self.look()
        except (OSError, RuntimeError) as error:  # such as no file or watch of the system's left: `look` raises nothing
            self.tell(
                "warning",
                self.folder.name,
                f"The system does not tell of changes in {self.folder} ({error}). It is looked through every "
                f"{LOOK_MS / 1000:g} s instead.",
            )
            for _ in changes(force_polling=True, poll_delay_ms=LOOK_MS):
                self.look()

    def _load(self, name: str) -> None:
        kept = " What was served under this name before is kept." if name in self._served else ""
        try:
            self.service.load(name, self.folder / name)
        except DrainingError:  # the server's end, and nothing is the matter with the folder
            return
        except (NewsloraError, OSError) as error:  # a file may go while it is read
            self.tell("warning", name, f"not loaded: {error}{kept}")
        except Exception as error:  # noqa: BLE001 - of ours, and no reason to look at no folder any more
            self.tell("error", name, f"not loaded, by a fault of newslora: {type(error).__name__}: {error}.{kept}")
        else:
            self._served.add(name)
            self.tell("info", name, "loaded")

    def _remove(self, name: str) -> None:
        self._served.discard(name)
        try:
            self.service.remove(name)
        except (UnknownAdapterError, DrainingError):  # removed by another hand; the server's end
            return
        self.tell("info", name, "removed: its folder has gone")

    def _found(self) -> dict[str, Stamp]:
        """Whole adapters by name, with what tells whether they have changed; of one that cannot be read now, what told last."""
        found: dict[str, Stamp] = {}
        faults: dict[Path, str] = {}
        for path in self.folder.iterdir():
            if path.name.startswith(".") or path.name in self.fixed:
                continue
            try:
                stamp = _whole(path)
            except OSError as error:  # such as lost+found
                faults[path] = f"left alone: it cannot be read ({error.strerror or error})."
                stamp = self._seen.get(path.name)
            if stamp is not None and NAME.fullmatch(path.name):
                found[path.name] = stamp
            elif stamp is not None:
                faults[path] = f"not loaded: '{path.name}' is not a valid adapter name. {NAME_RULE} Rename the folder."
        self._tell_faults(faults)
        return found

    def _tell_faults(self, faults: dict[Path, str]) -> None:
        """Each once, while it lasts."""
        for path, sentence in sorted(faults.items()):
            if self._faults.get(path) != sentence:
                self.tell("warning", path.name, sentence)
        self._faults = faults


def check_watched(folder: Path) -> None:
    """See that there is something to watch.

    Raises:
        SettingsError: no such folder.
    """
    if not folder.is_dir():
        raise SettingsError(f"There is no folder '{folder}' to watch. Make it, or name another.")


def _whole(path: Path) -> Stamp | None:
    """The stamp of a folder that holds a whole adapter; None: it does not."""
    if not path.is_dir():
        return None
    if (path / CARD).is_file():
        return _stamp(path)
    return _stamp(RunFolder(path).adapter) if RunFolder(path).complete else None


def _stamp(folder: Path) -> Stamp:
    """Of the files whose bytes decide an answer: a report written anew is no new version."""
    told = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            state = path.stat()
        except OSError:  # gone between the two calls
            continue
        if path.is_file() and path.suffix != ".md" and not path.name.startswith("."):
            told.append((path.name, state.st_size, state.st_mtime_ns, state.st_ino))
    return tuple(told)
