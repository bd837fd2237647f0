"""Who looks on while a run trains."""

from typing import Any, Protocol


class Watcher(Protocol):
    """Told what happens; the command line draws a progress bar, a library call watches in silence."""

    def start(self, total_steps: int, done_steps: int) -> None:
        """Training begins, or continues after `done_steps`."""

    def step(self, rows: int, loss: float) -> None:
        """An optimiser step over `rows` rows, of this mean loss, is done."""

    def epoch(self, entry: dict[str, Any]) -> None:
        """An epoch was evaluated: epoch, train_loss, validation_loss, validation_accuracy, ..., best."""

    def note(self, text: str) -> None:
        """Something a person wants to know."""

    def stop(self) -> None:
        """Training ended, well or not."""


class Silent:
    """Nobody looks on."""

    def start(self, total_steps: int, done_steps: int) -> None: ...
    def step(self, rows: int, loss: float) -> None: ...
    def epoch(self, entry: dict[str, Any]) -> None: ...
    def note(self, text: str) -> None: ...
    def stop(self) -> None: ...
