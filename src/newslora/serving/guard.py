"""Around every request: its id, host, size, pace and headers; the log line and the counts at its end.

Plain ASGI, for it must see each piece of a body as it comes and each piece of an answer as it goes.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newslora.serving.context import Context
from newslora.serving.keys import Key
from newslora.serving.logs import new_id, where
from newslora.serving.problems import Problem
from newslora.serving.protocol import ABORT, CAME, FLOW, UPGRADE

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
DROPPED = 10  # times `body_bytes`: so much of an unwanted body is read, for its writer to hear the answer
STREAMED = "/v1/classify/stream"  # its body has no end in view: limits hold for each line and each piece
PROBES = ("/health", "/ready")  # asked by the address of a machine or pod, which no list of names holds
QUIET = (*PROBES, "/metrics")  # asked every few seconds by machines
LOCAL = ("localhost", "127.0.0.1", "[::1]")
SECURITY = (  # as ASGI has them
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class SlowClient(Exception):
    """A client that does not take its answer."""


class Guard:
    """The ASGI app around the server's own: every request passes through its checks and is logged and counted at its end.

    Args:
        app: what answers.
        context: the server's parts.
        hosts: names that requests may name, in lower case; None: any.
        route_of: the route of a path, under which a request is told though no router has seen it; None: there is none.
    """

    def __init__(
        self, app: ASGIApp, context: Context, hosts: tuple[str, ...] | None, route_of: Callable[[str], str | None]
    ) -> None:
        self.app, self.context, self.hosts, self.route_of = app, context, hosts, route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Exchange(self.context, scope, receive, send)
        asked.route = self.route_of(scope["path"])
        self.context.active += 1
        self.context.metrics.active.set(self.context.active)
        try:
            asked.check(self.hosts)
            await self.app(scope, asked.receive, asked.send)
        except SlowClient:
            asked.cut("slow_client")
        except asyncio.CancelledError:
            asked.ended = asked.ended or "cancelled"
            raise
        except Exception as error:  # noqa: BLE001 - the last place where an error can become an answer
            await asked.fail(error)
        finally:
            self.context.active -= 1
            self.context.metrics.active.set(self.context.active)
            asked.told()


class Exchange:
    """One request and its answer on their way through."""

    def __init__(self, context: Context, scope: Scope, receive: Receive, send: Send) -> None:
        self.context, self.scope = context, scope
        self._receive, self._send = receive, send
        self.began = time.perf_counter()
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else new_id()
        self.status: int | None = None
        self.ended: str | None = None  # what cut it short
        self.seconds: float | None = None  # to the answer's end, where the request outlasts it
        self.slow = False  # its body did not come in time
        self.read = 0  # bytes of the body
        self.whole = self._has_no_body()  # all of it was read, or nobody is there to send more
        self.streamed = scope["path"] == STREAMED
        self.until = time.monotonic() + context.settings.read_seconds
        self.note: dict[str, Any] = {}  # what routes add to the log line
        self.key: Key | None = None  # set by `routes.admit`
        self.route: str | None = None  # where it is known without the framework's router
        scope.setdefault("state", {})["exchange"] = self

    def check(self, hosts: tuple[str, ...] | None) -> None:
        """Refuse what can be refused by its head.

        Raises:
            Problem: 400, 413, 415 or 503.
        """
        settings = self.context.settings
        if self.scope.get(UPGRADE):
            raise Problem(
                400,
                "bad_request",
                "The request asks for another protocol (the header Upgrade), and its body cannot be read so. Send it as plain "
                "HTTP/1.1: Java's client takes `version(HttpClient.Version.HTTP_1_1)`.",
            )
        told = self.headers.getlist("host")  # of two, a proxy before us may have gone by the other
        if not (hosts is None or self.scope["path"] in PROBES or (len(told) == 1 and _names(told[0], hosts))):
            raise Problem(
                400, "wrong_host", "The Host header names another server. Allowed names are the setting allowed_hosts."
            )
        if self.context.active > settings.connections and self.scope["path"] not in QUIET:
            raise Problem(503, "busy", f"{settings.connections:,} requests are being answered. Try again in 1 s.", 1.0)
        length = self.headers.get("content-length", "0")
        if not self.streamed and length.isdigit() and int(length) > settings.body_bytes:
            raise self._too_large()
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity" and not self.whole:
            raise Problem(
                415,
                "unsupported_encoding",
                "The body is compressed or otherwise encoded (Content-Encoding). Send it as it is.",
                headers={"Accept-Encoding": "identity"},
            )

    async def receive(self) -> Message:
        """The next piece of the body, in time and within the limit.

        Raises:
            Problem: 408 or 413.
        """
        settings = self.context.settings
        if self.status is not None and not self.streamed:
            return await self._piece()  # the answer has begun: this waits for the client to leave
        came = self.scope.get(CAME)
        if came is not None and came.is_set():
            return self._counted(await self._piece())
        left = settings.read_seconds if self.streamed else self.until - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                message = await self._piece()
        except TimeoutError:
            self.slow = True
            raise Problem(
                408, "slow_request", f"The body did not come within {settings.read_seconds:g} seconds. Send it again."
            ) from None
        return self._counted(message)

    def _counted(self, message: Message) -> Message:
        self.read += len(message.get("body", b""))
        if not self.streamed and self.read > self.context.settings.body_bytes:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """The next piece of the answer, with headers that every answer has.

        An answer that does not wait for the whole body, as most refusals, ends the connection, but not at once: a connection
        closed on a client that still writes is reset, and the answer lost.

        Raises:
            SlowClient: it is not taken in time.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._take_what_came()
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            given = {name for name, _ in headers.raw}
            headers.raw.extend(one for one in SECURITY if one[0] not in given)
            if self.context.draining or not (self.whole or self._answers_while_reading()):
                headers["Connection"] = "close"
        elif not self.whole and not message.get("more_body", False):
            await self._pass_on({**message, "more_body": True})
            self.seconds = time.perf_counter() - self.began
            await self._drop_rest()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        flow = self.scope.get(FLOW)
        if flow is not None and not flow.write_paused:  # it will not wait, and a timer costs as much as to write
            await self._send(message)
            return
        try:
            async with asyncio.timeout(self.context.settings.write_seconds):
                await self._send(message)
        except TimeoutError:
            raise SlowClient from None

    async def _piece(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.whole = True
        return message

    async def _take_what_came(self) -> None:
        """Read the piece of an unread body that is there already, without waiting for it."""
        asking = "expect" in self.headers and not self.read  # it would be told to send the body
        if self.whole or asking or self._answers_while_reading():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                await self._piece()

    async def _drop_rest(self) -> None:
        """Read an unwanted body to its end, within bounds of time and size."""
        settings = self.context.settings
        if self.slow:
            return
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.read_seconds):
                while not self.whole and dropped <= DROPPED * settings.body_bytes:
                    dropped += len((await self._piece()).get("body", b""))

    def _answers_while_reading(self) -> bool:
        return self.streamed and self.status == 200

    def _has_no_body(self) -> bool:
        return "transfer-encoding" not in self.headers and self.headers.get("content-length", "0") == "0"

    async def fail(self, error: Exception) -> None:
        """Answer with what went wrong, or cut the connection if the answer has begun."""
        problem = self.context.problem(error)
        if problem.status_code == 500:
            self.context.log.error("failed", request=self.id, error=type(error).__name__, where=where(error))
        self.context.metrics.rejected(problem.code)
        if self.status is not None:
            self.cut(problem.code)
            return
        try:
            await problem.response()(self.scope, self.receive, self.send)
        except SlowClient:
            self.cut("slow_client")

    def cut(self, reason: str) -> None:
        """Drop the connection, with what the client has not taken."""
        self.ended = reason
        self.context.metrics.rejected(reason)
        abort = self.scope.get(ABORT)
        if abort is not None:
            abort()

    def told(self) -> None:
        """One log line and the counts, at the end."""
        seconds = time.perf_counter() - self.began if self.seconds is None else self.seconds
        route = self.route or getattr(self.scope.get("route"), "path", None)
        self.context.metrics.request(route, self.scope["method"], self.status or 499, seconds)
        if self.note.get("rows") and self.status == 200:
            self.context.observed.request(None if self.streamed else seconds, self.note["rows"])
        if self.scope["path"] in QUIET and self.status in (200, 503):
            return
        ended = {} if self.ended is None else {"ended": self.ended}
        self.context.log.info(
            "request",
            request=self.id,
            method=self.scope["method"] if self.scope["method"].isascii() else "?",
            route=route or "other",
            status=self.status,
            ms=round(1000 * seconds, 1),
            **self.note,
            **ended,
        )

    def _too_large(self) -> Problem:
        allowed = self.context.settings.body_bytes
        return Problem(
            413,
            "body_too_large",
            f"The body has more than {allowed:,} bytes. Send fewer texts at once, or stream them.",
        )


def _names(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a Host header, with or without a port, names one of these; '*.example.org' stands for all below it."""
    name = re.sub(r":\d*$", "", host.lower())
    return name in allowed or any(one.startswith("*.") and name.endswith(one[1:]) for one in allowed)
