"""The same small FastAPI application under each instrument that is compared. One variant a process: globals never mix.

Each function takes the number of routes and gives the ASGI application as its makers say it should be made.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, MutableMapping
from typing import Any

# Read once, when OpenTelemetry's instrumentations are imported: the metric names of today's conventions.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")

from fastapi import FastAPI

Message = MutableMapping[str, Any]
OFF: Any = {"metrics": False, "tracing": False, "logs": False}


def shop(routes: int, telemetry: Any = None) -> FastAPI:
    """An application with ``routes`` routes; the one that is asked for, ``/items/{number}``, is the last."""
    app = FastAPI(telemetry=telemetry)

    def other(number: int) -> dict[str, int]:
        return {"number": number}

    for n in range(routes - 1):
        app.get(f"/other{n}/{{number}}")(other)

    @app.get("/items/{number}")
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    return app


class Null:
    """Wraps ``send`` and reads the clock twice: what any middleware that measures a duration must do at least."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            self.last = (status, time.perf_counter() - began)


class ByHand(Null):
    """prometheus_client by hand, with the children kept: the least that this library can cost."""

    def __init__(self, app: Any) -> None:
        from prometheus_client import Gauge, Histogram

        super().__init__(app)
        names = ("method", "route", "status")
        self.duration = Histogram("http_server_request_duration_seconds", "Duration.", names)
        self.active = Gauge("http_server_active_requests", "Active.", ("method",)).labels("GET")
        self.children: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.active.inc()
        try:
            await self.app(scope, receive, sent)
        finally:
            self.active.dec()
            key = (scope["method"], getattr(scope.get("route"), "path_format", ""), status)
            child = self.children.get(key)
            if child is None:
                child = self.children[key] = self.duration.labels(*key)
            child.observe(time.perf_counter() - began)


def bare(routes: int) -> Any:
    return shop(routes)


def bare_off(routes: int) -> Any:
    return shop(routes, OFF)


def null(routes: int) -> Any:
    return Null(shop(routes))


def ours(routes: int, telemetry: Any = None) -> Any:
    from anvil_monitor.exporter import instrument
    from anvil_monitor.targets import load

    app = shop(routes, telemetry)
    instrument(app, configuration=load(None, {}), directory=tempfile.mkdtemp(dir=os.environ.get("BENCH_FOLDER")))
    return app


def ours_off(routes: int) -> Any:
    return ours(routes, OFF)


def by_hand(routes: int) -> Any:
    return ByHand(shop(routes))


def _sdk() -> Any:
    """OpenTelemetry's SDK, read by Prometheus, as the global provider."""
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider

    provider = MeterProvider([PrometheusMetricReader()])
    metrics.set_meter_provider(provider)
    return provider


def native(routes: int) -> Any:
    _sdk()
    return shop(routes)


def contrib(routes: int) -> Any:
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    app = shop(routes)
    FastAPIInstrumentor.instrument_app(app, meter_provider=_sdk(), exclude_spans=["receive", "send"])
    return app


def instrumentator(routes: int) -> Any:
    from prometheus_fastapi_instrumentator import Instrumentator

    app = shop(routes)
    Instrumentator().instrument(app).expose(app)
    return app


def starlette_exporter(routes: int) -> Any:
    from starlette_exporter import PrometheusMiddleware

    app = shop(routes)
    app.add_middleware(PrometheusMiddleware)
    return app


VARIANTS: dict[str, Callable[[int], Any]] = {
    each.__name__: each
    for each in (bare, bare_off, null, ours, ours_off, by_hand, native, instrumentator, starlette_exporter, contrib)
}


def app() -> Any:
    """For ``uvicorn --factory``: the variant that ``BENCH_VARIANT`` names."""
    return VARIANTS[os.environ["BENCH_VARIANT"]](int(os.environ.get("BENCH_ROUTES", "1")))
