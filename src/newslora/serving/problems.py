"""What goes wrong with a request -> status, code and sentence, in one place."""

import json
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from newslora import files
from newslora.config import fault
from newslora.errors import (
    BackboneError,
    DataError,
    DeadlineError,
    DrainingError,
    MissingExtraError,
    NetworkError,
    NewsloraError,
    OverloadedError,
    RunError,
    SettingsError,
    StorageError,
    UnknownAdapterError,
    WorkerError,
    shortened,
)

# the first class that fits counts, so the narrower stand first
KINDS: tuple[tuple[type[NewsloraError], int, str], ...] = (
    (UnknownAdapterError, 404, "unknown_adapter"),
    (OverloadedError, 503, "overloaded"),
    (DeadlineError, 504, "deadline"),
    (DrainingError, 503, "draining"),
    (MissingExtraError, 501, "missing_extra"),
    (WorkerError, 500, "worker"),
    (RunError, 422, "adapter_refused"),
    (BackboneError, 422, "adapter_refused"),
    (NetworkError, 422, "adapter_refused"),
    (StorageError, 503, "storage"),
    (SettingsError, 422, "bad_value"),
    (DataError, 422, "bad_value"),
)
# what the framework itself refuses
FRAMEWORK = {
    400: ("bad_request", "The request cannot be read as HTTP with JSON. See /docs."),
    404: ("not_found", "There is nothing at this address. See /docs."),
    405: ("method_not_allowed", "This address does not take that method. See /docs."),
}
DRAIN_RETRY = 1.0  # seconds; the next server of a rolling restart may be there by then


class Problem(HTTPException):
    """A request that is refused.

    Args:
        status: the HTTP status.
        code: one word for programs.
        message: a sentence for people: the value, what is allowed, the way out.
        retry_after: seconds after which to try again.
        headers: more of the response's.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        more = dict(headers or {})
        if retry_after is not None:
            more["Retry-After"] = str(max(1, -int(-retry_after // 1)))  # whole seconds, rounded up
        super().__init__(status, message, more)
        self.code, self.message = code, message

    def record(self) -> dict[str, str]:
        """What a client reads under "error"."""
        return {"code": self.code, "message": self.message}

    def response(self) -> Response:
        """The same as a response."""
        return json_response({"error": self.record()}, self.status_code, dict(self.headers or {}))


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A plain value as JSON; a lone surrogate, as a label may hold one, stays an escape."""
    # streams are made of these, and a client may split them at Unicode's line ends too
    text = files.unbroken(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    try:
        body = text.encode()
    except UnicodeEncodeError:
        body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")


def problem_of(error: Exception) -> Problem:
    """Any exception as what the client is told; what is not ours is a bug, and says nothing of itself."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        code, message = FRAMEWORK.get(error.status_code, ("refused", str(error.detail)))
        return Problem(error.status_code, code, message, headers=dict(error.headers or {}))
    for kind, status, code in KINDS:
        if isinstance(error, kind):
            retry = getattr(error, "retry_after", DRAIN_RETRY if status == 503 else None)
            return Problem(status, code, str(error), retry)
    return Problem(500, "internal", "The server failed at this request; its log says more under the request's id.")


def loading() -> Problem:
    """What is said until all adapters are there."""
    return Problem(503, "loading", "Adapters are being loaded. Ask again in a moment.", 1.0)


def validation_problem(errors: Sequence[Any]) -> Problem:
    """What pydantic says of a request, as one sentence a fault; values are named by place, not repeated."""
    told = []
    for item in errors[:5]:
        found, wrong = fault({**item, "loc": item["loc"][1:]})
        place = found or "the body"
        if item["type"] == "missing":
            told.append(f"{place} is missing")
        elif item["type"] == "extra_forbidden":
            told.append(f"{shown(place)} is not a field of this request")
        elif item["type"] in ("model_attributes_type", "dict_type", "model_type"):
            told.append(f"{place} is not a JSON object sent as application/json")
        else:
            told.append(f"{shown(place)}: {wrong}")
    if len(errors) > 5:
        told.append(f"{len(errors) - 5} more")
    return Problem(422, "bad_request", "; ".join(told) + ". See /docs.")


def shown(place: str) -> str:
    """A place whose names the client may have made up, short and printable."""
    short = shortened(place, 80)
    return short.encode("unicode_escape").decode() if not short.isprintable() else short
