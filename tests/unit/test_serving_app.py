"""The API through the app object: answers are the classifier's own, and whatever comes in is answered in the declared form."""

import asyncio
import gzip
import io
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from standin import Told

from newslora.errors import OverloadedError, StorageError
from newslora.model.adapter import read_card
from newslora.predict.classifier import Classifier
from newslora.predict.thresholds import LabelThresholds, save_thresholds
from newslora.serving.app import create_app
from newslora.serving.context import Context
from newslora.serving.explaining import MOST_WAITING
from newslora.serving.keys import add_key
from newslora.serving.logs import MOST_LINES, Gathered, make_log
from newslora.serving.server import DrainingServer
from newslora.serving.settings import ServeSettings

TEXTS = ["meets over border treaty signs", "twice final games record peace", "in at as and treaty"]
BASE = "http://127.0.0.1"


class Server:
    """An app with its parts at hand."""

    def __init__(self, run: Path, **settings: Any) -> None:
        self.settings = ServeSettings(**settings)
        self.service = Told(self.settings)
        self.logged = io.StringIO()
        self.context = Context(self.service, self.settings, make_log(self.logged))
        self.service.start()
        self.context.load("news", run)
        self.context.ready = True
        self.app = create_app(self.context)

    def ask(self, talk: Callable[[httpx.AsyncClient], Awaitable[Any]], key: str | None = None) -> Any:
        async def run() -> Any:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers) as client:
                return await talk(client)

        return asyncio.run(run())

    def post(self, path: str, value: Any, key: str | None = None, **more: Any) -> httpx.Response:
        return self.ask(lambda client: client.post(path, json=value, **more), key)

    def get(self, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        return self.ask(lambda client: client.get(path, **more), key)

    def send(self, path: str, body: Any, kind: str = "application/json") -> httpx.Response:
        return self.ask(lambda client: client.post(path, content=body, headers={"Content-Type": kind}))


BATCHES = ("batches", "batch_texts", "batch_tokens", "batch_seconds")


def declared(response: httpx.Response, status: int, code: str) -> str:
    """The sentence of an error, which has the form that every error has."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"code", "message"}
    assert response.json()["error"]["code"] == code
    assert response.headers["x-request-id"]
    return str(response.json()["error"]["message"])


@pytest.fixture(scope="module")
def server(planted: Path) -> Server:
    return Server(planted, keep_uncertain=10)


@pytest.fixture(scope="module")
def classifier(planted: Path) -> Classifier:
    return Classifier.load(planted)


def test_answers_are_the_classifiers_own(server: Server, classifier: Classifier) -> None:
    answer = server.post("/v1/classify", {"texts": TEXTS, "probabilities": True, "top_k": 1}).json()
    assert (answer["adapter"], answer["version"]) == ("news", classifier.card.weights_sha256[:12])
    for one, own in zip(answer["results"], classifier(TEXTS), strict=True):
        assert (one["label"], one["labels"], one["error"]) == (own.label, list(own.labels), None)
        assert one["probability"] == pytest.approx(own.probability, abs=1e-6)  # batches differ, rounding does
        assert one["probabilities"] == pytest.approx(own.probabilities, abs=1e-6)
        assert one["top"] == [{"label": own.label, "probability": one["probability"]}]
        assert not {"words", "abstained", "answer_set"} & set(one)
    assert {one["label"] for one in answer["results"]} == {"World", "Sports"}  # not one label for all


def test_one_text_and_a_blank_one_among_many(server: Server) -> None:
    assert len(server.post("/v1/classify", {"text": TEXTS[0]}).json()["results"]) == 1
    results = server.post("/v1/classify", {"texts": [TEXTS[0], "  \n", TEXTS[1]]}).json()["results"]
    assert [one["error"] and one["error"]["code"] for one in results] == [None, "empty_text", None]
    assert results[1]["label"] is None
    assert server.post("/v1/classify", {"text": "\u200b"}).json()["results"][0]["error"]["code"] == "empty_text"


def test_abstention_is_the_classifiers_own(server: Server, classifier: Classifier) -> None:
    results = server.post("/v1/classify", {"texts": TEXTS, "abstain": 0.9}).json()["results"]
    for one, own in zip(results, classifier(TEXTS, abstain=0.9), strict=True):
        assert (one["label"], one["abstained"], one["answer_set"]) == (
            own.label,
            own.abstained,
            list(own.answer_set or ()),
        )
    message = declared(server.post("/v1/classify", {"text": TEXTS[0], "abstain": 0.999}), 422, "bad_value")
    assert "validation rows" in message


def test_explanations_are_the_classifiers_own(server: Server, classifier: Classifier) -> None:
    pytest.importorskip("captum")
    from newslora.explanation.attributions import explain

    words = server.post("/v1/classify", {"text": TEXTS[0], "explain": True}).json()["results"][0]["words"]
    own = explain(classifier, TEXTS[0])
    assert [(word["text"], word["start"], word["end"]) for word in words] == [
        (w.text, w.start, w.end) for w in own.words
    ]
    assert [word["score"] for word in words] == pytest.approx([word.score for word in own.words], abs=1e-4)
    assert max(words, key=lambda word: word["score"])["text"] == "treaty"
    declared(server.post("/v1/classify", {"texts": ["a"] * 5, "explain": True}), 422, "too_many_to_explain")


def test_as_many_texts_are_explained_as_the_setting_says_where_none_waits(planted: Path) -> None:
    pytest.importorskip("captum")
    server = Server(planted, explain_texts=MOST_WAITING + 1)
    many = {"texts": ["treaty"] * (MOST_WAITING + 1), "explain": True}
    results = server.post("/v1/classify", many).json()["results"]
    assert all(one["words"] for one in results)
    server.context.explaining = 1
    response = server.post("/v1/classify", many)
    assert "Try again in 2 s, or ask without `explain`." in declared(response, 503, "overloaded")
    assert response.headers["retry-after"] == "2"
    assert server.post("/v1/classify", {"text": "treaty", "explain": True}).status_code == 200


def test_without_captum_explaining_says_which_extra(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    message = declared(server.post("/v1/classify", {"text": TEXTS[0], "explain": True}), 501, "missing_extra")
    assert "newslora[explain]" in message


JSON_AT_ALL = "The body is not JSON that can be used: "
HOSTILE = {
    "not UTF-8": (b'{"text": "\xff\xfe"}', "bad_json", "it is not UTF-8 at byte 10"),
    "a lone surrogate": (
        b'{"text": "\\ud800 border"}',
        "bad_request",
        "text: holds half of a surrogate pair at character 0",
    ),
    "NUL": (b'{"text": "a\\u0000b"}', "bad_request", "text: holds a NUL character"),
    "a giant number": (b'{"text": "a", "top_k": ' + b"9" * 5000 + b"}", "bad_json", "more than 19 digits"),
    "twenty digits": (b'{"text": "a", "top_k": ' + b"9" * 20 + b"}", "bad_json", "more than 19 digits"),
    "twenty and a sign": (b'{"text": "a", "top_k": -' + b"9" * 20 + b"}", "bad_json", "more than 19 digits"),
    "nineteen digits": (
        b'{"text": "a", "top_k": ' + b"9" * 19 + b"}",
        "bad_request",
        "top_k: input should be less than",
    ),
    "nineteen and a sign": (
        b'{"text": "a", "top_k": -' + b"9" * 19 + b"}",
        "bad_request",
        "top_k: input should be greater",
    ),
    "a float beyond": (b'{"text": "a", "timeout": 1e999}', "bad_json", "beyond what a double holds"),
    "NaN": (b'{"text": "a", "timeout": NaN}', "bad_json", "NaN is no number of JSON"),
    "nested deeply": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad_json", "nested too deeply"),
    "the same key twice": (b'{"text": "a", "text": "b"}', "bad_json", "names a key twice"),
    "cut short": (b'{"text": "a"', "bad_json", "at line 1 column 13"),
    "no object": (b'["a"]', "bad_request", "the body is not a JSON object"),
    "nothing": (b"", "bad_request", "the body is missing"),
    "null": (b"null", "bad_request", "the body is not a JSON object"),
    "a misspelt option": (b'{"text": "a", "topk": 2}', "bad_request", "topk is not a field of this request"),
    "a number for a text": (b'{"text": 5}', "bad_request", "text: input should be a valid string"),
    "a text for a number": (b'{"text": "a", "top_k": "2"}', "bad_request", "top_k: input should be a valid integer"),
    "true for a number": (b'{"text": "a", "top_k": true}', "bad_request", "top_k: input should be a valid integer"),
    "text and texts": (b'{"text": "a", "texts": ["b"]}', "bad_request", "give either text or texts"),
    "neither": (b"{}", "bad_request", "give either text or texts"),
    "no texts": (b'{"texts": []}', "bad_request", "texts: list should have at least 1 item"),
    "a name with a path in it": (
        b'{"text": "a", "adapter": "../news"}',
        "bad_request",
        "adapter: string should match pattern",
    ),
    "a byte order mark": (b'\xef\xbb\xbf{"text": "a"}', "bad_json", "BOM"),
    "top_k of nothing": (
        b'{"text": "a", "top_k": 0}',
        "bad_request",
        "top_k: input should be greater than or equal to 1",
    ),
    "a negative timeout": (b'{"text": "a", "timeout": -1}', "bad_request", "timeout: input should be greater than 0"),
    "a timeout beyond": (b'{"text": "a", "timeout": 1e6}', "bad_value", "timeout is 1e+06 seconds, and 60 are allowed"),
}


@pytest.mark.parametrize(("body", "code", "says"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies_are_refused_for_what_they_are(server: Server, body: bytes, code: str, says: str) -> None:
    message = declared(server.send("/v1/classify", body), 422, code)
    assert says in message
    assert message.startswith(JSON_AT_ALL) == (code == "bad_json")
    assert message.endswith(" See /docs.") == (code == "bad_request")


def test_query_parameters_that_would_be_ignored_are_refused(server: Server) -> None:
    line = b'{"text": "treaty"}'
    for query, told in (
        ("adaptor=news", "Did you mean 'adapter'?"), ("explain=true", "Known: adapter, top_k, probabilities, abstain."),
        ("adapter=news&adapter=other", "names adapter twice"), ("a%0ab" + "c" * 500 + "=", "a\\nb"), ("=1", "is not"),
    ):  # fmt: skip
        response = server.send(f"/v1/classify/stream?{query}", line, "application/x-ndjson")
        message = declared(response, 422, "bad_request")
        assert told in message
        assert len(message) < 300
    message = declared(server.post("/v1/classify?adapter=news", {"text": "treaty"}), 422, "bad_request")
    assert "There are none. It is a field of the body." in message
    for path in ("/v1/adapters", "/v1/status", "/v1/feedback", "/v1/uncertain"):
        declared(server.get(path + "?limits=5"), 422, "bad_request")
    declared(server.ask(lambda client: client.delete("/v1/adapters/other?force=1")), 422, "bad_request")
    assert server.get("/v1/uncertain?limit=5&adapter=news").status_code == 200
    assert server.get("/metrics?at=1").status_code == server.get("/health?at=1").status_code == 200


def test_another_content_type_is_refused(server: Server) -> None:  # or any page could post here without asking
    message = declared(server.send("/v1/classify", b'{"text": "a"}', "text/plain"), 422, "bad_request")
    assert "application/json" in message
    declared(server.send("/v1/classify/stream", b'{"text": "a"}', "text/plain"), 422, "bad_request")


def test_a_compressed_body_is_refused_by_its_head(server: Server) -> None:
    body = gzip.compress(b'{"text": "treaty"}')
    for path, kind in (("/v1/classify", JSON), ("/v1/classify/stream", LINES)):

        async def talk(client: httpx.AsyncClient, path: str = path, kind: dict[str, str] = kind) -> httpx.Response:
            return await client.post(path, content=body, headers=kind | {"Content-Encoding": "gzip"})

        response = server.ask(talk)
        assert "Content-Encoding" in declared(response, 415, "unsupported_encoding")
        assert response.headers["accept-encoding"] == "identity"
    plain = server.post("/v1/classify", {"text": "treaty"}, headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200


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


def test_limits_are_told_with_what_is_allowed(planted: Path) -> None:
    server = Server(planted, max_texts=2, max_characters=50, body_bytes=2000, stream_rows=2)
    assert "3 texts, and 2" in declared(server.post("/v1/classify", {"texts": TEXTS}), 413, "too_many_texts")
    assert "51 characters, and 50" in declared(server.post("/v1/classify", {"text": "a" * 51}), 413, "text_too_long")
    assert "2,000 bytes" in declared(server.send("/v1/classify", b'{"text": "' + b"a" * 3000), 413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    response = server.ask(lambda client: client.post("/v1/classify", content=chunks(), headers=JSON))
    declared(response, 413, "body_too_large")
    assert response.headers["connection"] == "close"
    assert server.post("/v1/classify", {"text": TEXTS[0]}).status_code == 200


JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


def test_unknown_places_methods_and_adapters(server: Server) -> None:
    declared(server.get("/nowhere"), 404, "not_found")
    declared(server.get("/page/../app.py"), 404, "not_found")
    declared(server.get("/v1/classify"), 405, "method_not_allowed")
    assert "news" in declared(server.post("/v1/classify", {"text": "a", "adapter": "newz"}), 404, "unknown_adapter")


def test_overload_lateness_and_faults(planted: Path) -> None:
    server = Server(planted)
    server.service.error = OverloadedError("The queue is full.", 2.4)
    response = server.post("/v1/classify", {"text": "a"})
    declared(response, 503, "overloaded")
    assert response.headers["retry-after"] == "3"
    server.service.error = RuntimeError("secret words of a text")
    assert "secret" not in declared(server.post("/v1/classify", {"text": "a"}), 500, "internal")
    assert "secret" not in server.logged.getvalue()
    assert "RuntimeError" in server.logged.getvalue()
    server.service.error = None
    server.service.seconds = 5
    began = time.monotonic()
    declared(server.post("/v1/classify", {"text": "a", "timeout": 0.05}), 504, "deadline")
    assert time.monotonic() - began < 2


def test_keys_scopes_and_rates(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    reader, scraper = add_key(path, "reader", ["classify"]), add_key(path, "scraper", ["metrics"])
    server = Server(planted, keys=path, rate_requests=4, rate_rows=300)
    response = server.post("/v1/classify", {"text": TEXTS[0]})
    declared(response, 401, "no_key")
    assert response.headers["www-authenticate"] == "Bearer"
    declared(server.post("/v1/classify", {"text": TEXTS[0]}, key="nl_wrong"), 401, "no_key")
    assert "metrics" in declared(server.post("/v1/classify", {"text": TEXTS[0]}, key=scraper), 403, "wrong_scope")
    declared(server.get("/metrics", reader), 403, "wrong_scope")
    assert server.get("/metrics", scraper).status_code == 200
    assert server.get("/health").status_code == server.get("/ready").status_code == 200
    # the key is looked at before the body is
    declared(server.send("/v1/classify", b"not json"), 401, "no_key")
    assert server.post("/v1/classify", {"texts": TEXTS * 80}, key=reader).status_code == 200
    response = server.post("/v1/classify", {"texts": TEXTS * 80}, key=reader)
    assert "300 texts a minute" in declared(response, 429, "rate_limited")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert server.post("/v1/classify", {"texts": TEXTS}, key=reader).status_code == 200
    assert server.post("/v1/classify", {"text": TEXTS[0]}, key=reader).status_code in (200, 429)
    assert "4 requests a minute" in declared(
        server.post("/v1/classify", {"text": "a"}, key=reader), 429, "rate_limited"
    )
    logged = server.logged.getvalue()
    assert '"key": "reader"' in logged
    assert reader not in logged
    assert TEXTS[0] not in logged


def test_refused_texts_are_not_charged_and_nobody_gets_more_by_asking_at_once(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    reader = add_key(path, "reader", ["classify"])
    server = Server(planted, keys=path, rate_rows=256)
    server.service.error = OverloadedError("The queue is full.")
    for _ in range(3):  # as Retry-After says
        declared(server.post("/v1/classify", {"texts": ["treaty"] * 200}, key=reader), 503, "overloaded")
    server.service.error, server.service.seconds = None, 0.2

    async def at_once(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/v1/classify", json={"texts": ["treaty"] * 100}) for _ in range(5)))

    assert sorted(one.status_code for one in server.ask(at_once, reader)) == [200, 200, 429, 429, 429]
    server.service.seconds = 0
    assert server.post("/v1/classify", {"texts": ["treaty"] * 56}, key=reader).status_code == 200  # to the last
    declared(server.post("/v1/classify", {"text": "treaty"}, key=reader), 429, "rate_limited")


def test_texts_that_were_taken_are_charged_whatever_becomes_of_them(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    reader = add_key(path, "reader", ["classify"])
    server = Server(planted, keys=path, rate_rows=256)
    server.service.seconds = 5
    declared(server.post("/v1/classify", {"texts": ["treaty"] * 200, "timeout": 0.05}, key=reader), 504, "deadline")
    declared(server.post("/v1/classify", {"texts": ["treaty"] * 200}, key=reader), 429, "rate_limited")


def test_hosts_origins_and_headers(planted: Path) -> None:
    server = Server(planted, cors_origins=("https://desk.example.org",))
    declared(server.get("/health", headers={"Host": "attacker.example"}), 400, "wrong_host")
    for host in ("localhost:8080", "127.0.0.1", "[::1]:9"):
        assert server.get("/health", headers={"Host": host}).status_code == 200
    response = server.get("/health", headers={"Origin": "https://desk.example.org", "X-Request-ID": "mine-1"})
    assert response.headers["access-control-allow-origin"] == "https://desk.example.org"
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert (
        "access-control-allow-origin" not in server.get("/health", headers={"Origin": "https://else.example"}).headers
    )
    plain = Server(planted)
    assert (
        "access-control-allow-origin"
        not in plain.get("/health", headers={"Origin": "https://desk.example.org"}).headers
    )
    assert plain.get("/health", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"] != "a b\tc"
    named = Server(planted, allowed_hosts=("*.example.org",))
    assert named.get("/health", headers={"Host": "api.example.org"}).status_code == 200
    declared(named.get("/health"), 400, "wrong_host")


def test_stream_answers_in_order_with_ids_and_errors_in_their_place(server: Server, classifier: Classifier) -> None:
    lines = [
        json.dumps({"text": TEXTS[0], "id": "a\u2028b"}),  # a line end to Unicode and so to splitlines
        "",
        '{"text": "x", "id": 7, "id": 8}',
        "nonsense",
        json.dumps({"text": " \u200b", "id": 3}),
        json.dumps({"texts": "wrong", "id": 4}),
        json.dumps({"text": TEXTS[1]}),
    ]
    response = server.send("/v1/classify/stream?probabilities=true", "\n".join(lines), "application/x-ndjson")
    answers = [json.loads(line) for line in response.text.splitlines()]
    assert [one["id"] for one in answers] == ["a\u2028b", None, None, 3, 4, None]
    codes = [one["error"] and one["error"]["code"] for one in answers]
    assert codes == [None, "bad_json", "bad_json", "empty_text", "bad_request", None]
    own = classifier([TEXTS[0], TEXTS[1]])
    assert [answers[0]["label"], answers[-1]["label"]] == [one.label for one in own]
    assert answers[0]["probabilities"] == pytest.approx(own[0].probabilities, abs=1e-6)
    assert answers[0]["version"] == classifier.card.weights_sha256[:12]


def test_stream_holds_lines_to_their_limit_and_goes_on(planted: Path) -> None:
    server = Server(planted, body_bytes=2000, max_characters=500)
    body = b'{"text": "' + b"a" * 5000 + b'"}\n' + json.dumps({"text": TEXTS[0], "id": 1}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 700):
            yield body[start : start + 700]

    response = server.ask(lambda client: client.post("/v1/classify/stream", content=pieces(), headers=LINES))
    first, second = (json.loads(line) for line in response.text.splitlines())
    assert first["error"]["code"] == "line_too_long"
    assert (second["id"], second["error"]) == (1, None)
    declared(server.send("/v1/classify/stream?adapter=gone", b"", "application/x-ndjson"), 404, "unknown_adapter")


def test_stream_waits_where_the_queue_is_full(planted: Path) -> None:
    server = Server(planted)
    server.service.error = OverloadedError("The queue is full.")

    async def talk(client: httpx.AsyncClient) -> httpx.Response:
        asking = asyncio.create_task(client.post("/v1/classify/stream", content=b'{"text": "treaty"}\n', headers=LINES))
        while len(server.service.asked) < 2:
            await asyncio.sleep(0.01)
        server.service.error = None
        return await asking

    assert json.loads(server.ask(talk).text)["error"] is None


def test_a_stream_whose_client_takes_its_time_is_no_slow_answer(planted: Path) -> None:
    server = Server(planted)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"text": "treaty"}\n'
        await asyncio.sleep(0.6)
        yield b'{"text": "games"}\n'

    server.ask(lambda client: client.post("/v1/classify/stream", content=slowly(), headers=LINES))
    load = server.get("/v1/status").json()["load"]
    assert (load["p50_ms"], load["p99_ms"]) == (None, None)
    assert load["texts_per_second"] == pytest.approx(2 * load["requests_per_second"])
    server.post("/v1/classify", {"text": "treaty"})
    assert server.get("/v1/status").json()["load"]["p99_ms"] < 500
    counted = server.get("/metrics").text
    assert 'newslora_request_seconds_count{route="/v1/classify"} 1.0' in counted  # each route has its own


def test_adapters_come_change_and_go_while_requests_run(planted: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "adapters"
    shutil.copytree(planted, root / "two")
    (root / "hollow").mkdir()
    (root / "out").symlink_to(planted)
    server = Server(planted, adapters_root=root)

    async def put(client: httpx.AsyncClient, name: str, folder: str) -> httpx.Response:
        return await client.put(f"/v1/adapters/{name}", json={"folder": folder})

    async def talk(client: httpx.AsyncClient) -> None:
        assert (await put(client, "two", "two")).status_code == 201
        listed = (await client.get("/v1/adapters")).json()["adapters"]
        assert [(one["name"], one["default"]) for one in listed] == [("news", True), ("two", False)]
        for outside in ("..", "/etc", "out", "two/../../x", "a" * 3000):
            declared(await put(client, "x", outside), 403, "outside_root")
        declared(await put(client, "x", "none"), 404, "no_folder")
        declared(await put(client, "two", "hollow"), 422, "adapter_refused")
        versions = {(await client.get("/v1/adapters")).json()["adapters"][1]["version"]}
        answers = [client.post("/v1/classify", json={"text": "treaty", "adapter": "two"}) for _ in range(20)]
        swaps = [put(client, "two", "two") for _ in range(3)]
        done = await asyncio.gather(*answers, *swaps)
        assert all(one.status_code == 200 for one in done)
        assert {one.json()["version"] for one in done[:20]} == versions
        assert (await client.delete("/v1/adapters/two")).json() == {"removed": "two"}
        declared(await client.post("/v1/classify", json={"text": "treaty", "adapter": "two"}), 404, "unknown_adapter")
        declared(await client.delete("/v1/adapters/two"), 404, "unknown_adapter")

    server.ask(talk)
    fixed = Server(planted)
    declared(fixed.ask(lambda client: client.delete("/v1/adapters/news")), 403, "adapters_fixed")
    declared(fixed.ask(lambda client: put(client, "x", "two")), 403, "adapters_fixed")


def test_each_answer_is_of_the_version_it_names(
    planted: Path, tmp_path: Path, make_adapter: Callable[..., Path]
) -> None:
    folders = [make_adapter(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    own = {one.card.weights_sha256[:12]: one(TEXTS[0]) for one in map(Classifier.load, folders)}
    assert len({one.probability for one in own.values()}) == 2
    server = Server(planted, adapters_root=tmp_path)
    seen: set[str] = set()

    async def talk(client: httpx.AsyncClient) -> None:
        async def ask() -> None:
            for _ in range(30):
                answer = (await client.post("/v1/classify", json={"texts": TEXTS, "adapter": "x"})).json()
                seen.add(answer["version"])
                expected = own[answer["version"]].probability
                assert answer["results"][0]["probability"] == pytest.approx(expected, abs=1e-6)

        async def swap() -> None:
            for number in range(8):
                assert (await client.put("/v1/adapters/x", json={"folder": str(number % 2 + 1)})).status_code == 200
                await asyncio.sleep(0.01)

        assert (await client.put("/v1/adapters/x", json={"folder": "1"})).status_code == 201
        await asyncio.gather(swap(), *(ask() for _ in range(3)))

    server.ask(talk)
    assert seen == set(own)


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
        f'newslora_queue{{encoder="{classifier.card.backbone}",what="rows_bound"}} 2048.0',
        'newslora_rejected_total{reason="not_found"} 1.0',
    ):
        assert line in text
    assert "made" not in text
    batches = {name: float(re.search(rf"^newslora_{name}_total (\S+)$", text, re.MULTILINE)[1]) for name in BATCHES}  # type: ignore[index]
    assert batches["batch_texts"] == 4
    assert 2 <= batches["batches"] <= 4
    assert batches["batch_tokens"] > 4 * 2


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
        save_thresholds(LabelThresholds(values, {}), folder, card.weights_sha256)
        server.context.load("topics", folder)
        server.post("/v1/classify", {"texts": TEXTS, "adapter": "topics"})
        assert server.get("/v1/uncertain?adapter=topics").json()["items"][0]["text"] == text
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
    assert len(stream.getvalue().splitlines()) >= 9 * MOST_LINES  # many wait for nobody
    lines.write_out()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sorted(one["number"] for one in told[1:]) == list(range(10 * MOST_LINES))
