"""Anonymous memory of a process: what it holds itself, without the pages of mapped files, which the system takes back."""

import threading
from pathlib import Path
from types import TracebackType

INTERVAL = 0.02  # seconds between looks


def status_bytes(field: str, status: Path = Path("/proc/self/status")) -> int | None:
    """A field of the process's status in bytes (man 5 proc); None where the system does not tell."""
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def anonymous_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """Resident anonymous bytes; None where the system does not tell."""
    return status_bytes("RssAnon", status)


class AnonymousPeak:
    """The most anonymous memory seen while this is open. The kernel keeps no high-water mark of it, so a thread looks."""

    def __init__(self) -> None:
        self.peak = anonymous_memory()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "AnonymousPeak":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            now = anonymous_memory()
            if now is not None and self.peak is not None:
                self.peak = max(self.peak, now)
