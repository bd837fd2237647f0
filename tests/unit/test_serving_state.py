"""The API through the app object: what is kept, counted and told of what was answered, and whether it is ready for more."""

import asyncio
import errno
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process_parts import comes_true
from standin import BASE, TEXTS, Server, declared
from standin import classifier as classifier  # a fixture
from standin import server as server  # a fixture

from newslora.errors import DrainingError, SettingsError, StorageError
from newslora.model.adapter import read_card
from newslora.predict.classifier import Classifier
from newslora.predict.thresholds import LabelThresholds, save_thresholds
from newslora.serving.keys import add_key
from newslora.serving.logs import MOST_LINES, Gathered, make_log
from newslora.serving.server import DrainingServer, check_exposure, is_loopback
from newslora.serving.settings import ServeSettings

BATCHES = ("batches", "batch_texts", "batch_tokens", "batch_seconds")


def test_probes_may_ask_for_heads(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    scraper = add_key(path, "scraper", ["metrics"])
    server = Server(planted, keys=path)
    for place, key in (("/health", None), ("/ready", None), ("/metrics", scraper)):
        response = server.ask(lambda client, place=place: client.head(place), key)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"] == server.get(place, key).headers["content-type"]
    assert server.ask(lambda client: client.head("/metrics")).status_code == 401
    assert server.ask(lambda client: client.head("/v1/status"), scraper).status_code == 405


def unreachable(given: object) -> None:
    raise StorageError("The database postgresql://db.internal/x cannot be used: no route to host")


def test_corrections_are_kept_checked_and_listed(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    desk, admin = add_key(path, "desk", ["classify", "feedback"]), add_key(path, "boss", ["admin"])
    server = Server(planted, keys=path, feedback=f"sqlite:///{tmp_path}/corrections.db", keep_uncertain=5)
    server.post("/v1/classify", {"texts": TEXTS[:2]}, key=desk)
    assert len(server.get("/v1/uncertain", desk).json()["items"]) == 2
    right = {"text": TEXTS[0], "label": "Sports", "predicted": "World", "probability": 0.9, "id": "mine"}
    for _ in range(2):
        assert server.post("/v1/feedback", right, key=desk).json() == {"id": "mine"}
    declared(server.post("/v1/feedback", right | {"label": "World"}, key=desk), 409, "id_taken")
    wrong = {"text": TEXTS[0], "label": "Sport"}
    assert "'Sports'" in declared(server.post("/v1/feedback", wrong, key=desk), 422, "unknown_label")
    declared(server.post("/v1/feedback", {"text": "a", "labels": ["World", "Sports"]}, key=desk), 422, "one_label")
    declared(server.post("/v1/feedback", {"text": "\u200b", "label": "World"}, key=desk), 422, "empty_text")
    declared(
        server.post("/v1/feedback", {"text": "a", "label": "World", "adapter": "x"}, key=desk), 404, "unknown_adapter"
    )
    declared(server.get("/v1/feedback", desk), 403, "wrong_scope")
    (kept,) = server.get("/v1/feedback?limit=5", admin).json()["corrections"]
    assert (kept["text"], kept["labels"], kept["predicted"], kept["key"]) == (TEXTS[0], ["Sports"], ["World"], "desk")
    assert [item["text"] for item in server.get("/v1/uncertain", desk).json()["items"]] == [TEXTS[1]]  # one is done
    assert server.get("/v1/status", desk).json()["adapters"]["news"]["corrections"] == 1
    monkeypatch.setattr(server.context.feedback, "add", unreachable)
    message = declared(server.post("/v1/feedback", right | {"id": "new"}, key=desk), 503, "storage")
    assert "db.internal" not in message
    assert "db.internal" in server.logged.getvalue()
    server.context.close()
    server.context.feedback = None
    declared(server.post("/v1/feedback", right, key=desk), 501, "no_feedback")
    lenient = Server(planted, feedback=f"sqlite:///{tmp_path}/other.db", new_labels=True)
    assert lenient.post("/v1/feedback", {"text": "a", "label": "Weather"}).status_code == 200
    lenient.context.close()


def test_status_metrics_and_uncertain_count_what_was_answered(planted: Path, classifier: Classifier) -> None:
    server = Server(planted, keep_uncertain=2)
    server.post("/v1/classify", {"texts": TEXTS})
    server.post("/v1/classify", {"text": TEXTS[0]})
    server.get("/made/up")
    status = server.get("/v1/status").json()
    own = classifier(TEXTS)
    since = status["adapters"]["news"]["since_start"]
    assert since["texts"] == 4
    assert since["labels"]["World"] + since["labels"]["Sports"] == 4
    expected = (sum(one.probability for one in own) + own[0].probability) / 4
    assert since["mean_confidence"] == pytest.approx(expected, abs=1e-6)
    assert status["load"]["p50_ms"] > 0
    assert status["adapters"]["news"]["drift"]["baseline"] == "validation rows"
    assert status["queue"] == {"rows": 0, "tokens": 0, "rows_bound": 2048, "tokens_bound": 200_000, "share": 0}
    items = server.get("/v1/uncertain").json()["items"]
    sure = sorted(own, key=lambda one: one.probability)
    assert [item["probability"] for item in items] == pytest.approx([one.probability for one in sure[:2]], abs=1e-6)
    declared(server.get("/v1/uncertain?adapter=gone"), 404, "unknown_adapter")
    text = server.get("/metrics").text
    for line in (
        f'newslora_texts_total{{adapter="news",label="{own[0].label}"}}',
        'newslora_requests_total{method="POST",route="/v1/classify",status="200"} 2.0',
        'newslora_requests_total{method="GET",route="other",status="404"} 1.0',
        'newslora_adapter_info{adapter="news"',
        f'newslora_queue{{encoder="{classifier.card.backbone_name}",what="rows_bound"}} 2048.0',
        'newslora_rejected_total{reason="not_found"} 1.0',
    ):
        assert line in text
    assert "made" not in text
    lies = str(Path(classifier.card.backbone).parent)  # where on the disk
    assert lies != "."
    assert lies not in text + json.dumps(status) + server.get("/v1/adapters").text
    batches = {name: float(re.search(rf"^newslora_{name}_total (\S+)$", text, re.MULTILINE)[1]) for name in BATCHES}  # type: ignore[index]
    assert batches["batch_texts"] == 4
    assert 2 <= batches["batches"] <= 4
    assert batches["batch_tokens"] > 4 * 2


def test_texts_characters_and_texts_left_undecided_are_counted_once(planted: Path) -> None:
    server = Server(planted)
    server.post("/v1/classify", {"texts": ["treaty", " ", "games"]})
    server.post("/v1/classify", {"texts": [" ", "\u200b"]})  # which have no answer
    server.send("/v1/classify/stream", '{"text": "treaty"}\n{"text": " "}\n{"text": "in"}\n', "application/x-ndjson")
    server.send("/v1/classify/stream", '{"text": " "}\n', "application/x-ndjson")
    server.context.metrics.row("news", (), True)
    counted = server.get("/metrics").text
    for line in (
        'newslora_request_texts_count{adapter="news"} 2.0',
        'newslora_request_texts_sum{adapter="news"} 4.0',
        f'newslora_characters_total{{adapter="news"}} {float(len("treatygamestreatyin"))}',
        'newslora_texts_abstained_total{adapter="news"} 1.0',
    ):
        assert line in counted
    assert "newslora_texts_without_label_total{" not in counted  # undecided is not the same as no label
    assert sum(map(float, re.findall(r"^newslora_texts_total{.* (\S+)$", counted, re.MULTILINE))) == 4
    server.context.metrics.row("news", (), False)
    assert 'newslora_texts_without_label_total{adapter="news"} 1.0' in server.get("/metrics").text


def test_errors_in_place_of_answers_are_counted_and_a_cut_stream_is_refused(planted: Path) -> None:
    server = Server(planted)
    lines = ['{"text": "treaty"}', '{"text": " "}', "nonsense", '{"texts": 3}', "more nonsense"]

    def counted() -> set[str]:
        kept = ("newslora_text_errors_total{", "newslora_rejected_total{")
        return {line for line in server.get("/metrics").text.splitlines() if line.startswith(kept)}

    server.post("/v1/classify", {"texts": ["treaty", " "]})
    server.send("/v1/classify/stream", "\n".join(lines), "application/x-ndjson")
    met = {
        'newslora_text_errors_total{reason="empty_text"} 2.0', 'newslora_text_errors_total{reason="bad_json"} 2.0',
        'newslora_text_errors_total{reason="bad_request"} 1.0',
    }  # fmt: skip
    assert counted() == met
    server.service.error = DrainingError("The service is ending.")
    server.send("/v1/classify/stream", lines[0], "application/x-ndjson")
    assert counted() == met | {'newslora_rejected_total{reason="draining"} 1.0'}


def test_what_is_counted_for_an_adapter_goes_with_it(planted: Path) -> None:
    server = Server(planted, keep_uncertain=5)
    server.context.load("other", planted)
    for name in ("news", "other"):
        server.post("/v1/classify", {"text": TEXTS[0], "adapter": name})
    server.context.load("other", planted)  # replaced, it goes on
    counted = server.get("/metrics").text
    assert len(re.findall(r'^newslora_texts_total{adapter="(?:news|other)",.* 1\.0$', counted, re.MULTILINE)) == 2
    answered = asyncio.run(server.service.answer("other", TEXTS[:1]))[0]
    server.context.remove("other")
    server.context.seen(TEXTS[0], answered)  # as of an answer that was on its way
    server.context.metrics.answered("other", 1, 10)
    server.context.metrics.corrected("other")
    assert 'adapter="other"' not in server.get("/metrics").text
    assert 'adapter="news"' in server.get("/metrics").text
    assert {item["adapter"] for item in server.get("/v1/uncertain").json()["items"]} == {"news"}
    server.context.load("other", planted)
    server.context.seen(TEXTS[0], answered)
    assert 'newslora_texts_total{adapter="other",' in server.get("/metrics").text


def test_unsure_answers_of_several_labels_are_those_near_their_own_thresholds(
    planted: Path, tmp_path: Path, make_adapter: Callable[..., Path]
) -> None:
    folder = make_adapter(tmp_path / "topics", multi_label=True)
    card, server = read_card(folder), Server(planted, keep_uncertain=5)
    for text, own in zip(TEXTS, Classifier.load(folder)(TEXTS), strict=True):
        values = np.array(list(own.probabilities.values())) - 1e-4
        record = {"rows": 40, "before": {"macro_f1": 0.5}, "after": {"macro_f1": 0.6}}
        save_thresholds(LabelThresholds(values, record), folder, card.weights_sha256)
        server.context.load("topics", folder)
        server.post("/v1/classify", {"texts": TEXTS, "adapter": "topics"})
        (item, *_) = server.get("/v1/uncertain?adapter=topics").json()["items"]
        assert (item["text"], set(item["labels"])) == (text, set(own.probabilities))  # each is beyond its threshold
        server.context.remove("topics")


def test_what_was_loaded_is_left_alone_by_later_collections(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, frozen = Server(planted), []
    server.context.ready = False
    running = DrainingServer(server.context, {"later": planted}, lambda _: None, BASE, Gathered(io.StringIO()))

    def freeze() -> None:
        frozen.append(([one.name for one in server.service.adapters()], server.context.ready))

    monkeypatch.setattr("newslora.serving.server.gc.freeze", freeze)
    asyncio.run(running._load())
    assert frozen == [(["news", "later"], False)]  # once all is there, before anybody asks
    assert server.context.ready


def test_ready_says_no_before_loading_and_while_draining(planted: Path) -> None:
    server = Server(planted)
    server.context.ready = False
    declared(server.get("/ready"), 503, "loading")
    declared(server.post("/v1/classify", {"text": "a", "adapter": "later"}), 503, "loading")
    server.context.ready = True
    declared(server.post("/v1/classify", {"text": "a", "adapter": "later"}), 404, "unknown_adapter")
    assert server.get("/ready").status_code == 200
    server.context.draining = True
    declared(server.get("/ready"), 503, "draining")
    assert server.post("/v1/classify", {"text": "treaty"}).status_code == 200  # who asks now was sent before


def test_health_tells_of_a_broken_worker(planted: Path) -> None:
    server = Server(planted)
    server.service.broken = ["The worker has ended."]
    assert "worker" in declared(server.get("/health"), 503, "broken")


def test_pages_hold_no_address_of_another_host(server: Server) -> None:
    response = server.get("/docs")
    assert response.status_code == 200
    assert "/v1/classify/stream" in response.text
    assert "https://" not in response.text.replace("https://desk.example.org", "")
    assert "'unsafe-inline'" not in response.headers["content-security-policy"]
    assert response.text.count("<pre") == response.text.count('<pre tabindex="0"') > 10  # scrolled by keyboard too
    assert server.get("/docs.css").headers["content-type"].startswith("text/css")


def test_spans_hold_no_texts(planted: Path) -> None:
    pytest.importorskip("opentelemetry.instrumentation.fastapi")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from newslora.serving.tracing import trace, wanted

    server = Server(planted)
    assert not wanted(server.settings)
    exporter = InMemorySpanExporter()
    provider = trace(server.app, exporter)
    server.post("/v1/classify", {"text": TEXTS[0]})
    server.get("/health")
    spans = exporter.get_finished_spans()
    provider.shutdown()
    assert [span.name for span in spans] == ["POST /v1/classify"]
    assert TEXTS[0] not in spans[0].to_json()


def test_log_lines_are_written_together_and_none_is_lost() -> None:
    stream = io.StringIO()
    lines = Gathered(stream)
    log = make_log(lines)
    log.info("first")
    assert stream.getvalue() == ""
    lines.write_out()
    assert json.loads(stream.getvalue())["event"] == "first"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log.info("one", number=number), range(10 * MOST_LINES)))
    assert comes_true(lambda: len(stream.getvalue().splitlines()) >= 9 * MOST_LINES)  # many wait for nobody to ask
    lines.write_out()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sorted(one["number"] for one in told[1:]) == list(range(10 * MOST_LINES))


class Full(io.StringIO):
    """A stream on a disk that is full, until it is not."""

    full = True

    def flush(self) -> None:
        if self.full:
            self.seek(0)
            self.truncate()
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_ends_nothing_and_tells_later() -> None:
    stream = Full()
    lines = Gathered(stream)
    log = make_log(lines)
    for _ in range(3):
        log.info("lost")
        lines.write_out()
    stream.full = False
    log.info("kept")
    lines.write_out()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["event"], one.get("lines_lost")) for one in told] == [("log", 3), ("kept", None)]
    log.info("next")
    lines.write_out()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["log", "kept", "next"]
    closed = Gathered(None)
    closed.write("a line\n")
    closed.write_out()


class Small(io.RawIOBase):
    """A disk with room for some bytes."""

    def __init__(self, room: int) -> None:
        self.room, self.held = room, b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = bytes(data[: self.room])
        self.room, self.held = self.room - len(taken), self.held + taken
        return len(taken)


@pytest.mark.parametrize("room", [0, 30, 100, 150])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_line_is_written_whole_or_counted_as_lost(room: int, buffered: bool) -> None:
    disk = Small(room)
    stream = io.TextIOWrapper(io.BufferedWriter(disk) if buffered else disk, write_through=not buffered)  # type: ignore[type-var]
    lines = Gathered(stream)
    for first in (10, 20):
        for number in range(first, first + 10):
            lines.write(f'{{"number": {number}, "more": "{"x" * 20}"}}\n')
        lines.write_out()
    disk.room = 100_000
    for number in (30, 31):
        lines.write(f'{{"number": {number}}}\n')
        lines.write_out()
    stream.flush()
    told = [json.loads(line) for line in disk.held.decode().splitlines()]
    begun = -(-room // 47)  # lines, by their length
    assert [one.get("number") for one in told] == [*range(10, 10 + begun), None, 30, 31]
    assert told[begun]["lines_lost"] == 20 - begun


@pytest.mark.parametrize(
    ("number", "ready", "seconds"), [(signal.SIGTERM, True, 5), (signal.SIGTERM, False, 0), (signal.SIGINT, True, 0)]
)
def test_only_who_sends_requests_is_given_notice(number: int, ready: bool, seconds: float, planted: Path) -> None:
    server = Server(planted, notice_seconds=5)
    server.context.ready = ready
    running = DrainingServer(server.context, {}, lambda _: None, BASE, Gathered(io.StringIO()))
    began = time.monotonic()
    running.handle_exit(number, None)
    assert running.leave_at is not None
    assert running.leave_at - began == pytest.approx(seconds, abs=1)
    assert (server.context.draining, running.should_exit) == (True, False)


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("localhost", True), ("192.168.0.5", False),
     ("10.0.0.1", False), ("0.0.0.0", False), ("::", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_a_server_without_keys_is_for_this_machine(host: str, alone: bool, tmp_path: Path) -> None:
    assert is_loopback(host) is alone
    if alone:
        check_exposure(ServeSettings(host=host))
        return
    with pytest.raises(SettingsError, match="there are no keys"):
        check_exposure(ServeSettings(host=host))
    check_exposure(ServeSettings(host=host, open=True))
    check_exposure(ServeSettings(host=host, keys=tmp_path / "keys.json"))


def test_a_server_is_ready_where_nobody_can_be_told(planted: Path) -> None:
    server = Server(planted)

    def refuse(sentence: str) -> None:
        raise StorageError("Cannot write standard output: No space left on device.")

    running = DrainingServer(server.context, {"later": planted}, refuse, BASE, Gathered(io.StringIO()))
    server.context.ready = False
    asyncio.run(begun(running))
    assert (server.context.ready, running.failure) == (True, None)


def test_a_server_that_refuses_every_watched_adapter_is_not_ready(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newslora.serving.server.LOOK_AGAIN", 0.01)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "newslora.json").write_text('{"lora": [1]}')
    server = Server(planted, watch=tmp_path)
    context = server.context
    context.ready = False
    context.remove("news")
    running = DrainingServer(context, {}, lambda _: None, BASE, Gathered(io.StringIO()))

    async def followed() -> list[bool]:
        running._begin()
        assert running.loading is not None
        await asyncio.wait([running.loading], timeout=3)
        told = [context.ready]
        await asyncio.to_thread(context.load, "late", planted)  # as the watch does once the folder has changed
        await asyncio.wait_for(running.loading, 10)
        return [*told, context.ready]

    assert asyncio.run(followed()) == [False, True]
    running.stop_watching.set()


def test_what_libraries_log_is_json_too() -> None:
    code = (
        "import logging, sys, warnings; from newslora.serving.logs import forward_server_logs, make_log\n"
        "forward_server_logs(make_log()); logging.getLogger('some.library').error('no collector')\n"
        "warnings.warn('is old', stacklevel=1); logging.getLogger('uvicorn.error').warning('Invalid request')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(one["event"], one.get("logger")) for one in told] == [
        ("library", "some.library"), ("library", "py.warnings"), ("server", None),
    ]  # fmt: skip


async def begun(running: DrainingServer) -> None:
    running._begin()
    assert running.loading is not None
    await running.loading
