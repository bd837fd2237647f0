"""OpenTelemetry spans, one a request, where they are asked for; nothing is imported or sent otherwise.

Where they go is decided by the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, ...).
"""

import asyncio
import os
from typing import TYPE_CHECKING, Any

from newslora.errors import needing
from newslora.serving.aside import Aside
from newslora.serving.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
LAST_SECONDS = 2.0  # that the last spans have to be sent
UNTOLD = "health,ready,metrics"  # asked every few seconds by machines


def wanted(settings: ServeSettings) -> bool:
    """Whether spans are made: as set, else where an endpoint is named in the environment."""
    if settings.trace is not None:
        return settings.trace
    return any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def trace(app: "FastAPI", exporter: Any = None) -> Any:
    """Make a span of every request and send it; returns the provider, to be shut down at the end.

    Args:
        app: the server's.
        exporter: where spans go; None: to the OTLP endpoint of the environment.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """
    with needing("Tracing", "trace"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "newslora"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter()) if exporter is None else SimpleSpanProcessor(exporter)
    )
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls=UNTOLD, exclude_spans=["receive", "send"]
    )
    return provider


async def end(provider: Any) -> bool:
    """Send the last spans; whether they were in time. The library itself waits half a minute for whoever does not take them."""
    sent = asyncio.wrap_future(Aside("newslora-spans").submit(provider.shutdown))
    await asyncio.wait([sent], timeout=LAST_SECONDS)
    return not sent.cancel()  # what is done cannot be cancelled
