"""Anonymous memory of a process: what it holds itself, without the pages of mapped files, which the system takes back."""

import threading
from pathlib import Path
from types import TracebackType

INTERVAL = 0.02  # seconds between looks


def anonymous_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """Resident anonymous bytes (RssAnon, man 5 proc); None where the system does not tell."""
    try:
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


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
