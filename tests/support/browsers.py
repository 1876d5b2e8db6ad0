"""Pages with the beacon script in a real Chromium, and what it posts."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from anvil_monitor.exporter.beacon import script

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
BEACON = "/anvil-monitor/beacon"


@contextmanager
def chromium(**more: Any) -> Iterator[Any]:
    """A browser that runs (playwright's ``Browser``)."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM, **more)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """``app`` under uvicorn in a thread; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        listener.close()


class Site:
    """Pages by path, the script, and a place that keeps what is posted.

    A page is its text, or a function of no arguments that returns it, perhaps slowly. ``limit``: milliseconds after
    which a route that is not at rest is given up, if not the script's own.
    """

    def __init__(
        self, pages: Mapping[str, str | Callable[[], str]], headers: Mapping[str, str] | None = None, limit: int = 30000
    ) -> None:
        self.pages, self.headers = pages, dict(headers or {})
        assert script()[0].count(b"LIMIT = 30000") == 1
        self.script = script()[0].replace(b"LIMIT = 30000", f"LIMIT = {limit}".encode())
        self.posted: list[dict[str, Any]] = []
        self.elsewhere: list[Any] = []  # what was posted to /elsewhere
        self.requests: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        fields = {key.decode(): value.decode() for key, value in scope["headers"]}
        status, kind, body = 200, "text/html", b""
        if path in (BEACON, "/elsewhere"):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            if path == "/elsewhere":
                self.elsewhere.append(json.loads(body))
            else:
                self.requests.append((scope["method"], fields))
                self.posted.append(json.loads(body))
            status, body = 204, b""
        elif path == f"{BEACON}.js":
            kind, body = "text/javascript", self.script
        elif path in self.pages:
            page = self.pages[path]
            text = page if isinstance(page, str) else await asyncio.to_thread(page)
            kind = {"js": "text/javascript", "svg": "image/svg+xml"}.get(path.rpartition(".")[2], kind)
            body = text.encode()
        elif path != "/favicon.ico":
            status = 404
        headers = {"content-type": kind, "content-length": str(len(body)), **self.headers}
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def of(self, page: str) -> dict[str, Any]:
        """All that was posted of ``page``, in one."""
        return {key: value for each in self.posted if each["page"] == page for key, value in each.items()}

    def loaded(self, tab: Any, url: str) -> None:
        """Go there, and wait until the load has been told and something has been painted."""
        tab.goto(url)
        self.wait(tab, "ttfb")
        tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")

    def leave(self, tab: Any, silent: bool = False) -> None:
        """Go elsewhere, and wait until the last beacons are here. ``silent``: none is expected."""
        before = len(self.posted)
        tab.goto("about:blank")
        deadline = time.monotonic() + 10
        while not silent and len(self.posted) == before and time.monotonic() < deadline:
            tab.wait_for_timeout(20)
        before = -1
        while before != len(self.posted):
            before = len(self.posted)
            tab.wait_for_timeout(300)

    def wait(self, tab: Any, *fields: str, page: str | None = None, seconds: float = 15.0) -> dict[str, Any]:
        """The first beacon with all ``fields`` (of ``page``), once it has arrived. ``tab`` keeps running meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for each in self.posted:
                if set(fields) <= set(each) and page in (None, each["page"]):
                    return each
            tab.wait_for_timeout(20)
        raise AssertionError(f"no beacon with {fields} of {page}; there are: {self.posted}")
