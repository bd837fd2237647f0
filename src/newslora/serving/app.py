"""The app: routes and status codes. What they do stands in the modules beside."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from newslora import __version__
from newslora.errors import NewsloraError
from newslora.serving import managing, tracing
from newslora.serving.answering import classify
from newslora.serving.context import Context
from newslora.serving.guard import LOCAL, Guard
from newslora.serving.pages import add_pages
from newslora.serving.problems import Problem, json_response, loading, validation_problem
from newslora.serving.quick import Quick
from newslora.serving.routes import (
    CheckedRoute,
    context_of,
    describe_keys,
    exchange_of,
    finder,
    key_of,
    needs,
    refusals,
)
from newslora.serving.schemas import (
    NAME,
    Adapter,
    AdapterFolder,
    Adapters,
    ClassifyAnswer,
    ClassifyRequest,
    Corrections,
    FeedbackKept,
    FeedbackRequest,
    Health,
    Removed,
    StreamAnswer,
    StreamLine,
    UncertainItems,
)
from newslora.serving.status_schemas import Status
from newslora.serving.streaming import ACCEPTED, NDJSON, LineStream, Options

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PathName = Annotated[str, Path(pattern=NAME, description="An adapter's name.")]
QueryName = Annotated[
    str | None, Query(pattern=NAME, description="An adapter's name; left out: the default one, or all.")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
BODY = (401, 403, 408, 413, 415, 422, 429)
ASKED = (401, 403, 422, 429)
DESCRIPTION = """Classifies texts with LoRA adapters on shared encoders. Where the server has keys, send one as
`Authorization: Bearer KEY`. Every error is `{"error": {"code": ..., "message": ...}}`, and every answer carries
`X-Request-ID`, which is yours if you send one."""

LINES_IN = {NDJSON: {"schema": StreamLine.model_json_schema()}}
LINES_OUT = {NDJSON: {"schema": StreamAnswer.model_json_schema()}}

router = APIRouter(route_class=CheckedRoute)


@router.post("/v1/classify", response_model=ClassifyAnswer, responses=refusals(*BODY, 404, 501, 504), tags=["classify"])
@needs("classify")
async def classify_texts(request: Request, asked: ClassifyRequest) -> Response:
    """Classify one text or several; all are answered by one version of the adapter."""
    answer = await classify(context_of(request), key_of(request), asked, exchange_of(request).note)
    return json_response(answer.model_dump(exclude_unset=True))


@router.post(
    "/v1/classify/stream",
    response_class=Response,
    responses=refusals(*ASKED, 404, 408, 415, 501)
    | {200: {"description": "A line for each line, in order.", "content": LINES_OUT}},
    openapi_extra={"requestBody": {"required": True, "content": LINES_IN}},
    tags=["classify"],
)
@needs("classify")
async def classify_stream(
    request: Request,
    adapter: QueryName = None,
    top_k: Annotated[int | None, Query(ge=1, le=1000, description="Also return this many labels.")] = None,
    probabilities: Annotated[bool, Query(description="Also return the probability of every label.")] = False,
    abstain: Annotated[float | None, Query(ge=0.5, lt=1, description="As in /v1/classify.")] = None,
) -> Response:
    """Classify any number of texts: JSON lines in, JSON lines out, answered while they come in."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ACCEPTED:  # a page elsewhere may send any browser here with a plain content type
        raise Problem(
            422, "bad_request", f"The lines are sent as '{kind[:80]}'; send the header Content-Type: {NDJSON}."
        )
    context = context_of(request)
    options = Options(context.service.get(adapter).name, top_k, probabilities, abstain)
    return LineStream(context, key_of(request), options, exchange_of(request))


@router.get("/v1/adapters", response_model=Adapters, responses=refusals(401, 422, 429), tags=["adapters"])
@needs()
async def list_adapters(request: Request) -> Response:
    """The adapters served; `default` answers requests that name none."""
    return json_response({"adapters": managing.adapters(context_of(request))})


@router.put(
    "/v1/adapters/{name}",
    response_model=Adapter,
    responses=refusals(*BODY, 404) | {201: {"model": Adapter, "description": "Loaded under a new name."}},
    tags=["adapters"],
)
@needs("admin")
async def put_adapter(request: Request, name: PathName, asked: AdapterFolder) -> Response:
    """Load an adapter from a folder on the server, or replace one; requests go on being answered meanwhile."""
    record, new = await managing.put(context_of(request), name, asked.folder)
    return json_response(record, 201 if new else 200)


@router.delete("/v1/adapters/{name}", response_model=Removed, responses=refusals(*ASKED, 404), tags=["adapters"])
@needs("admin")
async def delete_adapter(request: Request, name: PathName) -> Response:
    """Stop serving an adapter; its folder stays."""
    await managing.delete(context_of(request), name)
    return json_response({"removed": name})


@router.post("/v1/feedback", response_model=FeedbackKept, responses=refusals(*BODY, 404, 409, 501), tags=["feedback"])
@needs("feedback")
async def give_feedback(request: Request, asked: FeedbackRequest) -> Response:
    """Keep the right label of a text, to train on."""
    return json_response({"id": await managing.keep(context_of(request), key_of(request), asked)})


@router.get("/v1/feedback", response_model=Corrections, responses=refusals(*ASKED, 501), tags=["feedback"])
@needs("admin")
async def list_feedback(request: Request, limit: Limit = 100) -> Response:
    """Corrections, newest first."""
    return json_response({"corrections": await managing.corrections(context_of(request), limit)})


@router.get("/v1/uncertain", response_model=UncertainItems, responses=refusals(*ASKED, 404), tags=["feedback"])
@needs("feedback")
async def list_uncertain(request: Request, adapter: QueryName = None, limit: Limit = 50) -> Response:
    """The least sure answers of the last hour, as far as the server keeps them: what to look at first."""
    return json_response({"items": managing.uncertain(context_of(request), adapter, limit)})


@router.get("/v1/status", response_model=Status, responses=refusals(401, 422, 429), tags=["server"])
@needs()
async def status(request: Request) -> Response:
    """Live numbers: rates and times over the last minute, what waits, and by adapter label mix, confidence and drift."""
    return json_response(await asyncio.to_thread(managing.status, context_of(request)))


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Health, responses=refusals(), tags=["server"])
async def health(request: Request) -> Response:
    """Whether the process works; 503 is permanent and means that it must be restarted."""
    if problems := context_of(request).service.problems():
        raise Problem(503, "broken", problems[0], 1.0)
    return json_response({"status": "ok"})


@router.head("/ready", include_in_schema=False)
@router.get("/ready", response_model=Health, responses=refusals(), tags=["server"])
async def ready(request: Request) -> Response:
    """Whether requests should be sent here: 503 until all adapters are loaded, and once the server is told to end."""
    context = context_of(request)
    if context.draining:
        raise Problem(503, "draining", "The server is ending.", 1.0)
    if not context.ready:
        raise loading()
    return json_response({"status": "ready"})


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    responses=refusals(401, 403, 429)
    | {200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
    response_class=Response,
    tags=["server"],
)
@needs("metrics")
async def metrics(request: Request) -> Response:
    """Everything counted, for Prometheus."""
    body, kind = await asyncio.to_thread(context_of(request).metrics.text)
    return Response(body, media_type=kind)


def create_app(context: Context, on_start: Callable[[], None] = lambda: None) -> FastAPI:
    """The app around a server's parts.

    Args:
        context: the parts; closed when the app ends.
        on_start: called in the running event loop, once the app has started.
    """
    settings = context.settings
    traced: list[Any] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        context.service.start()
        on_start()
        yield
        left = settings.grace_seconds if context.end_by is None else max(0.0, context.end_by - time.monotonic())
        await asyncio.to_thread(context.service.drain, left)
        context.close()
        for provider in traced:
            if not await tracing.end(provider):
                context.log.warning("trace", message="The last spans were not taken in time, and are lost.")

    app = FastAPI(
        title="newslora", version=__version__, description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # its own; ours is tracing.py
    )  # fmt: skip
    app.state.context = context
    app.include_router(router)
    describe_keys(app.openapi(), router, context.keys is not None)
    add_pages(app)

    async def refuse(request: Request, error: Exception) -> Response:
        wrong = error.errors() if isinstance(error, RequestValidationError) else None
        problem = context.problem(error) if wrong is None else validation_problem(wrong)
        if problem.status_code == 500:
            raise error
        context.metrics.rejected(problem.code)
        return problem.response()

    for kind in (HTTPException, RequestValidationError, NewsloraError):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(Quick, context=context)
    hosts = settings.allowed_hosts
    if hosts is None and settings.host in LOOPBACK:
        hosts = LOCAL
    elif hosts is not None and "*" in hosts:
        hosts = None
    hosts = None if hosts is None else tuple(name.lower() for name in hosts)
    app.add_middleware(Guard, context=context, hosts=hosts, route_of=finder((*router.routes, *app.routes)))
    if settings.cors_origins:
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"], expose_headers=["X-Request-ID", "Retry-After"],
        )  # fmt: skip
    if tracing.wanted(settings):
        traced.append(tracing.trace(app))
    return app
