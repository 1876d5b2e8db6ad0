"""Spans, when they are asked for: OpenTelemetry's own instrumentation, with its metrics off (ours are there already).

They cost 100–360 µs a request, growing with the number of routes, which is why they are asked for and metrics are not
made from them. A tracer provider that the process has is used. Where there is none, one of OpenTelemetry's SDK is made,
which sends to the OTLP/HTTP endpoint that the standard ``OTEL_…`` variables name (by default http://localhost:4318).
"""

from __future__ import annotations

import os
from typing import Any, Final, NoReturn

from .asgi import Application
from .telemetry import still

INSTALL: Final = "pip install 'anvil-monitor[traces]'"


def trace(app: Any, service: str) -> None:
    """Have ``app``, of a framework that :func:`~.instrument.instrument` knows, give spans of ``service``.

    Raises ``ImportError`` where the packages are missing, and ``TypeError`` for WSGI.
    """
    if hasattr(app, "build_middleware_stack"):
        if hasattr(app, "openapi"):
            try:
                from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
            except ImportError as error:
                _missing(error)
            FastAPIInstrumentor.instrument_app(
                app, tracer_provider=_provider(service), meter_provider=_no_meters(), exclude_spans=["receive", "send"]
            )
            still(app, traces=True)
            return
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: traced(build(), service)
        if app.middleware_stack is not None:
            app.middleware_stack = traced(app.middleware_stack, service)
        return
    name = next((name for name in ("asgi_handler", "asgi_app") if hasattr(app, name)), None)
    if name is None:
        refuse_wsgi(app)
    setattr(app, name, traced(getattr(app, name), service))


def traced(app: Application, service: str) -> Application:
    """``app``, any ASGI application, with a span for each request."""
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    except ImportError as error:
        _missing(error)
    wrapped: Application = OpenTelemetryMiddleware(
        app, tracer_provider=_provider(service), meter_provider=_no_meters(), exclude_spans=["receive", "send"]
    )
    return wrapped


def refuse_wsgi(app: Any) -> NoReturn:
    """WSGI frameworks have OpenTelemetry packages of their own, each with its own set-up."""
    raise TypeError(
        f"traces=True works for ASGI applications; for {type(app).__name__} use OpenTelemetry's own package beside "
        "instrument(): opentelemetry-instrumentation-flask, -django or -wsgi"
    )


def _missing(error: ImportError) -> NoReturn:
    raise ImportError(f"traces=True needs packages that are not installed ({error.name}): {INSTALL}") from error


def _no_meters() -> Any:
    from opentelemetry.metrics import NoOpMeterProvider

    return NoOpMeterProvider()


def _provider(service: str) -> Any:
    """The process's tracer provider, made if there is none."""
    from opentelemetry import trace as api

    there = api.get_tracer_provider()
    if not isinstance(there, api.ProxyTracerProvider):
        return there
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        _missing(error)
    # The standard variables come first, as everywhere in OpenTelemetry.
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": service}))
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "none":
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            _missing(error)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    api.set_tracer_provider(provider)
    return provider
