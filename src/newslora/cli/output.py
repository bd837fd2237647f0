"""Standard output of a command: where it cannot be written, one error as of any other file; and standard error, where none."""

import contextlib
import os
import sys
from typing import Any, NoReturn, TextIO, cast

from newslora.data.lines import visible
from newslora.errors import StorageError


class Output:
    """A stream whose refusals are StorageErrors; in all else the stream itself."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: closed before we began, where Python's own print is silent too

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return len(text) if self._stream is None else self._stream.write(text)
        except OSError as error:
            self._refused(error)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> NoReturn:
        # what was refused is tried again at exit, where Python would complain of it: send it nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        if isinstance(error, BrokenPipeError):
            raise error
        raise StorageError(
            f"Cannot write standard output: {error.strerror or error}. To go on: free space, or send it elsewhere."
        ) from error


class Remarks(Output):
    """Standard error: what it refuses is left out, for no work may end, nor end with another code, because of a remark."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()

    def _refused(self, error: OSError) -> NoReturn:
        raise error


def complain(text: str) -> None:
    """Say what went wrong on standard error."""
    print(f"newslora: {visible(text)}", file=cast("TextIO", Remarks(sys.stderr)))
