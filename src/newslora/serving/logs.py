"""Logs as JSON lines (structlog): one a request, never a text or a key."""

import contextlib
import json
import logging
import random
import sys
import traceback
from collections import deque
from typing import Any, TextIO

MOST_LINES = 256  # gathered before they are written at once
_IDS = random.Random()


def new_id() -> str:
    """A name for a request or an item, 32 hex digits; no secret. The system's random numbers would let go of Python's lock."""
    return f"{_IDS.getrandbits(128):032x}"


class Gathered:
    """Lines on their way to a stream, to be written several at a time.

    Writing lets go of Python's lock, and behind threads that compute gets it back late, while every other request waits. A
    process that is killed loses what it has gathered since the last `write_out`. Lines that the stream refuses, as on a full
    disk, are lost, and the next that it takes says how many: answers are worth more than their log.

    Args:
        stream: takes the lines; None, as Python has it where standard error was closed: nothing does.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._lines = stream, deque[str]()
        self._lost = 0

    def write(self, line: str) -> None:
        """One or more whole lines."""
        self._lines.append(line)
        if len(self._lines) >= MOST_LINES:
            self.write_out()

    def flush(self) -> None:
        """Nothing: a logger asks for it after every line."""

    def write_out(self) -> None:
        """Write what there is; any thread may."""
        lines = []
        with contextlib.suppress(IndexError):  # none are left
            while True:
                lines.append(self._lines.popleft())
        if not lines or self._stream is None:
            return
        told = [json.dumps({"event": "log", "level": "warning", "lines_lost": self._lost}) + "\n"] if self._lost else []
        try:
            self._stream.write("".join(told + lines))
            self._stream.flush()
        except OSError:
            self._lost += len(lines)
        else:
            self._lost = 0


def make_log(stream: TextIO | Gathered | None = None) -> Any:
    """A logger that writes a JSON line an event, with the time in UTC."""
    import structlog

    target: Any = sys.stderr if stream is None else stream
    return structlog.wrap_logger(
        structlog.WriteLogger(target),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=True,
    )


def where(error: BaseException) -> list[str]:
    """The places an exception went through. Its message is left out, for it may quote a text."""
    return [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-12:]
    ]


class Forward(logging.Handler):
    """Takes what libraries log by themselves into the same JSON lines, from warnings up."""

    def __init__(self, log: Any, event: str) -> None:
        super().__init__(logging.WARNING)
        self._log, self._event = log, event

    def emit(self, record: logging.LogRecord) -> None:
        details: dict[str, Any] = {} if self._event == "server" else {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            details |= {"error": type(record.exc_info[1]).__name__, "where": where(record.exc_info[1])}
        self._log.warning(self._event, message=record.getMessage().strip(), **details)


def forward_server_logs(log: Any) -> None:
    """Let uvicorn's loggers, and all that have no handler of their own, Python's warnings too, write through `log` alone."""
    logging.getLogger().addHandler(Forward(log, "library"))
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [Forward(log, "server")] if name == "uvicorn.error" else []
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
