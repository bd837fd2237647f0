"""The API through the app object: whatever comes in that cannot be answered is refused in the declared form."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from standin import JSON, LINES, TEXTS, Server, declared
from standin import server as server  # a fixture

from newslora.errors import OverloadedError
from newslora.serving.app import router
from newslora.serving.keys import SCOPES, add_key

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
    "a hundred fields": (json.dumps(dict.fromkeys(map(str, range(101)))).encode(), "bad_json", "more than 100 keys"),
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


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("/v1/classify", {"texts": [1] * 3000}, "texts.0: input should be a valid string"),
        ("/v1/feedback", {"text": "a", "labels": [1] * 3000}, "labels: list should have at most 1000 items"),
        ("/v1/feedback", {"text": "a", "label": "b", "predicted": [1] * 3000}, "at most 1000 items"),
    ],
    ids=lambda one: "" if isinstance(one, dict) else str(one)[:12],
)
def test_not_each_of_very_many_faults_is_looked_for(server: Server, path: str, value: Any, told: str) -> None:
    """A million of them took a gigabyte, and all other requests had to wait."""
    message = declared(server.post(path, value), 422, "bad_request")
    assert told in message
    assert " more" not in message


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
    body = b'{"text": "treaty", "label": "World"}'  # a browser sends a Blob of no type without any
    for path in ("/v1/classify", "/v1/classify/stream", "/v1/feedback"):
        bare = server.ask(lambda client, path=path: client.post(path, content=body))
        assert "content-type" not in bare.request.headers
        declared(bare, 422, "bad_request")


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


def test_a_request_refused_by_its_head_is_told_under_its_route(
    make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    server = Server(make_adapter(tmp_path / "news"), body_bytes=2000, connections=1)
    packed, elsewhere = JSON | {"Content-Encoding": "gzip"}, {"Host": "attacker.example"}
    for path, route in (
        ("/v1/classify", "/v1/classify"), ("/v1/feedback", "/v1/feedback"), ("/v1/nowhere", "other"),
        ("/v1/adapters/news", "/v1/adapters/{name}"), ("/v1/adapters/mine/too", "other"),  # whose names are clients'
    ):  # fmt: skip
        assert server.ask(lambda client, path=path: client.put(path, content=b"a", headers=packed)).status_code == 415
        assert server.send(path, b"a" * 3000).status_code == 413
        assert server.get(path, headers=elsewhere).status_code == 400
        server.context.active = 1
        assert server.get(path).status_code == 503
        server.context.active = 0
        logged = [json.loads(line) for line in server.logged.getvalue().splitlines()][-4:]
        assert [(one["route"], one["status"]) for one in logged] == [(route, code) for code in (415, 413, 400, 503)]
        counted = server.get("/metrics").text
        for method, status in (("PUT", 415), ("POST", 413), ("GET", 400), ("GET", 503)):
            assert f'method="{method}",route="{route}",status="{status}"' in counted
    for name in ("nowhere", "adapters/news", "mine"):
        assert name not in counted


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


OPENED_BY = {
    ("POST", "/v1/classify"): {"classify"},
    ("POST", "/v1/classify/stream"): {"classify"},
    ("GET", "/v1/adapters"): set(SCOPES),
    ("PUT", "/v1/adapters/{name}"): {"admin"},
    ("DELETE", "/v1/adapters/{name}"): {"admin"},
    ("POST", "/v1/feedback"): {"feedback"},
    ("GET", "/v1/feedback"): {"admin"},
    ("GET", "/v1/uncertain"): {"feedback"},
    ("GET", "/v1/status"): set(SCOPES),
    ("GET", "/metrics"): {"metrics"},
    ("HEAD", "/metrics"): {"metrics"},
}
OPEN = {(method, path) for method in ("GET", "HEAD") for path in ("/health", "/ready")}


def test_each_route_is_opened_by_its_scopes_and_no_other(planted: Path, tmp_path: Path) -> None:
    routes = {(method, one.path) for one in router.routes if isinstance(one, APIRoute) for method in one.methods}
    assert routes == OPENED_BY.keys() | OPEN
    path = tmp_path / "keys.json"
    keys = {scope: add_key(path, scope, [scope]) for scope in SCOPES}
    server = Server(planted, keys=path)
    for (method, route), scopes in OPENED_BY.items():

        def ask(client: httpx.AsyncClient, method: str = method, route: str = route) -> Any:
            return client.request(method, route.replace("{name}", "other"), headers=LINES, content=b"")

        assert server.ask(ask).status_code == 401, route
        refused = {scope for scope, key in keys.items() if wrong_scope(server.ask(ask, key))}
        assert refused == set(SCOPES) - scopes, route


def wrong_scope(response: httpx.Response) -> bool:
    """An answer to HEAD has no body to say so."""
    return response.status_code == 403 and b"adapters_fixed" not in response.content


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


def test_blank_texts_are_charged_on_neither_route(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    reader = add_key(path, "reader", ["classify"])
    server = Server(planted, keys=path, rate_rows=256)
    blank = b'{"text": " "}\n' * 200
    for _ in range(2):
        assert server.post("/v1/classify", {"texts": ["treaty", *[" "] * 200]}, key=reader).status_code == 200
        streamed = server.ask(lambda client: client.post("/v1/classify/stream", content=blank, headers=LINES), reader)
        assert streamed.text.count('"empty_text"') == 200
    assert server.post("/v1/classify", {"texts": ["treaty"] * 254}, key=reader).status_code == 200  # to the last
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
    declared(server.get("/v1/status", headers={"Host": "attacker.example"}), 400, "wrong_host")
    for host in ("localhost:8080", "127.0.0.1", "[::1]:9"):
        assert server.get("/v1/status", headers={"Host": host}).status_code == 200
    for hosts in (("localhost", "attacker.example"), ("attacker.example", "localhost")):
        twice = [("Host", host) for host in hosts]
        declared(server.get("/v1/status", headers=twice), 400, "wrong_host")
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
    assert named.get("/v1/status", headers={"Host": "api.example.org"}).status_code == 200
    declared(named.get("/v1/status"), 400, "wrong_host")
    for host in ("example.org", "badexample.org", "api.example.org.attacker.example", "[::1]:9"):
        declared(named.get("/v1/status", headers={"Host": host}), 400, "wrong_host")
    for probe in ("/health", "/ready"):
        assert named.get(probe, headers={"Host": "10.1.2.3:8080"}).status_code == 200
