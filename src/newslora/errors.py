"""The exception tree. Every message names the value, what was allowed, and the way out.

Each class also inherits the builtin a caller would catch without knowing newslora, and carries the exit code of the
command line (listed in the README).
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence


class NewsloraError(Exception):
    """Base of every error a user can act on; anything else that escapes is a bug of ours."""

    exit_code = 1


class SettingsError(NewsloraError, ValueError):
    """A recipe, flag or argument has a value that cannot be used."""

    exit_code = 2


class DataError(NewsloraError, ValueError):
    """Rows cannot be found, read or used."""

    exit_code = 3


class LeakageError(DataError):
    """Rows of one split repeat rows of another, where that was not to be (`audit --strict`)."""

    exit_code = 1


class BackboneError(NewsloraError, ValueError):
    """A pretrained encoder cannot be found, read or adapted."""

    exit_code = 4


class RunError(NewsloraError, RuntimeError):
    """A run folder is missing, taken, incomplete or damaged, or training cannot go on."""

    exit_code = 5


class MissingExtraError(NewsloraError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 6

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the optional extra '{extra}': pip install 'newslora[{extra}]'.")


class NetworkError(NewsloraError, ConnectionError):
    """A hub name was asked for and the hub cannot be reached."""

    exit_code = 7


class UnknownAdapterError(NewsloraError, LookupError):
    """An adapter is asked for that is not loaded."""


class OverloadedError(NewsloraError):
    """The queue is full; `retry_after` seconds later it should not be."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineError(NewsloraError, TimeoutError):
    """The answer would come after the time it was asked for."""


class DrainingError(NewsloraError):
    """The service is ending and takes nothing new."""


class WorkerError(NewsloraError, RuntimeError):
    """A forward pass, or the thread that makes them, has failed."""


class CanaryError(RunError):
    """An adapter or export no longer gives the answers stored when it was made, or answers just as its bare backbone does."""


class StorageError(NewsloraError, OSError):
    """The disk refuses: full, read-only or failing."""

    exit_code = 8


class ExportError(NewsloraError, RuntimeError):
    """An export does not give the run's answers, or whether it does cannot be determined; it was not published."""

    exit_code = 9


class InterruptedRun(KeyboardInterrupt):
    """Work was stopped by Ctrl-C or SIGTERM after saving its state.

    No failure, and so no NewsloraError: a caller's `except Exception` must not go on as if one of many runs had gone wrong.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # the shell's own convention


@contextlib.contextmanager
def needing(purpose: str, extra: str) -> Iterator[None]:
    """Around the import of what an extra installs.

    Raises:
        MissingExtraError: it is not there.
    """
    try:
        yield
    except ImportError:
        raise MissingExtraError(purpose, extra) from None


def listed(words: Sequence[str], most: int) -> str:
    """Words with commas between them; dots in place of those beyond `most`."""
    return ", ".join(words[:most]) + (" ..." if len(words) > most else "")


def first_of(words: Sequence[str], most: int) -> str:
    """Words with commas between them; how many more there are beyond `most`."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def shortened(text: str, most: int) -> str:
    """A text whose characters beyond `most` are dots."""
    return text if len(text) <= most else text[:most] + "..."


def one_line(error: object, most: int = 300) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split())[:most]


def near(value: object, allowed: Iterable[str]) -> str:
    """A sentence offering the allowed words close to `value`; nothing when none is, or `value` is one of them or no word."""
    if not isinstance(value, str):
        return ""
    by_folded = {word.casefold(): word for word in allowed}
    if value in by_folded.values():
        return ""  # known, and out of reach for another reason
    close = difflib.get_close_matches(value.casefold(), by_folded, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(by_folded[word]) for word in close)}?" if close else ""
