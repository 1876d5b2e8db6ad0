"""The notifier of the bundle: Alertmanager posts its webhook here, and the same outbox and delivery tell people.

``POST /api/v1/alerts`` answers 200 only after the messages are on disk; anything else makes Alertmanager try again
(5xx) or says what is wrong with the post (4xx).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from anvil_monitor.exporter.exposition import CONTENT_TYPE, Family, Sample, render
from anvil_monitor.exporter.names import NOTIFICATIONS, QUEUE_AGE, SENDS
from anvil_monitor.targets import Configuration, ConfigurationError, Problem

from . import salvage
from .delivery import Delivery
from .heartbeat import Heartbeat, Switch
from .outbox import Outbox, OutboxError
from .pipeline import Pipeline
from .ruleparts import WATCHDOG
from .sender import Sender
from .taking import RefusedError, json_body
from .webhook import WebhookError, alerts_from_webhook

logger = logging.getLogger(__name__)

MAX_BODY: Final = 1 << 20
MAX_LEDGER: Final = 1000
OUTBOX_FILE: Final = "outbox.sqlite3"


def create_app(
    configuration: Configuration,
    environ: Mapping[str, str],
    *,
    sender: Sender | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The application. Raises :class:`ConfigurationError` where its token or its outbox is not to be had."""
    token = _token(configuration, environ)
    try:
        names = [channel.name for channel in configuration.channels]
        outbox = salvage.opened(configuration.monitor.data / OUTBOX_FILE, names, clock)
        try:
            delivery = Delivery(configuration, outbox, environ, sender, clock)
            pipeline = Pipeline(configuration, outbox, clock)
        except BaseException:
            outbox.close()
            raise
    except OutboxError as error:
        raise ConfigurationError([Problem(str(error))]) from None
    switch = Switch(Heartbeat.of(configuration.monitor, environ))
    if not configuration.channels:
        logger.warning("no channel is configured: alerts are accepted and nobody is told")

    async def alerts(request: Request) -> Response:
        try:
            _authorise(request, token)
            body = await json_body(request, MAX_BODY)
            found, key = alerts_from_webhook(body, clock())
            # In a thread: the write waits for the disk.
            fresh = await asyncio.to_thread(pipeline.accept, found, key)
            # It came all the way from Prometheus, and the outbox takes what is to be told.
            if any(alert.name == WATCHDOG and alert.firing for alert in found):
                switch.alive()
        except WebhookError as error:
            return JSONResponse({"error": str(error)}, 400)
        except RefusedError as error:
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            return JSONResponse({"error": str(error)}, error.status, headers)
        except OutboxError as error:
            logger.error("an alert was not taken in: %s", error)
            return JSONResponse({"error": "the outbox cannot be written; the log says why"}, 503)
        return JSONResponse({"status": "accepted" if fresh else "known already", "alerts": len(found)})

    async def notifications(request: Request) -> Response:
        try:
            _authorise(request, token)
            limit = int(request.query_params.get("limit", "100"))
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status, {"WWW-Authenticate": "Bearer"})
        except ValueError:
            return JSONResponse({"error": "limit is no whole number"}, 400)
        try:
            entries = [message.ledger_entry() for message in outbox.ledger(max(1, min(limit, MAX_LEDGER)))]
        except OutboxError as error:
            logger.error("the ledger cannot be read: %s", error)
            return JSONResponse({"error": "the outbox cannot be read; the log says why"}, 503)
        return JSONResponse({"status": "success", "data": {"notifications": entries}})

    async def metrics(_: Request) -> Response:
        try:
            return Response(render([*families(outbox, delivery, clock()), *switch.families()]), media_type=CONTENT_TYPE)
        except OutboxError as error:
            logger.error("the outbox cannot be read: %s", error)
            return PlainTextResponse("the outbox cannot be read; the log says why\n", 503)

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("anvil-monitor notifier is healthy\n")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(delivery.run())
        try:
            yield
        finally:
            await switch.close()
            await delivery.close(grace=2.0)
            await asyncio.gather(running, return_exceptions=True)
            outbox.close()

    return Starlette(
        routes=[
            Route("/api/v1/alerts", alerts, methods=["POST"]),
            Route("/api/v1/notifications", notifications),
            Route("/metrics", metrics),
            Route("/-/healthy", healthy),
        ],
        lifespan=lifespan,
    )


def families(outbox: Outbox, delivery: Delivery, now: float) -> list[Family]:
    """What delivery tells about itself on ``/metrics``."""
    oldest = outbox.oldest_queued()
    sends = [
        Sample("", (("channel", name), ("outcome", outcome)), count)
        for name, tally in sorted(delivery.tallies.items())
        for outcome, count in (("delivered", tally.delivered), ("failed", tally.failed))
    ]
    kept = [
        Sample("", (("channel", channel), ("state", state)), count)
        for (channel, state), count in sorted(outbox.counts().items())
    ]
    age = max(0.0, now - oldest) if oldest is not None else 0.0
    return [Family(NOTIFICATIONS, kept), Family(SENDS, sends), Family(QUEUE_AGE, [Sample("", (), age)])]


def _token(configuration: Configuration, environ: Mapping[str, str]) -> str | None:
    secret = configuration.monitor.token
    if secret is None:
        return None
    try:
        return secret.reveal(dict(environ))
    except LookupError as error:
        raise ConfigurationError([Problem(f"the token is not to be had: {error}")]) from None


def _authorise(request: Request, token: str | None) -> None:
    given = request.headers.get("authorization", "").encode("utf-8", "replace")
    if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise RefusedError(401, "the token is missing or wrong: send Authorization: Bearer …")
