"""A server that is told to end does not wait for work whose outcome nobody will use."""

import asyncio
import contextlib
import signal
import socket
import sqlite3
import time
from pathlib import Path

import httpx
import pytest
from process_parts import FIXED, TEXT, Process, comes_true, started
from standin import Server
from test_serving_process import in_thread

from newslora.serving.service import Service
from newslora.serving.tracing import LAST_SECONDS

SOON = 2.5  # seconds in which a process ends where it has nothing to finish; twice what it needs on a busy machine


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A folder that takes no end of time to load, in one that may be watched."""
    folder = tmp_path / "watched" / "late"
    folder.mkdir(parents=True)
    (folder / "newslora.json").write_text("{}")
    (folder / "slow").touch()
    return folder


def ended(server: Process, seconds: float = SOON) -> int:
    """The exit code after SIGTERM, which comes soon."""
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    code = server.process.wait(timeout=20)
    assert time.monotonic() - began < seconds
    return code


def quietly(server: Process) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{server.url}/v1/feedback", json={"text": TEXT, "label": "World"}, timeout=30)


def test_loads_at_the_start_are_not_waited_for(tmp_path: Path, slow: Path) -> None:
    with started(tmp_path, FIXED, "0", str(slow), ready=False) as server:
        assert comes_true((slow / "begun").exists)
        assert httpx.get(f"{server.url}/ready").json()["error"]["code"] == "loading"
        assert ended(server) == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""  # it was never ready
        assert not [one for one in server.log() if one["event"] == "adapter loaded"]
    (slow / "begun").unlink()
    with started(tmp_path, FIXED, "0", f"watch={slow.parent}", ready=False) as server:
        assert comes_true((slow / "begun").exists)
        assert ended(server) == 0


def test_a_change_over_http_is_refused_and_not_waited_for(tmp_path: Path, slow: Path) -> None:
    options = ("notice_seconds=0.5", f"adapters_root={slow.parent}")
    with started(tmp_path, FIXED, "0", *options) as server:
        news, late = (f"{server.url}/v1/adapters/{name}" for name in ("news", "late"))
        put, answers = in_thread(lambda: httpx.put(late, json={"folder": "late"}, timeout=20))
        assert comes_true((slow / "begun").exists)
        delete, more = in_thread(lambda: httpx.delete(news, timeout=20))  # waits for its turn
        time.sleep(0.2)
        assert ended(server) == 0
        for thread, told in ((put, answers), (delete, more)):
            thread.join(10)
            assert (told[0].status_code, told[0].json()["error"]["code"]) == (503, "draining")
        assert [one["event"] for one in server.log()].count("adapter loaded") == 1
        assert not [one for one in server.log() if one.get("level") == "error"]


def test_an_explanation_that_came_too_late_is_not_waited_for(tmp_path: Path) -> None:
    with started(tmp_path, FIXED, "0", "notice_seconds=0") as server:
        asked = {"text": TEXT, "explain": True, "timeout": 1}
        assert httpx.post(f"{server.url}/v1/classify", json=asked, timeout=20).status_code == 504
        assert ended(server) == 0


def test_a_database_that_does_not_answer_is_not_waited_for_beyond_the_grace_period(tmp_path: Path) -> None:
    database = tmp_path / "corrections.db"
    options = ("notice_seconds=0", "grace_seconds=1", f"feedback=sqlite:///{database}")
    with started(tmp_path, FIXED, "0", *options) as server, contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        in_thread(quietly, server)
        time.sleep(0.5)
        assert ended(server, 1 + SOON) == 143


def test_spans_that_nobody_takes_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.instrumentation.fastapi")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with started(tmp_path, FIXED, "0", "notice_seconds=0") as server:
            assert httpx.post(f"{server.url}/v1/classify", json={"text": TEXT}).status_code == 200
            assert ended(server, LAST_SECONDS + SOON) == 0
            (lost,) = (one for one in server.log() if one["event"] == "trace")
            assert lost["level"] == "warning"


def test_what_is_left_at_the_end_has_no_grace_period_of_its_own(planted: Path) -> None:
    server, given = Server(planted), []
    server.service.drain = given.append  # type: ignore[method-assign]

    async def live() -> None:
        async with server.app.router.lifespan_context(server.app):
            server.context.end_by = time.monotonic() + 0.5

    asyncio.run(live())
    Service.drain(server.service)
    assert 0 <= given[0] <= 0.5
