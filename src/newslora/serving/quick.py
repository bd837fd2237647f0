"""POST /v1/classify past the framework: it is most of what a busy server is asked, and its own thread is what that is short of.

FastAPI matches routes, solves dependencies and opens stacks of contexts for every request. A request that is what the route
takes needs none of it. Whatever else comes goes on to the route, which is the reference: it describes the API, says what is
wrong, and answers the same (tests/unit/test_serving_quick.py).
"""

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newslora.serving.answering import classify
from newslora.serving.context import Context
from newslora.serving.guard import Exchange
from newslora.serving.problems import Problem, json_response
from newslora.serving.routes import admit
from newslora.serving.schemas import ClassifyRequest
from newslora.serving.strict import parse

PATH = "/v1/classify"
SCOPES = ("classify",)


class Quick:
    """The ASGI app between the guard and the framework."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app, self.context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_usual(scope):
            await self.app(scope, receive, send)
            return
        exchange: Exchange = scope["state"]["exchange"]
        key = admit(self.context, exchange, SCOPES)
        body, last = await _read(receive)
        asked = None if last["type"] == "http.disconnect" else _understood(body)
        if asked is None:
            await self.app(scope, _again(body, last, receive), send)
            return
        answer = await classify(self.context, key, asked, exchange.note)
        await json_response(answer.model_dump(exclude_unset=True))(scope, receive, send)


def _is_usual(scope: Scope) -> bool:
    """A request of the API's own form, by its head."""
    if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST" or scope["query_string"]:
        return False
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    return kinds == [b"application/json"]


async def _read(receive: Receive) -> tuple[bytes, Message]:
    """The body and its last message."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return b"".join(pieces), message


def _understood(body: bytes) -> ClassifyRequest | None:
    """The request, or None where something is wrong with it."""
    try:
        return ClassifyRequest.model_validate(parse(body))
    except (Problem, ValidationError):
        return None


def _again(body: bytes, last: Message, receive: Receive) -> Receive:
    """What was read, to be read once more."""
    messages: list[Message] = [last if last["type"] == "http.disconnect" else {**last, "body": body}]

    async def read_again() -> Message:
        return messages.pop() if messages else await receive()

    return read_again
