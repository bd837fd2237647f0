"""uvicorn's HTTP protocol, with what it leaves open: how long a request's head may take, and how large all but its body is."""

import asyncio
import json
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from newslora.serving.logs import new_id

# in a request's scope
ABORT = "newslora.abort"  # drops the connection
UPGRADE = "newslora.upgrade"  # its body cannot be read, for it asks for another protocol
FLOW = "newslora.flow"  # uvicorn's: whether writing has to wait
CAME = "newslora.came"  # set while there is a piece of the body to be had, so that nothing need wait for one
HEAD_BYTES = 65_536  # of a head; also of trailers, and of what may stand in a chunk's first line


class GuardedProtocol(HttpToolsProtocol):
    """Cuts connections whose next request's head does not come whole in time, or without end.

    uvicorn's own timer runs between requests only, and the first byte of one stops it. A connection whose request was answered
    before its body had come is closed: what still comes is no request. Nor is the body of a request that asks for another
    protocol (Java's client does of every first one): the parser stops before it, and would read a request out of it.
    """

    head_seconds = 10.0  # set by `protocol_class`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._other_bytes = 0  # read since the last piece of a body, or the last whole head
        self._in_body = False  # of the request that was parsed last
        self._deaf = False  # what still comes is of another protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        idle = self.cycle is None or self.cycle.response_complete
        if begins := idle and not self._in_body and self._head_timer is None:
            self._other_bytes = 0
        self._other_bytes += len(data)
        before = self.cycle
        super().data_received(data)
        if begins and self.cycle is before and not self.transport.is_closing():  # a head that came whole needs no timer
            self._await_head()
        if self._other_bytes > HEAD_BYTES and not (self._deaf or self.transport.is_closing()):
            self.send_400_response("The request's head or trailer is too large.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else it is a trailer: nobody reads one, and a million of them would fill the memory
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_came()
        self._other_bytes, self._in_body = 0, True
        self._deaf = self.parser.should_upgrade() and announces_body(self.headers)
        scope = cast(dict[str, Any], self.scope)
        scope.update({ABORT: self.transport.abort, UPGRADE: self._deaf, FLOW: self.flow})
        super().on_headers_complete()
        scope[CAME] = self.cycle.message_event

    def on_body(self, body: bytes) -> None:
        self._other_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._deaf:  # the parser takes the body for what follows
            return
        self._other_bytes, self._in_body = 0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._in_body and self.cycle.response_complete:  # else this was the answer to one before the last parsed
            self.transport.close()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed in the form that every error has; an answer that has begun is broken off instead."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        name = new_id()
        self.logger.warning("Refused before it was a request: %s", name)
        body = json.dumps({"error": {"code": "bad_request", "message": msg}}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"x-request-id: {name}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: curl and Java ask for other protocols as a matter of course."""

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._cut)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.abort()


def announces_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body follows a request's head."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")) for name, value in headers
    )


def protocol_class(head_seconds: float) -> type[GuardedProtocol]:
    """The protocol with this much time for a request's head."""
    return type("Protocol", (GuardedProtocol,), {"head_seconds": head_seconds})
