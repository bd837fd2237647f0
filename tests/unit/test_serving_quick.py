"""What is answered past the framework is answered as its route answers it, and whatever is unusual is left to the route."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from standin import JSON, TEXTS, Server, declared

from newslora.errors import OverloadedError
from newslora.serving import app as the_route
from newslora.serving import quick
from newslora.serving.keys import add_key

PATH = "/v1/classify"
Talk = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
CHANGING = ("request", "ms", "timestamp")  # from one request to the next


@pytest.fixture(scope="module")
def server(planted: Path) -> Server:
    return Server(planted, max_texts=3)


def posted(content: Any, headers: dict[str, str] = JSON, path: str = PATH) -> Talk:
    return lambda client: client.post(path, content=content() if callable(content) else content, headers=headers)


def told(server: Server, talk: Talk) -> tuple[int, Any, dict[str, str], list[dict[str, Any]], float]:
    """All that a request leaves behind: its answer, its log lines, and how many requests have been counted as refused."""
    before = len(server.logged.getvalue())
    response = server.ask(talk)
    lines = [json.loads(line) for line in server.logged.getvalue()[before:].splitlines()]
    for line in lines:
        for name in CHANGING:
            line.pop(name)
    headers = dict(response.headers)
    headers.pop("x-request-id")
    return response.status_code, response.json(), headers, lines, refused(server)


def refused(server: Server) -> float:
    text = server.context.metrics.text()[0].decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("newslora_rejected_total"))


def by_the_route(server: Server, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(quick, "_is_usual", lambda scope: False)
        return told(server, talk)


async def in_pieces() -> AsyncIterator[bytes]:
    for piece in (b'{"text": ', b'"treaty signs at border"', b"}"):
        yield piece


USUAL = {
    "one text": {"text": TEXTS[0]},
    "several, one of them blank": {"texts": [TEXTS[0], " \n", TEXTS[1]]},
    "nothing but blanks": {"text": "\u200b"},
    "every option": {"text": TEXTS[1], "adapter": "news", "top_k": 2, "probabilities": True, "abstain": 0.9, "timeout": 9},
    "a level it cannot tell": {"text": TEXTS[0], "abstain": 0.999},
    "an adapter that is not there": {"text": TEXTS[0], "adapter": "newz"},
    "too many texts": {"texts": TEXTS * 2},
    "a timeout beyond": {"text": TEXTS[0], "timeout": 1e6},
}  # fmt: skip


@pytest.mark.parametrize("value", USUAL.values(), ids=USUAL.keys())
def test_a_usual_request_is_answered_as_by_the_route(
    server: Server, value: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = posted(json.dumps(value))
    *slowly, count = by_the_route(server, talk, monkeypatch)
    with monkeypatch.context() as patch:
        patch.delattr(the_route, "classify")  # which the route alone calls
        *quickly, later = told(server, talk)
    assert quickly == slowly
    assert later - count == (slowly[0] != 200)  # a refusal is counted once


UNUSUAL: dict[str, Talk] = {
    "nothing": posted(b""),
    "null": posted(b"null"),
    "no object": posted(b'["a"]'),
    "a number for a text": posted(b'{"text": 5}'),
    "two faults": posted(b'{"texts": ["a", 5], "topk": 2}'),
    "a key twice": posted(b'{"text": "a", "text": "b"}'),
    "cut short": posted(b'{"text": "a"'),
    "not UTF-8": posted(b'{"text": "\xff\xfe"}'),
    "another content type": posted(b'{"text": "a"}', {"Content-Type": "text/plain"}),
    "a content type with more to it": posted(b'{"text": "a"}', {"Content-Type": "application/json; charset=utf-8"}),
    "none": posted(b'{"text": "a"}', {}),
    "a query": posted(b'{"text": "a"}', path=PATH + "?adapter=news"),
    "another method": lambda client: client.get(PATH),
}


@pytest.mark.parametrize("talk", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_what_is_unusual_is_left_to_the_route(server: Server, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    *slowly, count = by_the_route(server, talk, monkeypatch)
    with monkeypatch.context() as patch:
        patch.delattr(quick, "classify")
        *quickly, later = told(server, talk)
    assert quickly == slowly
    assert later - count == (slowly[0] != 200)


def test_a_body_may_come_in_pieces(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    slowly = by_the_route(server, posted(in_pieces), monkeypatch)
    monkeypatch.delattr(the_route, "classify")
    assert told(server, posted(in_pieces)) == slowly
    assert slowly[0] == 200


def test_a_client_that_leaves_is_met_as_by_the_route(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = {
        "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"99")],
        "scheme": "http", "http_version": "1.1", "server": ("localhost", 80), "client": ("localhost", 9), "asgi": {},
    }  # fmt: skip

    def left() -> list[Any]:
        messages = [{"type": "http.request", "body": b'{"text": "tre', "more_body": True}]
        sent = []

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append((message["type"], message.get("status")))

        asyncio.run(server.app(dict(scope), receive, send))
        return sent

    with monkeypatch.context() as patch:
        patch.setattr(quick, "_is_usual", lambda scope: False)
        slowly = left()
    assert left() == slowly


def test_what_is_refused_before_its_body_is_told_as_by_the_route(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "reader", ["classify"])
    scraper = add_key(path, "scraper", ["metrics"])
    server = Server(planted, keys=path)
    for authorised, status in (({}, 401), ({"Authorization": f"Bearer {scraper}"}, 403)):
        talk = posted(b'{"text": "treaty"}', JSON | authorised)
        *slowly, count = by_the_route(server, talk, monkeypatch)
        *quickly, later = told(server, talk)
        assert (quickly, later - count) == (slowly, 1)
        assert slowly[0] == status
    small = Server(planted, body_bytes=1024)

    async def too_much() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    quickly = told(small, posted(too_much))[:4]
    assert quickly == by_the_route(small, posted(too_much), monkeypatch)[:4]
    assert quickly[0] == 413


def test_a_key_is_looked_at_first_and_counted_once(planted: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    reader, scraper = add_key(path, "reader", ["classify"]), add_key(path, "scraper", ["metrics"])
    server = Server(planted, keys=path, rate_requests=3)
    declared(server.ask(posted(b"not json")), 401, "no_key")
    declared(server.ask(posted(b"not json"), scraper), 403, "wrong_scope")
    declared(server.ask(posted(b"not json"), reader), 422, "bad_json")
    declared(server.ask(posted(b"{}"), reader), 422, "bad_request")
    assert server.post(PATH, {"text": TEXTS[0]}, key=reader).status_code == 200
    declared(server.post(PATH, {"text": TEXTS[0]}, key=reader), 429, "rate_limited")


def test_while_adapters_are_loaded_and_when_the_service_refuses(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(planted)
    monkeypatch.delattr(the_route, "classify")
    server.context.ready = False
    response = server.post(PATH, {"text": "a", "adapter": "later"})
    declared(response, 503, "loading")
    assert response.headers["retry-after"] == "1"
    server.context.ready = True
    server.service.error = OverloadedError("The queue is full.", 2.4)
    response = server.post(PATH, {"text": "a"})
    declared(response, 503, "overloaded")
    assert response.headers["retry-after"] == "3"
    server.service.error = RuntimeError("secret words of a text")
    assert "secret" not in declared(server.post(PATH, {"text": "a"}), 500, "internal")
    assert "secret" not in server.logged.getvalue()
