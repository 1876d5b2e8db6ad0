"""Litestar, Quart and bare ASGI applications: what is theirs to say is asked of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import quart
from litestar import Litestar
from litestar import get as litestar_get
from litestar.params import FromPath
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from anvil_monitor.exporter import Instrument, instrument, instrument_asgi, instrument_wsgi
from anvil_monitor.exporter.instrument import instrument_of
from anvil_monitor.targets import load


def options(tmp_path: Path, **more: Any) -> Any:
    return {"configuration": load(None, {}), "directory": tmp_path, "meters": False, "registry": False, **more}


def answers(made: Instrument) -> dict[tuple[str, str | None, str | None], float]:
    """Answers by route, status and error."""
    return {
        (
            sample.labels["http_route"], sample.labels.get("http_response_status_code"),
            sample.labels.get("error_type"),
        ): sample.value
        for family in text_string_to_metric_families(made.metrics())
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    }  # fmt: skip


def test_litestar(tmp_path: Path) -> None:
    """Instrumented in place; its templates are in the scope."""

    @litestar_get("/items/{number:int}", sync_to_thread=False)
    def item(number: FromPath[int]) -> int:
        if number == 0:
            raise ValueError
        return number

    app = Litestar([item], openapi_config=None)
    made = instrument(app, **options(tmp_path))
    assert instrument(app) is made
    with TestClient(app) as client:  # type: ignore[arg-type]
        assert [client.get(f"/items/{n}").status_code for n in (1, 2, 0)] == [200, 200, 500]
        assert client.get("/nowhere").status_code == 404
        assert client.post("/items/1").status_code == 405
        assert client.get("/metrics").status_code == 200
    assert answers(made) == {
        ("/items/{number}", "200", None): 2, ("/items/{number}", "500", "ValueError"): 1,
        ("(unmatched)", "404", None): 1, ("(unmatched)", "405", None): 1,
    }  # fmt: skip


def test_quart(tmp_path: Path) -> None:
    """Instrumented in place; a hook leaves the rule in the scope."""
    app = quart.Quart(__name__)

    @app.get("/items/<int:number>")
    async def item(number: int) -> str:
        if number == 0:
            raise ValueError
        return str(number)

    made = instrument(app, **options(tmp_path))
    assert instrument(app) is made

    async def visit() -> list[int]:
        client = app.test_client()
        return [(await client.get(path)).status_code for path in ("/items/1", "/items/2", "/items/0", "/nowhere")]

    assert asyncio.run(visit()) == [200, 200, 500, 404]
    assert answers(made) == {
        ("/items/<int:number>", "200", None): 2, ("/items/<int:number>", "500", "500"): 1,
        ("(unmatched)", "404", None): 1,
    }  # fmt: skip


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"].startswith("/named/"):
        scope["path_template"] = "/named/{x}"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


def test_any_asgi_application(tmp_path: Path) -> None:
    """``route=`` says the template, or the scope does; what neither says shares one value."""

    def route(scope: Any) -> str | None:
        if scope["path"] == "/fails":
            raise ValueError
        return "/mine/{x}" if scope["path"].startswith("/mine/") else None

    app = instrument_asgi(bare, **options(tmp_path, route=route))
    made = instrument_of(app)
    assert made is not None
    client = TestClient(app)
    for path in ("/mine/1", "/mine/2", "/named/1", "/other", "/fails"):
        assert client.get(path).text == "x"
    assert client.get("/metrics").status_code == 200
    assert answers(made) == {
        ("/mine/{x}", "200", None): 2, ("/named/{x}", "200", None): 1, ("(unmatched)", "200", None): 2,
    }  # fmt: skip


def test_wrapping_what_can_be_instrumented_in_place(tmp_path: Path) -> None:
    """instrument_asgi and instrument_wsgi give such an application back, instrumented, once."""
    app = Starlette()
    assert instrument_asgi(app, **options(tmp_path)) is app
    assert instrument_asgi(app, **options(tmp_path)) is app
    wrapped = instrument_asgi(bare, **options(tmp_path))
    assert instrument_asgi(wrapped, **options(tmp_path)) is wrapped
    served = instrument_wsgi(lambda environ, start: [], **options(tmp_path))
    assert instrument_wsgi(served, **options(tmp_path)) is served


@pytest.mark.parametrize("app", [{}, bare])
def test_only_what_can_be_instrumented_in_place_is(app: Any) -> None:
    """Anything else is refused with the way that works."""
    with pytest.raises(TypeError, match=r"app = instrument_asgi\(app\) or instrument_wsgi\(app\)"):
        instrument(app)
