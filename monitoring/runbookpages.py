"""The runbooks on the monitor's own page: where messages lead whoever is on call, with the commands filled in.

They are pages of this project and hold nothing of the configuration, so they ask for no token: they open from a message
on a phone. What is filled in comes from their own address.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from anvil_monitor.alerts import runbooks
from anvil_monitor.alerts.runbooks import PATH
from anvil_monitor.targets import Configuration

# As the monitor's other pages, but nothing on them runs.
POLICY: Final = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title} – anvil-monitor</title>
<link rel="stylesheet" href="{up}page.css"></head>
<body><header><a class="brand" href="{up}../"><span class="anvil" aria-hidden="true"></span>anvil-monitor</a>
<nav aria-label="Runbooks"><a href="{up}.">all runbooks</a></nav></header>
<main><article class="panel runbook">{body}</article></main></body></html>
"""


def routes(configuration: Configuration, css: Callable[[], bytes]) -> list[Route]:
    """The list of runbooks and each of them; ``css`` gives the monitor's style."""
    address = runbooks.asked_at(configuration.monitor)

    async def index(_: Request) -> Response:
        items = "".join(f'<li><a href="{name}">{name}</a></li>' for name in runbooks.names())
        return _page("Runbooks", f"<h1>Runbooks</h1><p>One for each alert.</p><ul>{items}</ul>", "")

    async def runbook(request: Request) -> Response:
        alert = request.path_params["alert"]
        whose = [request.path_params[part] for part in ("service", "target") if part in request.path_params]
        up = "../" * len(whose)
        text = runbooks.text(alert, lambda other: "/".join((f"{up}{other}", *whose)), address, *whose)
        if text is None:
            words = f"<h1>No runbook</h1><p>There is none for {html.escape(alert)}.</p>"
            return _page("No runbook", words, up, 404)
        return _page(alert, runbooks.body(text), up)

    async def style(_: Request) -> Response:
        return Response(css(), media_type="text/css; charset=utf-8")

    return [
        Route(f"{PATH}/", index),
        Route(f"{PATH}/page.css", style),
        Route(f"{PATH}/{{alert}}", runbook),
        Route(f"{PATH}/{{alert}}/{{service}}", runbook),
        Route(f"{PATH}/{{alert}}/{{service}}/{{target}}", runbook),
    ]


def _page(title: str, body: str, up: str, status: int = 200) -> Response:
    """A whole page, ``up`` steps below :data:`PATH`; ``body`` is HTML, ``title`` is text."""
    text = PAGE.format(title=html.escape(title), body=body, up=up or "./")
    return HTMLResponse(text, status, {"Content-Security-Policy": POLICY})
