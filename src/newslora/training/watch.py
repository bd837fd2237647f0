"""Who looks on while a run trains."""

import logging
from typing import Any, Protocol


class Watcher(Protocol):
    """Told what happens; the command line draws a progress bar, a library call reports to standard logging."""

    def start(self, total_steps: int, done_steps: int) -> None:
        """Training begins, or continues after `done_steps`."""

    def step(self, rows: int, loss: float) -> None:
        """An optimiser step over `rows` rows, of this mean loss, is done."""

    def epoch(self, entry: dict[str, Any]) -> None:
        """An epoch was evaluated: epoch, train_loss, validation_loss, validation_accuracy, ..., best."""

    def note(self, text: str) -> None:
        """Something a person wants to know."""

    def warn(self, text: str) -> None:
        """Something that is probably not meant."""

    def stop(self) -> None:
        """Training ended, well or not."""


class Silent:
    """Nobody looks on."""

    def start(self, total_steps: int, done_steps: int) -> None: ...
    def step(self, rows: int, loss: float) -> None: ...
    def epoch(self, entry: dict[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def stop(self) -> None: ...


ASKED = tuple(name for name in vars(Silent) if not name.startswith("_"))  # of every watcher


class Logged(Silent):
    """Standard logging as 'newslora': epochs and notes as information, and warnings, which Python shows by default."""

    def __init__(self) -> None:
        self._log = logging.getLogger("newslora")

    def epoch(self, entry: dict[str, Any]) -> None:
        found = (f"{name} {value:.4f}" for name, value in entry.items() if isinstance(value, float))
        self._log.info("epoch %d: %s", entry["epoch"], ", ".join(found))

    def note(self, text: str) -> None:
        self._log.info("%s", text)

    def warn(self, text: str) -> None:
        self._log.warning("%s", text)
