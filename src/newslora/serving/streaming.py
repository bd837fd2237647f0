"""JSON lines in, JSON lines out, in order: any number of texts in bounded memory.

No more is read than one piece of the body, and not the next before the answers to the last were taken: a slow reader slows
the writer down through TCP. What can be answered is answered at once, without waiting for a full batch.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from newslora.data.articles import is_empty
from newslora.errors import DrainingError, NewsloraError, OverloadedError
from newslora.serving.answering import EMPTY, failed, result, too_long
from newslora.serving.context import Context
from newslora.serving.guard import Exchange
from newslora.serving.keys import Key
from newslora.serving.problems import Problem, json_response, problem_of, validation_problem
from newslora.serving.rates import RATE_LIMITED
from newslora.serving.schemas import ErrorRecord, Result, StreamLine
from newslora.serving.strict import parse

NDJSON = "application/x-ndjson"
ACCEPTED = (NDJSON, "application/ndjson", "application/jsonl", "application/json-lines", "application/json")
WAIT = 0.25  # seconds between tries where the queue is full, at first


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be told of each line."""

    adapter: str
    top_k: int | None = None
    probabilities: bool = False
    abstain: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line as read: text and the client's id, or what is wrong with it."""

    id: Any
    text: str
    error: ErrorRecord | None = None


class LineStream(Response):
    """The response whose body is answered as the request's is read.

    starlette's StreamingResponse reads the request by itself, to see the client leave, and would eat the lines.
    """

    media_type = NDJSON

    def __init__(self, context: Context, key: Key, options: Options, exchange: Exchange) -> None:
        super().__init__()
        self.context, self.key, self.options, self.exchange = context, key, options, exchange
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()  # before the answer begins, or a client that sent Expect would never be told to go on
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for lines in self._windows(first, receive):
                body = await self._answer(lines)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except (Problem, DrainingError) as error:  # the body stopped coming, or the server is ending
            problem = problem_of(error)
            self.exchange.ended = problem.code
            self.context.metrics.rejected(problem.code)
            await send(
                {"type": "http.response.body", "body": _told(None, {"error": problem.record()}), "more_body": True}
            )
        except _Left:
            self.exchange.ended = "client_left"
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _windows(self, message: Message, receive: Receive) -> AsyncIterator[list[Line]]:
        """The lines of each piece of the body, at most `stream_rows` at once."""
        size, limit = self.context.settings.stream_rows, self.context.settings.body_bytes
        rest, skipping = bytearray(), False
        while True:
            if message["type"] == "http.disconnect":
                raise _Left
            more = message.get("more_body", False)
            piece = message.get("body", b"")
            rest += piece
            whole: list[bytearray] = []
            if b"\n" in piece:  # else a long line would be copied whole with each piece of it
                *whole, rest = rest.split(b"\n")
            if not more and rest.strip():
                whole, rest = [*whole, rest], bytearray()
            lines = []
            for raw in whole:
                if skipping:  # the end of a line that was refused by its beginning
                    skipping = False
                elif raw.strip():
                    lines.append(self._read(raw, limit))
            if len(rest) > limit:
                if not skipping:
                    lines.append(self._read(rest, limit))
                rest, skipping = bytearray(), True
            for start in range(0, len(lines), size):
                yield lines[start : start + size]
            if not more:
                return
            message = await receive()

    def _read(self, raw: bytearray, limit: int) -> Line:
        """One line of the body."""
        if len(raw) > limit:
            return Line(None, "", ErrorRecord(code="line_too_long", message=f"The line has more than {limit:,} bytes."))
        identity = None
        try:
            value = parse(raw)
            if isinstance(value, dict) and isinstance(value.get("id"), (str, int, float, bool)):
                identity = value["id"]
            line = StreamLine.model_validate(value)
        except Problem as problem:
            message = problem.message.replace("The body", "The line", 1)
            return Line(None, "", ErrorRecord(code=problem.code, message=message))
        except ValidationError as error:
            faults = [{**one, "loc": ("line", *one["loc"])} for one in error.errors(include_url=False)]
            return Line(identity, "", ErrorRecord(**validation_problem(faults).record()))
        allowed = self.context.settings.max_characters
        if len(line.text) > allowed:
            message = f"The text has {too_long(line.text, allowed)}"
            return Line(line.id, "", ErrorRecord(code="text_too_long", message=message))
        return Line(line.id, line.text, EMPTY if is_empty(line.text) else None)

    async def _answer(self, lines: Sequence[Line]) -> bytes:
        """The answers to a window of lines, as lines."""
        options, context = self.options, self.context
        texts = [line.text for line in lines if line.error is None]
        error: ErrorRecord | None = None
        found = []
        try:
            found = await self._patiently(texts)
        except DrainingError:
            raise
        except (NewsloraError, Problem) as problem:
            error = ErrorRecord(**problem_of(problem).record())
        if found:
            context.metrics.answered(found[0].served.name, len(texts), sum(map(len, texts)))
        note = self.exchange.note
        note["rows"] = note.get("rows", 0) + len(lines)
        told = iter(found)
        out = []
        for line in lines:
            if (wrong := line.error or error) is not None:
                context.metrics.failed(wrong.code)
                out.append(_told(line.id, {"adapter": options.adapter, "version": None}, failed(wrong)))
                continue
            one = next(told)
            context.seen(line.text, one)
            head = {"adapter": one.served.name, "version": one.served.version}
            note |= head
            out.append(
                _told(line.id, head, result(one, options.top_k, options.probabilities, options.abstain is not None))
            )
        return b"".join(out)

    async def _patiently(self, texts: Sequence[str]) -> list[Any]:
        """The service's answers; where it is full or the key's rate is used up, the stream waits and so does its writer."""
        context = self.context
        until = time.monotonic() + context.settings.longest_timeout
        while True:
            try:
                with context.rates.rows(context.rated(self.key), len(texts)):
                    return await self._once_there_is_room(texts, until)
            except Problem as problem:
                if problem.code != RATE_LIMITED or time.monotonic() > until:
                    raise
            await asyncio.sleep(1)

    async def _once_there_is_room(self, texts: Sequence[str], until: float) -> list[Any]:
        context, wait = self.context, WAIT
        while True:
            deadline = time.monotonic() + context.settings.deadline_seconds
            try:
                return await context.service.answer(
                    self.options.adapter, texts, abstain=self.options.abstain, deadline=deadline
                )
            except OverloadedError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(wait)
                wait = min(2.0, 2 * wait)


class _Left(Exception):
    """The client is gone."""


def _told(identity: Any, head: dict[str, Any], one: Result | None = None) -> bytes:
    """One line of the answer."""
    body = {} if one is None else one.model_dump(exclude_unset=True)
    return bytes(json_response({"id": identity, **head, **body}).body) + b"\n"
