"""Counted before it is sent: whatever kind of answer a client has got, it is in the page already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from servers import COUNT, value

from anvil_monitor.exporter import instrument


def application(folder: Path, wrapped: bool) -> FastAPI:
    app = FastAPI()
    (folder / "file").write_bytes(bytes(3 * 64 * 1024))

    @app.get("/plain")
    @app.head("/plain")
    async def plain() -> int:
        return 1

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(folder / "file")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"part"

        return StreamingResponse(parts())

    @app.get("/nothing", status_code=204)
    async def nothing() -> None: ...

    @app.get("/redirect")
    async def redirect() -> RedirectResponse:
        return RedirectResponse("/plain")

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> int:
        tasks.add_task(asyncio.sleep, 0)
        return 1

    @app.get("/unavailable")
    async def unavailable() -> Response:
        return Response("later", 503)

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(503)

    @app.get("/handled")
    async def handled() -> None:
        raise KeyError

    @app.get("/error")
    async def error() -> None:
        raise ValueError

    @app.exception_handler(KeyError)
    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({}, 502)

    if wrapped:

        @app.middleware("http")
        async def through(request: Request, following: Callable[[Request], Awaitable[Response]]) -> Response:
            return await following(request)

    return app


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "with a middleware of Starlette's kind"])
@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/plain", "200", ""),
        ("HEAD", "/plain", "200", ""),
        ("GET", "/file", "200", ""),
        ("GET", "/stream", "200", ""),
        ("GET", "/nothing", "204", ""),
        ("GET", "/redirect", "307", ""),
        ("GET", "/background", "200", ""),
        ("GET", "/unavailable", "503", "503"),
        ("GET", "/refused", "503", "503"),
        ("GET", "/handled", "502", ""),
        ("GET", "/error", "500", "ValueError"),
        ("GET", "/none", "404", ""),
    ],
)
def test_what_a_client_has_got_is_counted(
    tmp_path: Path, method: str, path: str, status: str, error: str, wrapped: bool
) -> None:
    """At the moment the last byte of an answer goes to the server it is counted: a kill afterwards loses nothing."""
    app = application(tmp_path, wrapped)
    made = instrument(app, directory=tmp_path / "pages")
    counted: list[float] = []
    left = [0.0]

    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    def count() -> float:
        labels = {"http_response_status_code": status, "http_request_method": method}
        return value(made.metrics(), COUNT, **labels, **({"error_type": error} if error else {}))

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            bodyless = method == "HEAD" or status == "204"
            left[0] = 0 if bodyless else float(headers.get(b"content-length", b"inf"))
            if not left[0]:
                counted.append(count())
        elif left[0]:
            left[0] -= len(message.get("body", b""))
            if not message.get("more_body") or left[0] <= 0:
                left[0] = 0
                counted.append(count())

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [],
             "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80)}  # fmt: skip
    try:
        asyncio.run(app(scope, receive, send))
    except ValueError:
        assert error == "ValueError"
    assert counted == [1]
    assert count() == 1
    assert value(made.metrics(), COUNT) == 1
    made.close()
