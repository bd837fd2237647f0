"""The service, doing what a test tells it to: be late, be full, be broken; and the app around it, asked without a socket."""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from newslora.errors import DeadlineError
from newslora.predict.classifier import Classifier
from newslora.serving.app import create_app
from newslora.serving.context import Context
from newslora.serving.logs import make_log
from newslora.serving.service import Answered, Service
from newslora.serving.settings import ServeSettings

TEXTS = ["meets over border treaty signs", "twice final games record peace", "in at as and treaty"]
BASE = "http://127.0.0.1"
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


class Told(Service):
    """A real service that can be told to misbehave."""

    def __init__(self, limits: ServeSettings) -> None:
        super().__init__(limits)
        self.seconds = 0.0  # an answer takes longer by
        self.error: Exception | None = None  # instead of an answer
        self.asked: list[list[str]] = []
        self.broken: list[str] = []

    async def answer(
        self, name: str | None, texts: Sequence[str], *, abstain: float | None = None, deadline: float | None = None
    ) -> list[Answered]:
        self.asked.append(list(texts))
        if self.error is not None:
            raise self.error
        if deadline is not None and time.monotonic() + self.seconds > deadline:
            await asyncio.sleep(max(0.0, deadline - time.monotonic()))
            raise DeadlineError("The answer was not ready in time.")
        await asyncio.sleep(self.seconds)
        return await super().answer(name, texts, abstain=abstain, deadline=deadline)

    def problems(self) -> list[str]:
        return self.broken or super().problems()


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
