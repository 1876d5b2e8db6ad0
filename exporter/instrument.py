"""``instrument(app)``: the one line that makes a FastAPI or Starlette server a measured one."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from pathlib import Path
from typing import Any, Final

from anvil_monitor.targets import Configuration, Service, find_configuration, histogram_limits, load

from . import names
from .asgi import Application, Receive, Scope, Send, header, respond
from .beacon import SCALE_EDGES, Beacon
from .database import Database
from .exposition import CONTENT_TYPE, render
from .folder import pages_folder
from .measures import Measures
from .merge import families
from .middleware import Middleware
from .names import BYTES_EDGES, DATABASE_EDGES, LAG_EDGES, PAGE_LOAD_EDGES, SECONDS_EDGES, Metric
from .pagetemplates import PageTemplates
from .reader import Reader
from .recorder import Recorder, recorder_for
from .routes import Routes

logger = logging.getLogger("anvil_monitor.exporter")

STANDARD_EDGES: Final[dict[Metric, tuple[float, ...]]] = {
    names.HTTP_DURATION: SECONDS_EDGES,
    names.DB_DURATION: DATABASE_EDGES,
    names.PAGE_LOAD: PAGE_LOAD_EDGES,
    names.SOFT_NAVIGATION: PAGE_LOAD_EDGES,
    names.HTTP_REQUEST_SIZE: BYTES_EDGES,
    names.HTTP_RESPONSE_SIZE: BYTES_EDGES,
    names.EVENT_LOOP_LAG: LAG_EDGES,
    names.WEB_VITAL_CLS: SCALE_EDGES,
    **dict.fromkeys(names.WEB_VITALS.values(), PAGE_LOAD_EDGES),
}


def histogram_edges(configuration: Configuration, service: str) -> dict[str, tuple[float, ...]]:
    """The buckets of every histogram, by metric name: the standard edges and one at each limit of a target."""
    targets = configuration.targets_of(service) or configuration.targets
    return {
        metric.name: tuple(sorted({*standard, *histogram_limits(targets, metric.name)}))
        for metric, standard in STANDARD_EDGES.items()
    }


class Instrument:
    """What :func:`instrument` has put round an application."""

    def __init__(self, service: Service, recorder: Recorder, edges: dict[str, tuple[float, ...]]) -> None:
        self.service, self.recorder = service, recorder
        self._edges = edges
        self._reader = Reader(recorder.folder)
        self._database = Database(recorder, edges[names.DB_DURATION.name])

    @property
    def folder(self) -> Path:
        """Where the pages of all workers are."""
        return self.recorder.folder

    def metrics(self) -> str:
        """The metrics of all workers, in the Prometheus text format 0.0.4."""
        page = self.recorder.page
        private = page.bytes() if page is not None and self.recorder.private else None
        return render(families(self._reader.totals(private), self._edges, private is not None))

    def watch(self, engine: Any) -> None:
        """Time the queries of ``engine``, a SQLAlchemy ``Engine`` or ``AsyncEngine``."""
        self._database.watch(engine)

    def wrap(self, app: Application, routes: Routes, metrics_path: str, beacon_path: str) -> Middleware:
        pages = PageTemplates(self.service.pages, routes)
        beacon = Beacon(self.recorder, pages, self._edges, self.service.origins)
        own: dict[str, Application] = {
            metrics_path: self.answer,
            beacon_path: beacon.ingest,
            f"{beacon_path}.js": beacon.script,
        }
        measures = Measures(self.recorder, routes, self._edges)
        return Middleware(app, measures, own)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET /metrics``. With ``metrics_token`` in the configuration, for its bearer only."""
        if scope["method"] not in ("GET", "HEAD"):
            await respond(send, 405, headers=[("allow", "GET, HEAD")])
            return
        status, reason = self._allowed(scope)
        if status != 200:
            await respond(
                send, status, reason.encode(), headers=[("www-authenticate", "Bearer")] if status == 401 else []
            )
            return
        # In a thread: reading files and writing text is no work for the loop that answers requests.
        text = await asyncio.get_running_loop().run_in_executor(None, self.metrics)
        await respond(send, 200, text.encode(), CONTENT_TYPE, head=scope["method"] == "HEAD")

    def _allowed(self, scope: Scope) -> tuple[int, str]:
        token = self.service.metrics_token
        if token is None:
            return 200, ""
        try:
            expected = f"Bearer {token.reveal(dict(os.environ))}"
        except LookupError as error:
            logger.error("metrics_token of service %s: %s", self.service.name, error.args[0])
            return 503, "the metrics_token of this service cannot be read; see the server's log\n"
        given = header(scope, b"authorization")
        if hmac.compare_digest(given.encode(), expected.encode()):
            return 200, ""
        return 401, "this service's metrics ask for the bearer token that metrics_token names\n"

    def close(self) -> None:
        """Give this process's page up, as its end would. For tests: nothing may be recorded afterwards."""
        self.recorder.close()


def instrument(
    app: Any, *, service: str | None = None, configuration: Configuration | str | os.PathLike[str] | None = None,
    engine: Any = None, metrics_path: str = "/metrics", beacon_path: str = "/anvil-monitor/beacon",
    directory: str | os.PathLike[str] | None = None,
) -> Instrument:  # fmt: skip
    """Measure ``app`` (FastAPI or Starlette): requests, and with ``engine`` (SQLAlchemy) queries, over all workers.

    ``configuration``: a loaded one or the path of a ``monitor.toml``; without it the one that ``ANVIL_MONITOR_CONFIG``
    names or that stands in the working directory, else the defaults. ``service``: its name there, by default the
    first. ``directory``: where the pages of the workers go. ``app`` answers ``GET metrics_path``, ``POST beacon_path``
    and ``GET beacon_path.js`` itself from now on. Call it where the application is made; a second call changes nothing.

    Raises ``ConfigurationError`` with every mistake of the file, ``LookupError`` for a service that it does not have,
    and ``TypeError`` for an application of another kind.
    """
    known = getattr(app, "_anvil_monitor", None)
    if isinstance(known, Instrument):
        return known
    if not hasattr(app, "build_middleware_stack"):
        raise TypeError(f"instrument(app) takes a FastAPI or Starlette application, not {type(app).__name__}")
    made = _make(service, configuration, directory)
    routes = Routes(app)
    build = app.build_middleware_stack

    def measured_stack() -> Middleware:
        return made.wrap(build(), routes, metrics_path, beacon_path)

    # Outermost, whatever middleware is added later: what an error page costs and answers is measured too.
    app.build_middleware_stack = measured_stack
    if app.middleware_stack is not None:
        app.middleware_stack = made.wrap(app.middleware_stack, routes, metrics_path, beacon_path)
    app._anvil_monitor = made
    _still(app)
    if engine is not None:
        made.watch(engine)
    return made


def instrument_engine(
    engine: Any, *, service: str | None = None, configuration: Configuration | str | os.PathLike[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
) -> None:  # fmt: skip
    """Time the queries of ``engine``, a SQLAlchemy ``Engine`` or ``AsyncEngine``; the rest as in :func:`instrument`."""
    _make(service, configuration, directory).watch(engine)


def _make(
    name: str | None, configuration: Configuration | str | os.PathLike[str] | None,
    directory: str | os.PathLike[str] | None,
) -> Instrument:  # fmt: skip
    if configuration is None:
        configuration = load(find_configuration())
    elif not isinstance(configuration, Configuration):
        configuration = load(Path(configuration))
    services = {each.name: each for each in configuration.services}
    if name is not None and name not in services:
        raise LookupError(f"no service {name!r} in the configuration; there are: {', '.join(services)}")
    service = services[name] if name is not None else configuration.services[0]
    recorder = recorder_for(pages_folder(service.name, directory, os.environ))
    return Instrument(service, recorder, histogram_edges(configuration, service.name))


def _still(app: Any) -> None:
    """Turn FastAPI's own request metrics off, which measure the same: unless they have somewhere of their own to go."""
    from opentelemetry import metrics

    settings = getattr(app, "_telemetry", None)  # private; without it (Starlette, older FastAPI) there is nothing to do
    if not isinstance(settings, dict) or settings.get("meter_provider") is not None:
        return
    # The API's own placeholder is in a private module of its package; a provider that somebody has set is not.
    if type(metrics.get_meter_provider()).__module__.startswith("opentelemetry.metrics."):
        settings["metrics"] = False
