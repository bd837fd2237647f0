"""Logs as JSON lines (structlog): one a request, never a text or a key."""

import contextlib
import json
import logging
import random
import sys
import threading
import traceback
from collections import deque
from typing import Any, TextIO

MOST_LINES = 256  # gathered before they are written at once
MOST_WAITING = 10_000  # lines kept for a stream that takes none for now
_IDS = random.Random()


def new_id() -> str:
    """A name for a request or an item, 32 hex digits; no secret. The system's random numbers would let go of Python's lock."""
    return f"{_IDS.getrandbits(128):032x}"


class Gathered:
    """Lines on their way to a stream, to be written several at a time, by a thread of their own.

    Writing lets go of Python's lock, and behind threads that compute gets it back late, while every other request waits; and a
    pipe whose reader stands still takes nothing for as long. A process that is killed loses what it has gathered since it last
    asked for writing. Lines that the stream refuses, as on a full disk, and those beyond what may wait are lost, and the next
    that it takes says how many: answers are worth more than their log. A stream's own buffer would write some of them later all
    the same, so it is gone past; of a line that was taken in part, the rest is what comes next.

    Args:
        stream: takes the lines; None, as Python has it where standard error was closed: nothing does.
    """

    def __init__(self, stream: TextIO | None) -> None:
        buffer = getattr(stream, "buffer", None)
        self._stream, self._raw = stream, getattr(buffer, "raw", buffer)
        self._gathering = threading.Lock()  # guards the next three; nobody writes while holding it
        self._lines = deque[str]()
        self._dropped = 0  # since lines were last taken from it
        self._writer: threading.Thread | None = None
        self._asked = threading.Event()
        self._writing = threading.Lock()  # guards what follows
        self._lost, self._rest = 0, b""

    def write(self, line: str) -> None:
        """One or more whole lines."""
        with self._gathering:
            if len(self._lines) == MOST_WAITING:
                self._lines.popleft()
                self._dropped += 1
            self._lines.append(line)
            many = len(self._lines) >= MOST_LINES
        if many:
            self.ask()

    def flush(self) -> None:
        """Nothing: a logger asks for it after every line."""

    def ask(self) -> None:
        """Let what there is be written soon; waits for nothing."""
        with self._gathering:
            if not self._lines:
                return
            if self._writer is None:
                self._writer = threading.Thread(target=self._keep_writing, name="newslora-log", daemon=True)
                self._writer.start()
        self._asked.set()

    def end(self, seconds: float) -> None:
        """Write what there is, or give up after so many seconds."""
        last = threading.Thread(target=self.write_out, name="newslora-log-end", daemon=True)
        last.start()
        last.join(seconds)

    def write_out(self) -> None:
        """Write what there is; waits for the stream."""
        with self._writing:
            with self._gathering:
                lines = list(self._lines)
                self._lines.clear()
                self._lost, self._dropped = self._lost + self._dropped, 0
            if not lines or self._stream is None:
                return
            lost = {"event": "log", "level": "warning", "lines_lost": self._lost}
            told = [json.dumps(lost) + "\n"] if self._lost else []
            begun = self._put([line.encode(errors="backslashreplace") for line in told + lines])
            self._lost = self._lost + len(lines) if begun < len(told) else len(told + lines) - begun

    def _keep_writing(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            self.write_out()

    def _put(self, lines: list[bytes]) -> int:
        """Write lines as far as the stream takes them; how many of them it has at least begun with."""
        data, written = self._rest + b"".join(lines), 0
        with contextlib.suppress(OSError):
            while written < len(data) and (taken := self._take(data[written:])):
                written += taken
        begun, end = 0, len(self._rest)
        while begun < len(lines) and end < written:
            end += len(lines[begun])
            begun += 1
        self._rest = data[written:end]
        return begun

    def _take(self, data: bytes) -> int:
        """How much the stream takes of it."""
        if self._raw is not None:
            return int(self._raw.write(data) or 0)  # None: a pipe that is full, and does not wait
        assert self._stream is not None
        self._stream.write(data.decode())
        self._stream.flush()
        return len(data)


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
