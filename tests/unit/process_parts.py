"""A real server process, and how tests wait for what it does."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import newslora

TEXT = "meets over border treaty signs"
FIXED = str(Path(__file__).with_name("serve_fixed.py"))
SOURCES = Path(newslora.__file__).parents[1]


class Process:
    """A running server with its address."""

    def __init__(self, command: list[str], errors: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
        with errors.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdout=subprocess.PIPE, stderr=log, env=environment, text=True
            )
        self.errors = errors

    def wait_until_ready(self) -> None:
        self.wait_until_listening()
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("Ready: adapters news;")

    def wait_until_listening(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line + self.errors.read_text()
        self.url, self.port = found[0], int(found[1])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.errors.read_text().splitlines()]


@contextlib.contextmanager
def started(tmp_path: Path, *command: str, ready: bool = True) -> Iterator[Process]:
    """A server that is ready, or else one that listens."""
    server = Process(list(command), tmp_path / "errors.jsonl")
    try:
        if ready:
            server.wait_until_ready()
        else:
            server.wait_until_listening()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(timeout=20)
        assert server.process.stdout is not None
        server.process.stdout.close()


def comes_true(what: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not (true := what()) and time.monotonic() < until:
        time.sleep(0.1)
    return true
