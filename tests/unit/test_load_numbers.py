"""What the load tests make of their measurements, by hand: no generator, no server, and a clock that is told the time."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from benchmark_parts import Clock, script

from newslora.serving.settings import ServeSettings

serve_load, closed_load, server_child = (script(name) for name in ("serve_load", "closed_load", "server_child"))
RIGHT = SimpleNamespace(status_code=200, content=b'{"results":[{"label":"World","error":null}]}')
REFUSED = SimpleNamespace(status_code=503, content=b'{"error":{"code":"overloaded"}}')


# The closed load: wrk


@pytest.fixture
def wrk(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands given, each with the bodies of its file; what wrk tells ends with the script's line."""
    given: list[Any] = []
    line = '{"requests":30,"errors":2,"seconds":3.0,"ms":{"p50":1.0}}'

    def run(command: list[str], **how: Any) -> Any:
        given.append((command, Path(command[-2]).read_text().splitlines()))
        return SimpleNamespace(stdout=f"Running 3s test\n  30 requests in 3.00s\n{line}\n")

    used = iter([5.0, 5.25])
    monkeypatch.setattr(closed_load, "_processor_seconds", lambda: next(used))
    monkeypatch.setattr(closed_load, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
    return given


def test_a_closed_load_is_as_asked_and_what_its_script_found(wrk: list[Any]) -> None:
    found = closed_load.closed_load("http://here", ['{"text":"a"}', '{"text":"b"}'], 1, 64, 15.0, 30.0)
    assert found == {"requests": 30, "errors": 2, "seconds": 3, "ms": {"p50": 1}, "generator_cpu_seconds": 0.25}
    ((command, bodies),) = wrk
    asked = dict(zip(command[1:11:2], command[2:11:2], strict=True))
    assert asked == {
        "--threads": "1", "--connections": "64", "--duration": "15s", "--timeout": "30s",
        "--script": str(Path(closed_load.__file__).with_suffix(".lua")),
    }  # fmt: skip
    assert command[11:13] == ["http://here", "--"]
    assert command[-1] == "1"
    assert bodies == ['{"text":"a"}', '{"text":"b"}']


# Throughput over HTTP beside the engine's own


def test_throughput_counts_answered_texts_alone_and_no_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts a second over HTTP: 60, 10, 40, 20; of the engine, on five texts: 50, 40, 25, 100."""
    told: list[str] = []
    answered = iter([(60, 0), (10, 0), (50, 10), (25, 5)])  # requests of one text in a second; errors among them
    took = iter([0.1, 0.125, 0.2, 0.05])
    working = [0.0]  # the server, so far

    class Engine:
        def __init__(self, run: Path, precision: str, texts: Path) -> None:
            self.facts = {"engine": "packed"}
            assert json.loads(texts.read_text()) == list("abcde")

        def __enter__(self) -> "Engine":
            return self

        def __exit__(self, *_: object) -> None:
            told.append("end")

        def logits_seconds(self) -> float:
            told.append("engine")
            return next(took)

    def load(url: str, bodies: list[str], texts: int, in_flight: int, seconds: float, timeout: float) -> dict[str, Any]:
        assert (url, len(bodies), texts, in_flight, seconds, timeout) == ("http://here", 5, 1, 8, 2.0, 30.0)
        told.append("http")
        requests, errors = next(answered)
        working[0] += requests / 1000 * len(told)  # more with each turn
        return {"requests": requests, "errors": errors, "seconds": 1.0, "generator_cpu_seconds": requests / 10_000}

    monkeypatch.setattr(serve_load, "EngineAlone", Engine)
    monkeypatch.setattr(serve_load, "closed_load", load)

    def used() -> dict[str, float]:
        return {"server_thread": working[0], "all": 2 * working[0]}

    given = Namespace(run=Path("run"), precision="fp32", texts=1, in_flight=8, seconds=2.0, timeout=30.0, rounds=3)
    found = serve_load.capacity(SimpleNamespace(url="http://here", cpu_seconds=used), list("abcde"), given)
    assert told == ["http", "engine", "engine", "http", "http", "engine", "engine", "http", "end"]
    assert found["texts_per_second"] == {
        "http": {"median": 20, "lowest": 10, "highest": 40, "rounds": [10, 40, 20]},
        "engine": {"median": 40, "lowest": 25, "highest": 100, "rounds": [40, 25, 100]},
    }
    assert found["http / engine"] == 0.5
    assert found["errors"] == 15
    assert found["server_thread_ms_a_request"] == pytest.approx(5)  # of 4, 5 and 8
    assert found["generator_ms_a_request"] == pytest.approx(0.1)
    assert [one["requests"] for one in found["http_rounds"]] == [10, 50, 25]
    assert found["http_rounds"][0]["server_cpu_seconds"] == {
        "server_thread": pytest.approx(0.04), "all": pytest.approx(0.08)
    }  # fmt: skip


def test_bodies_hold_as_many_texts_as_asked_and_leave_a_rest_out() -> None:
    assert [json.loads(body) for body in serve_load.bodies(["a", "b"], 1)] == [{"text": "a"}, {"text": "b"}]
    assert [json.loads(body) for body in serve_load.bodies(list("abcde"), 2)] == [
        {"texts": ["a", "b"]}, {"texts": ["c", "d"]}
    ]  # fmt: skip


@pytest.mark.parametrize(("last", "rate"), [(50.0, 1.5), (75.0, 1.2)])  # no shorter than the load was to be
def test_the_rate_achieved_is_of_answers_over_the_time_they_took(
    last: float, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_load, "generate", lambda *given: {"requests": 100, "errors": 10, "seconds": last})
    found = serve_load.open_load(None, [], Namespace(rate=2.0, seconds=60.0))
    assert found["rate_achieved"] == rate
    assert found["rate_asked"] == 2
    assert found["processors_by_minute"] == []


@pytest.mark.parametrize("export", [None, "merged", "int8", "onnx", "onnx-int8"])
def test_the_server_computes_in_what_the_engine_beside_it_does(export: str | None) -> None:
    given = Namespace(in_flight=64, texts=1, precision="auto", set=["passes=1"])
    settings = serve_load.server_settings(given, export)
    assert settings["passes"] == "1"
    assert settings.get("precision") == (None if export in ("int8", "onnx", "onnx-int8") else "auto")
    assert set(settings) <= {"passes", "precision", "idle_seconds"}  # 64 need no others


def test_settings_are_raised_in_so_far_as_the_load_could_reach_them() -> None:
    usual = ServeSettings()
    given = Namespace(in_flight=usual.connections, texts=600, precision="fp32", set=[])
    found = serve_load.server_settings(given, None)
    assert found["connections"] == usual.connections + 10
    assert found["queue_rows"] == usual.connections * 600
    assert found["queue_tokens"] == usual.connections * 600 * 512
    assert found["max_texts"] == 600
    ServeSettings(**found)


def test_processor_time_is_read_past_any_name(tmp_path: Path) -> None:
    """A process may be called anything, brackets and spaces included (proc(5))."""
    fields = [str(number) for number in range(4, 53)]  # from the fourth on; the 14th and 15th are what was used
    (tmp_path / "stat").write_text(f"7 (a) b (c) S {' '.join(fields)}\n")
    assert server_child._cpu_seconds(str(tmp_path / "stat")) == (14 + 15) / os.sysconf("SC_CLK_TCK")


# The open load: arrivals that wait for nobody


class Entry:
    """Locust's, of what is asked here; all is 0 where nothing was counted, as there."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.num_failures = 0

    num_requests = property(lambda self: len(self.milliseconds))
    avg_response_time = property(lambda self: sum(self.milliseconds) / max(1, len(self.milliseconds)))
    max_response_time = property(lambda self: max(self.milliseconds, default=0))

    def get_response_time_percentile(self, share: float) -> float:
        return sorted(self.milliseconds)[int(share * len(self.milliseconds))] if self.milliseconds else 0


class Stats:
    def __init__(self, use_response_times_cache: bool) -> None:
        self.total, self.errors = Entry(), {}

    def log_request(self, method: str, name: str, milliseconds: float, length: int) -> None:
        self.total.milliseconds.append(milliseconds)

    def log_error(self, method: str, name: str, error: Exception) -> None:
        self.total.num_failures += 1
        one = self.errors.setdefault(repr(error), SimpleNamespace(error=repr(error), occurrences=0))
        one.occurrences += 1


class Hook:
    def __init__(self) -> None:
        self.listeners: list[Callable[..., None]] = []

    def add_listener(self, listener: Callable[..., None]) -> None:
        self.listeners.append(listener)

    def fire(self, **what: Any) -> None:
        for listener in self.listeners:
            listener(**what)


class Environment:
    def __init__(self) -> None:
        self.events = SimpleNamespace(request=Hook())

    def create_local_runner(self) -> None:
        def heard(request_type: str, name: str, response_time: float, response_length: int, exception: Any) -> None:
            self.stats.log_request(request_type, name, response_time, response_length)  # type: ignore[attr-defined]
            if exception is not None:
                self.stats.log_error(request_type, name, exception)  # type: ignore[attr-defined]

        self.events.request.add_listener(heard)


class Session:
    """Answers by a list of (seconds, response), the last one again and again; while it waits nothing else goes on."""

    answers: list[tuple[float, Any]]
    clock: Clock

    def __init__(self, url: str, heard: Hook, *_: Any, **__: Any) -> None:
        self.heard, self.sent = heard, []

    def request(self, method: str, path: str, data: bytes, headers: Any, context: Any) -> None:
        self.sent.append(data)
        seconds, response = self.answers[min(len(self.sent), len(self.answers)) - 1]
        self.clock.sleep(seconds)
        self.heard.fire(context=context, response=response, exception=None, response_length=len(response.content))


class Group(list[Any]):
    """Greenlets that end at once."""

    def spawn(self, run: Callable[..., None], *given: Any) -> None:
        run(*given)

    def join(self, timeout: float) -> None:
        pass


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """load_generator.py, on what locust and gevent look like from there: gevent itself would change this process's sockets."""
    clock = Clock()
    parts = {
        "gevent": {"sleep": clock.sleep}, "gevent.pool": {"Group": Group}, "locust": {}, "locust.contrib": {},
        "locust.stats": {"RequestStats": Stats}, "locust.contrib.fasthttp": {"FastHttpSession": Session},
        "locust.env": {"Environment": Environment}, "locust.event": {"EventHook": Hook},
    }  # fmt: skip
    for name, names in parts.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    for name in parts:
        owner, _, own = name.rpartition(".")
        if owner:
            setattr(sys.modules[owner], own, sys.modules[name])
    found = script("load_generator")
    monkeypatch.setattr(found, "time", clock)
    monkeypatch.setattr(Session, "clock", clock, raising=False)
    yield found
    del sys.modules["load_generator"]


def work(generator: Any, **more: Any) -> Any:
    usual = {
        "url": "http://here", "bodies": ["a", "b", "c"], "texts_a_request": 1, "rate": 10.0, "seconds": 20.0,
        "warmup": 5.0, "in_flight": 900, "timeout": 30.0, "seed": 0,
    }  # fmt: skip
    return generator.Work(**usual | more)


def loaded(generator: Any, monkeypatch: pytest.MonkeyPatch, answers: list[tuple[float, Any]], **more: Any) -> Any:
    monkeypatch.setattr(Session, "answers", answers, raising=False)
    made = generator.Generator(work(generator, **more))
    made.run()
    return made


def test_a_request_counts_from_when_it_was_due(generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer takes ten seconds, in which nothing else is sent: all that was due meanwhile took long as well."""
    stall = [(0.001, RIGHT)] * 60 + [(10.0, RIGHT)] + [(0.001, RIGHT)]
    made = loaded(generator, monkeypatch, stall)
    found = made.result(0.0)
    slow = [one for one in made.environment.stats.total.milliseconds if one > 100]
    assert 80 < len(slow) < 120  # ten a second
    assert sum(slow) / len(slow) == pytest.approx(5000, rel=0.1)
    assert found["ms"]["max"] == pytest.approx(10_000, abs=50)
    assert found["sent_late_ms"]["max"] == pytest.approx(10_000, rel=0.05)
    assert found["errors"] == 0
    assert made.session.sent[:4] == [b"a", b"b", b"c", b"a"]


def test_arrivals_of_the_warm_up_are_not_counted(generator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = loaded(generator, monkeypatch, [(0.001, REFUSED)] * 30 + [(0.001, RIGHT)])
    found = made.result(0.0)
    warm = len(made.session.sent) - found["requests"]
    assert 30 < warm < 70  # 5 s of ten a second
    assert 150 < found["requests"] < 250
    assert (found["warmup_errors"], found["errors"], found["errors_by_kind"]) == (30, 0, {})
    assert found["seconds"] == pytest.approx(20, abs=1)
    assert len(made.late.total.milliseconds) == found["requests"]


def test_what_is_not_sent_is_an_error_that_took_the_longest_wait(
    generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = loaded(generator, monkeypatch, [(0.0, RIGHT)], in_flight=0).result(0.0)
    assert found["requests"] == found["errors"] > 150
    assert found["errors_by_kind"] == {"not sent: too many in flight": found["errors"]}
    assert found["ms"]["p50"] == 30_000


def test_answers_are_counted_by_the_minute_they_were_due_in(generator: Any) -> None:
    made = generator.Generator(work(generator, texts_a_request=2))
    made.begin = generator.time.now
    two = SimpleNamespace(status_code=200, content=2 * RIGHT.content)
    for due, response in ((0, two), (59.9, RIGHT), (130, REFUSED), (-0.1, REFUSED)):
        generator.time.now = 1200.0
        made._heard({"due": 1000 + due}, response, None, 10)
    found = made.result(0.0)
    assert [(one["requests"], one["errors"]) for one in found["ms_by_minute"]] == [(2, 1), (0, 0), (1, 1)]
    assert found["ms_by_minute"][2]["max"] == pytest.approx(70_000)
    assert (found["requests"], found["errors"], found["warmup_errors"]) == (3, 2, 1)
    assert found["errors_by_kind"] == {"not 2 answers": 1, "503 overloaded": 1}


@pytest.mark.parametrize(
    ("response", "exception", "kind"),
    [
        (REFUSED, OSError(), "503 overloaded"),
        (SimpleNamespace(status_code=502, content=b"<html>"), OSError(), "502"),
        (SimpleNamespace(status_code=500, content=b'{"error":"text of a user"}'), OSError(), "500"),
        (SimpleNamespace(status_code=0, error=TimeoutError("text of a user")), OSError(), "TimeoutError"),
        (SimpleNamespace(status_code=0, error=None), ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_kinds_of_error_hold_no_texts(response: Any, exception: Exception, kind: str, generator: Any) -> None:
    assert generator.kind(response, exception) == kind


def test_percentiles_are_named_for_their_shares(generator: Any) -> None:
    entry = SimpleNamespace(
        get_response_time_percentile=lambda share: 1000 * share, avg_response_time=7, max_response_time=8.04
    )
    assert generator.times(entry) == {"p50": 500, "p90": 900, "p99": 990, "p99.9": 999, "mean": 7, "max": 8.0}
