"""Where the signed links of messages lead: a page that says what would be done, with a button that does it.

The signature is the leave to do it, so these paths ask for no token. GET changes nothing: what opens links by itself
(mail scanners, chat previews) acknowledges nothing.
"""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from anvil_monitor.targets import Configuration, ConfigurationError, Problem

from . import acks, links, silences, spans
from .links import ACTIONS, PATH, LinkError, Links
from .matchers import Matcher
from .messages import plain
from .model import Alert
from .outbox import Outbox, OutboxError
from .taking import RefusedError, any_body

logger = logging.getLogger(__name__)

MAX_BODY: Final = 4096
SHOWN: Final = 20
NOBODY: Final = "a link in a message"
# As the monitor's own pages, but its one form may be sent, to where it came from.
POLICY: Final = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">
<title>{title} – anvil-monitor</title>
<link rel="stylesheet" href="page.css"></head>
<body><main><section class="panel"><h2>{title}</h2>{body}</section></main></body></html>
"""
FORM: Final = """<form method="post" class="act"><label>Your name
<input name="who" maxlength="100" autocomplete="name"></label>{choice}
<button type="submit" class="strong">{label}</button></form>"""
CHOICE: Final = "<fieldset><legend>How long</legend>{}</fieldset>"
OPTION: Final = '<label><input type="radio" name="for" value="{}"{}> {}</label>'


def links_of(configuration: Configuration) -> Links | None:
    """What makes the links of messages; ``None`` where nobody has said under which address people come here.

    Raises :class:`ConfigurationError` for a key that cannot be used.
    """
    monitor = configuration.monitor
    if not monitor.external_url:
        return None
    try:
        return Links(monitor.external_url, links.load_key(monitor.data.expanduser()))
    except LinkError as error:
        raise ConfigurationError([Problem(str(error))]) from None


def routes(
    links_: Links,
    outbox: Outbox,
    firing: Callable[[], list[Alert]],
    css: Callable[[], bytes],
    clock: Callable[[], float],
    executor: Executor,
) -> list[Route]:
    """The routes. ``firing`` gives the alerts that fire, ``css`` the monitor's style; ``executor`` runs what writes."""

    async def act(request: Request) -> Response:
        action = request.path_params["action"]
        if action not in ACTIONS:
            return page("No such page", "", 404)
        asked = request.query_params
        try:
            of, until, sign = (asked.get(name, "") for name in ("of", "until", "sign"))
            scope = links_.check(action, of, until, sign, clock())
        except LinkError as error:
            return page("This link does nothing", paragraph(f"{error}."), 403)
        found = scope.of(firing())
        if not found:
            return page("It is over", paragraph("Nothing that this link is about fires any more."), 410)
        if request.method != "POST":
            return page(f"{ACTIONS[action]}?", listed(found) + form(action, clock()))
        given = await fields(request)
        who = plain(given.get("who", ""), silences.LONGEST_AUTHOR) or NOBODY
        now = clock()
        span = spans.chosen(given.get("for", ""), now)
        if span is None:
            return page("It was not done", paragraph("The form does not say how long. Open the link again."), 400)
        try:
            await asyncio.get_running_loop().run_in_executor(executor, do, action, scope, found, who, now, span.ends)
        except (OutboxError, ValueError) as error:
            logger.error("%s by a link failed: %s", action, error)
            return page("It was not done", paragraph("The monitor cannot write it down; its log says why."), 503)
        logger.info("%s of %d alerts by %s, through a link", action, len(found), who)
        done = "acknowledged" if action == "ack" else f"silenced {span.label}"
        return page(f"{done[0].upper()}{done[1:]} by {who}", listed(found))

    def do(action: str, scope: links.Scope, found: Sequence[Alert], who: str, now: float, ends: float) -> None:
        if action == "ack":
            acks.add(outbox, found, author=who, at=now)
            return
        service = Matcher("service", "=", scope.service)
        for chosen in [(service,)] if scope.service else [links.silence_matchers(alert) for alert in found]:
            silences.add(outbox, chosen, author=who, reason=NOBODY, starts=now, ends=ends)

    async def style(_: Request) -> Response:
        return Response(css(), media_type="text/css; charset=utf-8")

    return [Route(f"{PATH}/page.css", style), Route(f"{PATH}/{{action}}", act, methods=["GET", "POST"])]


async def fields(request: Request) -> dict[str, str]:
    """What a form says; nothing where it cannot be read."""
    try:
        body = await any_body(request, MAX_BODY)
        given = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    except (RefusedError, ValueError):
        return {}
    return {name: values[0] for name, values in given.items()}


def form(action: str, now: float) -> str:
    """The form that does ``action``."""
    choice = ""
    if action == "silence":
        choice = CHOICE.format(
            "".join(
                OPTION.format(span.name, " checked" if span.name == spans.USUAL else "", html.escape(span.label))
                for span in spans.spans(now)
            )
        )
    return FORM.format(choice=choice, label=html.escape(ACTIONS[action]))


def page(title: str, body: str, status: int = 200) -> Response:
    """A whole page; ``body`` is HTML, ``title`` is text."""
    text = PAGE.format(title=html.escape(title), body=body)
    return HTMLResponse(text, status, {"Content-Security-Policy": POLICY})


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def listed(alerts: Sequence[Alert]) -> str:
    """The alerts as people know them."""
    items = [
        f"<li><strong>{html.escape(plain(alert.annotations.get('summary') or alert.name))}</strong></li>"
        for alert in alerts[:SHOWN]
    ]
    if len(alerts) > SHOWN:
        items.append(f"<li>… and {len(alerts) - SHOWN} more</li>")
    return f"<ul>{''.join(items)}</ul>"
