"""The monitor's own web server: the page, what it polls, ``/metrics``, and who may read them."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anvil_monitor.alerts.links import PATH as ACT_PATH
from anvil_monitor.alerts.outbox import OutboxError
from anvil_monitor.alerts.runbooks import PATH as RUNBOOK_PATH
from anvil_monitor.exporter import names
from anvil_monitor.exporter.exposition import CONTENT_TYPE, Family, render

from .answers import encode
from .endpoints import failure
from .overview import Overview
from .parameters import ApiError, Parameters

PAGE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
# Nothing on the page comes from elsewhere, so nothing from elsewhere may run there.
HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)  # fmt: skip
# What asks for no token: whether it lives, what browsers send, who cannot keep a secret (their origin is checked),
# where the links of messages lead (their signature is), and what is no secret (runbooks).
OPEN_PATHS: Final = ("/-/healthy",)
OPEN_BELOW: Final = (f"{names.BEACON_PATH}/", f"{ACT_PATH}/", f"{RUNBOOK_PATH}/")
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


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


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets in who may read: with a token only its bearers; without one only requests made to a loopback name.

    The latter keeps a web page elsewhere from reading the monitor through a name of its own that points here (DNS
    rebinding). The token is taken as ``Authorization: Bearer`` or, for a browser, as the password of HTTP Basic.
    """

    app: ASGIApp
    host: str
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                own = {name for name, _ in given}  # a page with a form has a policy of its own
                message["headers"] = [*given, *(header for header in HEADERS if header[0] not in own)]
            await send(message)

        path: str = scope["path"]
        refusal = None if path in OPEN_PATHS or path.startswith(OPEN_BELOW) else self._refusal(Headers(scope=scope))
        await (refusal or self.app)(scope, receive, guarded)

    def _refusal(self, headers: Headers) -> Response | None:
        if self.token is None:
            host = headers.get("host", "")
            name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
            if name.lower() in (*LOOPBACK_NAMES, self.host, f"[{self.host}]"):
                return None
            return PlainTextResponse("ask for this page under 127.0.0.1 or localhost\n", 403)
        given = _given(headers.get("authorization", ""))
        if hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode("utf-8", "replace")):
            return None
        return PlainTextResponse(
            "this monitor asks for its token, as Bearer or as the password of HTTP Basic\n",
            401,
            {"WWW-Authenticate": 'Basic realm="anvil-monitor", charset="UTF-8"'},
        )


def _given(authorization: str) -> str:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # no Base64, no ASCII, no UTF-8
            return ""
    return ""
