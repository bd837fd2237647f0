"""How routes are made: keys and rates before the body is read, query and JSON read strictly, errors declared."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from newslora.serving.context import Context
from newslora.serving.guard import Exchange
from newslora.serving.keys import Key
from newslora.serving.schemas import ErrorAnswer
from newslora.serving.strict import check_query, parse

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
WHY = {
    400: "The Host header names another server.",
    401: "No valid key.",
    403: "A key that is not for this, or a place that may not be read.",
    404: "There is no such adapter, or nothing at this address.",
    408: "The body did not come in time.",
    409: "The id belongs to another correction.",
    413: "Body, text or number of texts beyond the limit.",
    415: "A compressed body.",
    422: "A request that cannot be understood or met; the sentence says why.",
    429: "The key's rate is used up; `Retry-After` says until when.",
    500: "A fault of the server's.",
    501: "An optional part of the server is not installed.",
    503: "Too much to do, or the server is ending; `Retry-After` says when to try again.",
    504: "The answer was not ready in time.",
}
STRICT = "/v1/"  # whose queries are; machines that ask /health and such add what they like
KEY = "key"  # the name of the only security scheme
ALWAYS = (400, 500, 503)
RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its OpenAPI entry."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *ALWAYS}):
        found[status] = {"model": ErrorAnswer, "description": WHY[status]}
        if status in (429, 503):
            found[status]["headers"] = RETRY
    return found


def needs(*scopes: str) -> Callable[[Endpoint], Endpoint]:
    """Mark an endpoint: it takes a key with one of these scopes; with none named, any key."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.scopes = scopes  # type: ignore[attr-defined]
        return endpoint

    return mark


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        return parse(await self.body())


class CheckedRoute(APIRoute):
    """A route that looks at the key before anything else, and reads query and JSON strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()
        scopes = getattr(self.endpoint, "scopes", None)
        parameters = [one.alias for one in self.dependant.query_params]
        bodies = [one.field_info.annotation for one in self.dependant.body_params]
        fields = [name for body in bodies for name in getattr(body, "model_fields", ())]

        async def handler(request: Request) -> Response:
            exchange = exchange_of(request)
            if scopes is not None and exchange.key is None:
                admit(context_of(request), exchange, scopes)
            if self.path.startswith(STRICT):
                check_query([name for name, _ in request.query_params.multi_items()], parameters, fields)
            return await original(StrictRequest(request.scope, request.receive))

        return handler


def admit(context: Context, exchange: Exchange, scopes: tuple[str, ...]) -> Key:
    """Look at a request's key, which the exchange gets, and count the request. Any of the scopes does; of none, any key.

    Raises:
        Problem: 401, 403 or 429.
    """
    key = context.authorise(exchange.headers.get("authorization"), scopes)
    context.rates.request(context.rated(key))
    exchange.key, exchange.note["key"] = key, key.name
    return key


def finder(routes: Iterable[BaseRoute]) -> Callable[[str], str | None]:
    """What tells the route of a path as it stands in the code (`/v1/adapters/{name}`), never as a client made it up."""
    known = [route for route in routes if isinstance(route, Route)]
    plain = {route.path for route in known if not route.param_convertors}
    patterns = [(route.path_regex, route.path) for route in known if route.param_convertors]

    def find(path: str) -> str | None:
        if path in plain:
            return path
        return next((told for pattern, told in patterns if pattern.match(path)), None)

    return find


def describe_keys(description: dict[str, Any], router: APIRouter, asked_for: bool) -> None:
    """Write into an OpenAPI description which operations take a key, and with which scope.

    Args:
        description: as FastAPI made it.
        router: whose routes it is of.
        asked_for: whether this server has keys; where it has none, they are optional.
    """
    description["components"]["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer"}}
    for route in router.routes:
        scopes = getattr(getattr(route, "endpoint", None), "scopes", None)
        if scopes is None or not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        takes = f"a key with the scope {' or '.join(f'`{scope}`' for scope in scopes)}" if scopes else "any key"
        for method in route.methods or ():
            operation = description["paths"][route.path][method.lower()]
            operation["security"] = [{KEY: []}] if asked_for else [{KEY: []}, {}]
            operation["description"] += f" Takes {takes}."


def context_of(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


def key_of(request: Request) -> Key:
    found = exchange_of(request).key
    assert found is not None, "only routes that take keys ask for one"
    return found


def exchange_of(request: Request) -> Exchange:
    found: Exchange = request.state.exchange
    return found
