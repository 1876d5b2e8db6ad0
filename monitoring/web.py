"""The monitor's own web server: the page, what it polls, and ``/metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import cache
from importlib import resources
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from anvil_monitor.alerts.guard import Guard
from anvil_monitor.alerts.outbox import OutboxError
from anvil_monitor.exporter.exposition import CONTENT_TYPE, Family, render

from .answers import encode
from .endpoints import failure
from .overview import Overview
from .parameters import ApiError, Parameters

PAGE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/parts.js": ("parts.js", "text/javascript; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/plot.js": ("plot.js", "text/javascript; charset=utf-8"),
}


def create_app(
    overview: Overview,
    api_routes: Sequence[BaseRoute],
    collect: Callable[[], list[Family]],
    executor: Executor,
    token: str | None,
) -> ASGIApp:
    """The application. ``collect`` gives the families of ``/metrics``; with ``token``, all but the health asks for it.

    ``executor`` runs what reads files and the ledger.
    """

    async def page(request: Request) -> Response:
        name, media_type = PAGE[request.url.path]
        return Response(page_file(name), media_type=media_type)

    async def state(_: Request) -> Response:
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(executor, lambda: encode({"status": "success", "data": overview.to_json()}))
        return Response(body, media_type="application/json")

    async def notifications(request: Request) -> Response:
        try:
            limit = min((await Parameters.of(request)).limit() or 100, 1000)
            found = await asyncio.get_running_loop().run_in_executor(executor, overview.notifications, limit)
        except ApiError as error:
            return failure(error.kind, str(error), error.status)
        except OutboxError as error:
            return failure("unavailable", str(error), 503)
        return Response(encode({"status": "success", "data": {"notifications": found}}), media_type="application/json")

    async def metrics(_: Request) -> Response:
        text = await asyncio.get_running_loop().run_in_executor(executor, lambda: render(collect()))
        return Response(text, media_type=CONTENT_TYPE)

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def wrong(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 404:
            return failure("not_found", f"there is nothing at {request.url.path}", 404)
        return failure("bad_data", error.detail if isinstance(error, HTTPException) else "", status)

    app = Starlette(
        routes=[
            *(Route(path, page) for path in PAGE),
            Route("/api/v1/targets-state", state),
            Route("/api/v1/notifications", notifications),
            Route("/metrics", metrics),
            Route("/-/healthy", healthy),
            Route("/-/ready", healthy),
            *api_routes,
        ],
        exception_handlers={HTTPException: wrong},
    )
    return Guard(app, overview.configuration.monitor.host, token)


@cache
def page_file(name: str) -> bytes:
    return (resources.files(__package__) / "page" / name).read_bytes()
