"""The notifier of the bundle: Alertmanager posts its webhook here, and pipeline, outbox and delivery tell people.

``POST /api/v1/alerts`` answers 200 only after what was posted is on disk; anything else makes Alertmanager try again
(5xx) or says what is wrong with the post (4xx). Silences, acknowledgements and the links of messages are served as by
the embedded monitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from anvil_monitor.exporter.exposition import CONTENT_TYPE, Family, Sample, render
from anvil_monitor.exporter.names import NOTIFICATIONS, QUEUE_AGE, SENDS
from anvil_monitor.targets import Configuration, ConfigurationError, Problem

from . import actions, guard, holdingapi, salvage
from .delivery import Delivery
from .heartbeat import Heartbeat, Switch
from .outbox import Outbox, OutboxError
from .pipeline import Pipeline
from .posted import Posted
from .prometheus import Prometheus, nobody_knows
from .rounds import Rounds
from .ruleparts import WATCHDOG
from .sender import Sender
from .taking import RefusedError, json_body
from .webhook import WebhookError, post_from_webhook

logger = logging.getLogger(__name__)

# A thousand alerts with all their annotations.
MAX_BODY: Final = 4 << 20
MAX_LEDGER: Final = 1000
OUTBOX_FILE: Final = "outbox.sqlite3"
# Prometheus is let in without a token, as it is by every other part of the bundle.
OPEN_PATHS: Final = (*guard.OPEN_PATHS, "/metrics")


def create_app(
    configuration: Configuration,
    environ: Mapping[str, str],
    *,
    sender: Sender | None = None,
    clock: Callable[[], float] = time.time,
    css: Callable[[], bytes] = bytes,
    trusted: bool = False,
) -> ASGIApp:
    """The application. ``css`` gives the style of its pages; ``trusted``: whoever reaches it may post, without a token.

    Raises :class:`ConfigurationError` where its token, its outbox or the key of its links is not to be had.
    """
    monitor = configuration.monitor
    token = _token(configuration, environ)
    signed = actions.links_of(configuration)
    prometheus = Prometheus(monitor.prometheus) if monitor.prometheus else None
    try:
        names = [channel.name for channel in configuration.channels]
        outbox = salvage.opened(monitor.data / OUTBOX_FILE, names, clock)
        try:
            history = prometheus.history if prometheus else None
            delivery = Delivery(configuration, outbox, environ, sender, clock, history=history)
            pipeline = Pipeline(
                configuration,
                outbox,
                clock,
                prometheus.measure if prometheus else None,
                links=signed.of if signed else None,
            )
            posted = Posted(outbox, monitor, clock())
        except BaseException:
            outbox.close()
            raise
    except OutboxError as error:
        raise ConfigurationError([Problem(str(error))]) from None
    rounds = Rounds(pipeline, posted, clock, prometheus.fires if prometheus else nobody_knows)
    switch = Switch(Heartbeat.of(monitor, environ))
    disk = ThreadPoolExecutor(1, "own state")
    if not configuration.channels:
        logger.warning("no channel is configured: alerts are accepted and nobody is told")

    async def alerts(request: Request) -> Response:
        try:
            post = post_from_webhook(await json_body(request, MAX_BODY), clock())
            # In a thread: the write waits for the disk.
            fresh = await asyncio.to_thread(rounds.take, post.alerts, post.origin, post.whole)
            rounds.wake()
            # It came all the way from Prometheus, and the outbox takes what is to be told.
            if any(alert.name == WATCHDOG and alert.firing for alert in post.alerts):
                await asyncio.to_thread(outbox.prove, clock())
                if pipeline.problem is None:
                    switch.alive()
        except WebhookError as error:
            return JSONResponse({"error": str(error)}, 400)
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except OutboxError as error:
            logger.error("an alert was not taken in: %s", error)
            return JSONResponse({"error": "the outbox cannot be written; the log says why"}, 503)
        return JSONResponse({"status": "accepted" if fresh else "known already", "alerts": len(post.alerts)})

    async def notifications(request: Request) -> Response:
        try:
            limit = int(request.query_params.get("limit", "100"))
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
        running = [asyncio.create_task(delivery.run()), asyncio.create_task(rounds.run())]
        try:
            yield
        finally:
            running[1].cancel()
            await switch.close()
            await delivery.close(grace=2.0)
            await asyncio.gather(*running, return_exceptions=True)
            rounds.close()
            disk.shutdown()
            outbox.close()

    held = holdingapi.routes(outbox, pipeline.firing, clock, disk)
    if signed:
        held += actions.routes(signed, outbox, pipeline.firing, css, clock, disk)
    app = Starlette(
        routes=[
            Route("/api/v1/alerts", alerts, methods=["POST"]),
            Route("/api/v1/notifications", notifications),
            Route("/metrics", metrics),
            Route("/-/healthy", healthy),
            *held,
        ],
        lifespan=lifespan,
    )
    return app if trusted and token is None else guard.Guard(app, monitor.host, token, OPEN_PATHS)


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
