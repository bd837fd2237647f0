"""Log lines on their way to a reader that stands still."""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest
from process_parts import FIXED, TEXT, started

from newslora.serving import logs
from newslora.serving.logs import MOST_LINES, Gathered, make_log

PIPE = 4096  # bytes it holds: the least there are


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, IO[str]]]:
    """A small pipe: its reading end, and a stream that writes to it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    stream = os.fdopen(writer, "w")
    try:
        yield reader, stream
    finally:
        os.close(reader)  # ends whoever still writes
        with contextlib.suppress(OSError):
            stream.close()


def read_all(reader: int, enough: Callable[[bytes], bool]) -> list[dict[str, object]]:
    """Lines from it until there are enough."""
    data = b""
    while not enough(data):
        data += os.read(reader, 1 << 16)
    return [json.loads(line) for line in data.decode().splitlines()]


def test_a_reader_that_stands_still_holds_nobody_up_and_gets_every_line_later() -> None:
    count = 4 * MOST_LINES
    with pipe() as (reader, stream):
        lines = Gathered(stream)
        log = make_log(lines)
        began = time.monotonic()
        for number in range(count):
            log.info("one", number=number)
            lines.ask()
        lines.end(0.2)
        assert time.monotonic() - began < 10  # and not for ever
        told = read_all(reader, lambda data: data.count(b"\n") == count)
        assert [one["number"] for one in told] == list(range(count))


def test_lines_beyond_those_that_may_wait_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_WAITING", 300)
    with pipe() as (reader, stream):
        lines = Gathered(stream)
        log = make_log(lines)
        log.info("first", more="x" * 2 * PIPE)  # more than the pipe takes: the thread waits for its reader
        lines.ask()
        while lines._lines:
            time.sleep(0.01)
        for number in range(1000):
            log.info("one", number=number)
        told = read_all(reader, lambda data: b'"number": 999' in data and data.endswith(b"\n"))
    assert [one["event"] for one in told[:2]] == ["first", "log"]
    assert told[1]["lines_lost"] == 700
    assert [one["number"] for one in told[2:]] == list(range(700, 1000))


def test_a_log_that_nobody_reads_holds_up_neither_answers_nor_the_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "errors.jsonl")
    reader = os.open(tmp_path / "errors.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)
        with started(tmp_path, FIXED, "0") as server, httpx.Client(base_url=server.url, timeout=10) as client:
            for _ in range(3):
                answers = [client.post("/v1/classify", json={"text": TEXT}) for _ in range(40)]
                assert {answer.status_code for answer in answers} == {200}
                time.sleep(0.3)  # its log is written meanwhile
            assert os.read(reader, 2 * PIPE).count(b"\n") < 120  # the pipe was full: most lines still wait
            server.signal(signal.SIGTERM)
            assert server.process.wait(timeout=20) == 0
    finally:
        os.close(reader)
