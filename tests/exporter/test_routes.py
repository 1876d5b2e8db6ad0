"""The route label: the full template of what answered, and nothing that a client can choose."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.exporter.names import UNMATCHED
from anvil_monitor.exporter.routes import Routes
from anvil_monitor.targets import load


def plain(request: Request) -> Response:
    return PlainTextResponse("x")


def application(tmp_path: Path) -> FastAPI:
    app = FastAPI()
    inner, outer = APIRouter(), APIRouter()

    @inner.get("/items/{number}")
    async def item(number: int) -> int:
        if number == 0:
            raise HTTPException(404)
        return number

    outer.include_router(inner, prefix="/sub")
    outer.routes.append(Route("/raw/{x}", plain))
    outer.mount("/starlette", Starlette(routes=[Route("/in/{y}", plain)]))
    app.include_router(outer, prefix="/api/v1")

    @app.get("/direct/{name:path}")
    async def direct(name: str) -> str:
        return name

    app.router.routes.append(Route("/twin/a", plain))
    app.router.routes.append(Route("/twin/{z}", plain))
    mounted = FastAPI()

    @mounted.get("/y/{z}")
    async def y(z: str) -> str:
        return z

    mounted.include_router(inner, prefix="/more")
    app.mount("/m", mounted)
    app.mount("/tenants/{tenant}", Starlette(routes=[Route("/home", plain)]))
    (tmp_path / "file.txt").write_text("x")
    app.mount("/static", StaticFiles(directory=tmp_path))
    return app


def measured(app: Any, tmp_path: Path) -> Instrument:
    return instrument(app, configuration=load(None, {}), directory=tmp_path / "pages")


def counts(instrument: Instrument) -> dict[tuple[str, str, str], float]:
    """Requests by method, route and status."""
    found = {}
    for family in text_string_to_metric_families(instrument.metrics()):
        for sample in family.samples:
            if sample.name == "http_server_request_duration_seconds_count":
                labels = sample.labels
                key = labels["http_request_method"], labels["http_route"], labels.get("http_response_status_code", "")
                found[key] = sample.value
    return found


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/api/v1/sub/items/3", 200, "/api/v1/sub/items/{number}"),
        ("GET", "/api/v1/sub/items/0", 404, "/api/v1/sub/items/{number}"),
        ("GET", "/api/v1/sub/items/x", 422, "/api/v1/sub/items/{number}"),
        ("GET", "/api/v1/raw/7", 200, "/api/v1/raw/{x}"),
        ("GET", "/api/v1/starlette/in/7", 200, "/api/v1/starlette/in/{y}"),
        ("GET", "/direct/a/b/c", 200, "/direct/{name}"),
        ("GET", "/twin/a", 200, "/twin/a"),
        ("GET", "/twin/b", 200, "/twin/{z}"),
        ("GET", "/m/y/4", 200, "/m/y/{z}"),
        ("GET", "/m/more/items/4", 200, "/m/more/items/{number}"),
        ("GET", "/tenants/acme/home", 200, "/tenants/{tenant}/home"),
        ("GET", "/static/file.txt", 200, "/static/{path}"),
        ("GET", "/openapi.json", 200, "/openapi.json"),
        ("GET", "/nothing/here", 404, UNMATCHED),
        ("GET", "/m/nothing", 404, UNMATCHED),
        ("GET", "/tenants/acme/nothing", 404, UNMATCHED),
        ("GET", "/static/nothing", 404, UNMATCHED),
        ("POST", "/api/v1/sub/items/3", 405, UNMATCHED),
        ("POST", "/api/v1/raw/3", 405, UNMATCHED),
        ("POST", "/m/y/3", 405, UNMATCHED),
    ],
)  # fmt: skip
def test_fastapi(tmp_path: Path, method: str, path: str, status: int, route: str) -> None:
    """Include, mount, plain routes, files: the full template; what matched nothing shares one value."""
    app = application(tmp_path)
    instrumented = measured(app, tmp_path)
    with TestClient(app) as client:
        assert client.request(method, path).status_code == status
        # the second one takes the short way
        assert client.request(method, path).status_code == status
    assert counts(instrumented) == {(method, route, str(status)): 2}


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/a/1", 200, "/a/{n}"),
        ("/in/deep/2", 200, "/in/deep/{n}"),
        ("/in/shop-7/other", 404, UNMATCHED),
        ("/in/other", 307, UNMATCHED),
        ("/in/shop-7/x", 200, "/in/{shop}/x"),
    ],
)
def test_starlette(tmp_path: Path, path: str, status: int, route: str) -> None:
    """The same for Starlette without FastAPI, with mounts in mounts and parameters in a mount's prefix."""
    deep = Mount("/deep", routes=[Route("/{n}", plain)])
    tenant = Mount("/{shop}", routes=[Route("/x", plain)])
    app = Starlette(routes=[Route("/a/{n:int}", plain), Mount("/in", routes=[deep, tenant])])
    instrumented = measured(app, tmp_path)
    assert TestClient(app, follow_redirects=False).get(path).status_code == status
    assert counts(instrumented) == {("GET", route, str(status)): 1}


def test_a_root_path_is_part_of_the_route(tmp_path: Path) -> None:
    """Behind a proxy that serves the application below /api, http.route begins with it (as OpenTelemetry says)."""
    app = FastAPI()
    app.router.routes.append(Route("/raw/{x}", plain))

    @app.get("/things/{n}")
    async def thing(n: int) -> int:
        return n

    instrumented = measured(app, tmp_path)
    with TestClient(app, root_path="/api") as client:
        client.get("/api/things/1")
        client.get("/api/raw/1")
        assert client.get("/api/metrics").status_code == 200
    assert counts(instrumented) == {("GET", "/api/things/{n}", "200"): 1, ("GET", "/api/raw/{x}", "200"): 1}


def test_a_middleware_that_copies_the_scope_hides_nothing(tmp_path: Path) -> None:
    """Routing that happened in a copy of the scope is matched again; the template is still the application's."""

    class Copying:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(dict(scope), receive, send)

    async def through(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app = application(tmp_path)
    app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    app.add_middleware(Copying)
    instrumented = measured(app, tmp_path)
    with TestClient(app) as client:
        client.get("/m/y/4")
        client.get("/api/v1/sub/items/4")
        client.get("/nothing")
    assert set(counts(instrumented)) == {
        ("GET", "/m/y/{z}", "200"), ("GET", "/api/v1/sub/items/{number}", "200"), ("GET", UNMATCHED, "404"),
    }  # fmt: skip


def test_unknown_methods_share_a_value(tmp_path: Path) -> None:
    """A method that a client made up is _OTHER."""
    app = application(tmp_path)
    instrumented = measured(app, tmp_path)
    with TestClient(app) as client:
        client.request("MADEUP", "/twin/a")
    assert counts(instrumented) == {("_OTHER", UNMATCHED, "405"): 1}


def test_a_pages_path_becomes_a_template(tmp_path: Path) -> None:
    """What a browser calls its page is matched to the application's own routes."""
    routes = Routes(application(tmp_path))
    assert routes.of_page("/api/v1/sub/items/77") == "/api/v1/sub/items/{number}"
    assert routes.of_page("/tenants/x/home") == "/tenants/{tenant}/home"
    assert routes.of_page("/static/a/b.html") == "/static/{path}"
    assert routes.of_page("/secret/token") == UNMATCHED


def test_fastapi_still_says_the_route_where_it_is_read(tmp_path: Path) -> None:
    """The private keys that the short way reads: a FastAPI that moves them must break this test."""
    app = application(tmp_path)
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/api/v1/sub/items/3", "headers": [], "query_string": b"",
        "root_path": "", "app": app,
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        pass

    asyncio.run(app(scope, receive, send))
    assert scope["fastapi"]["effective_route_context"].path_format == "/api/v1/sub/items/{number}"
    assert scope["fastapi"]["effective_route_context"].original_route is scope["route"]
