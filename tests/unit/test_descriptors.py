"""A server that runs out of file descriptors: it asks for enough, and says where there are none."""

import contextlib
import resource
import socket
from pathlib import Path
from typing import Any

import pytest
from process_parts import FIXED, comes_true, started
from refusing_parts import no_more_files

from newslora.serving.descriptors import RESERVE, Watched, make_room

FEW = 60
LIMITED = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW}))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """[allowed, most] as the system would hold them."""
    held = [1024, 4096]

    def change(which: int, pair: tuple[int, int]) -> None:
        held[:] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda which: tuple(held))
    monkeypatch.setattr(resource, "setrlimit", change)
    return held


def test_as_many_as_connections_take_are_asked_for(limits: list[int]) -> None:
    assert make_room(1024 - RESERVE) is None
    assert limits == [1024, 4096]
    assert make_room(1000) is None
    assert limits == [1000 + RESERVE, 4096]


def test_where_fewer_are_allowed_that_is_told(limits: list[int]) -> None:
    told = make_room(10_000)
    assert limits == [4096, 4096]
    assert told is not None
    assert told.startswith("This process may open 4,096 files, and 10,000 connections take some 10,100")
    assert "ulimit -n" in told


def test_a_system_that_lets_nobody_ask_is_told_too(limits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert "may open 1,024 files" in (make_room(1000) or "")


def test_no_limit_is_left_alone(limits: list[int]) -> None:
    limits[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    assert make_room(10**6) is None
    assert limits == [resource.RLIM_INFINITY, resource.RLIM_INFINITY]


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def error(self, event: str, message: str) -> None:
        self.lines.append(("error", message))

    def info(self, event: str, message: str) -> None:
        self.lines.append(("info", message))


def test_the_last_one_used_is_told_once_and_so_is_the_end_of_it() -> None:
    log = Log()
    watched = Watched(log)
    watched.look()
    assert log.lines == []
    with no_more_files():
        watched.look()
        watched.look()
    watched.look()
    watched.look()
    assert [level for level, _ in log.lines] == ["error", "info"]
    assert log.lines[0][1].startswith("No file can be opened (Too many open files)")


def test_a_server_tells_of_connections_it_cuts_and_answers_again(tmp_path: Path) -> None:
    with started(tmp_path, "-c", LIMITED, FIXED, "0") as server:
        held = []
        with contextlib.suppress(OSError):
            held += [server.connect() for _ in range(100)]

        def told() -> list[str]:
            return [str(line["message"]) for line in server.log() if line["event"] == "files"]

        assert comes_true(lambda: len(told()) == 2)
        assert told()[0].startswith(f"This process may open {FEW} files")
        assert told()[1].startswith("No file can be opened")
        for one in held:
            one.close()
        assert comes_true(lambda: len(told()) == 3)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as again:
            again.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert again.recv(100).startswith(b"HTTP/1.1 200")
