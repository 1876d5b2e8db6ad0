"""``instrument(app)``: the one line that makes a server a measured one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from anvil_monitor.targets import Configuration, Percentile, Service, find_configuration, histogram_limits, load

from . import names, wsgi
from .asgi import Application
from .beacon import SCALE_EDGES, Beacon
from .database import Database
from .endpoint import Endpoint
from .eventloop import lag_of
from .exposer import Exposer
from .exposition import Family
from .folder import pages_folder
from .frameworks import Asked, Said, SaidByEnviron, hook_django, hook_flask, hook_quart, search_url_map
from .measures import Measures, Templates, ThreadedMeasures
from .middleware import Middleware
from .names import BYTES_EDGES, DATABASE_EDGES, LAG_EDGES, PAGE_LOAD_EDGES, SECONDS_EDGES, Metric
from .pagetemplates import PageTemplates
from .publisher import publisher
from .reader import Reader
from .recorder import Recorder, recorder_for
from .registry import adopt, others
from .routes import Routes
from .telemetry import still
from .versions import version_families, version_of
from .workers import families as process_families
from .wsgi import WsgiApplication, WsgiMiddleware

logger = logging.getLogger("anvil_monitor.exporter")

STANDARD_EDGES: Final[dict[Metric, tuple[float, ...]]] = {
    names.HTTP_DURATION: SECONDS_EDGES,
    names.DB_DURATION: DATABASE_EDGES,
    names.DB_CONNECTION_WAIT: DATABASE_EDGES,
    names.PAGE_LOAD: PAGE_LOAD_EDGES,
    names.SOFT_NAVIGATION: PAGE_LOAD_EDGES,
    names.HTTP_REQUEST_SIZE: BYTES_EDGES,
    names.HTTP_RESPONSE_SIZE: BYTES_EDGES,
    names.EVENT_LOOP_LAG: LAG_EDGES,
    names.WEB_VITAL_CLS: SCALE_EDGES,
    **dict.fromkeys(names.WEB_VITALS.values(), PAGE_LOAD_EDGES),
}


def histogram_edges(configuration: Configuration, service: str) -> dict[str, tuple[float, ...]]:
    """The buckets of every histogram, by metric name: the standard edges, one at each limit of a target, and of a
    percentile near it."""
    targets = configuration.targets_of(service) or configuration.targets
    percentiles = tuple(target for target in targets if isinstance(target.indicator, Percentile))
    found: dict[str, tuple[float, ...]] = {}
    for metric, standard in STANDARD_EDGES.items():
        near = (limit * times for limit in histogram_limits(percentiles, metric.name) for times in names.NEAR_LIMIT)
        rounded = (float(f"{edge:.9g}") for edge in near)  # 0.15, not 0.15000000000000002
        found[metric.name] = tuple(sorted({*standard, *histogram_limits(targets, metric.name), *rounded}))
    return found


class Options(TypedDict, total=False):
    """What :func:`instrument` can be told; the meanings are there."""

    service: str | None
    configuration: Configuration | str | os.PathLike[str] | None
    engine: Any
    metrics_path: str
    beacon_path: str
    directory: str | os.PathLike[str] | None
    version: str | None
    traces: bool
    meters: bool
    registry: Any
    route: Callable[[Any], str | None] | None


class Instrument:
    """What :func:`instrument` has put round an application."""

    def __init__(self, service: Service, recorder: Recorder, edges: dict[str, tuple[float, ...]]) -> None:
        self.service, self.recorder = service, recorder
        self._edges = edges
        self._exposer = Exposer(Reader(recorder.folder), edges)
        self._database = Database(recorder, edges[names.DB_DURATION.name])
        self._endpoint = Endpoint(service, self.metrics)
        self._route: Callable[[Any], str | None] | None = None
        self._paths = ("/metrics", "/anvil-monitor/beacon")
        self._traces = False
        self.version = version_of(os.environ)

    @property
    def folder(self) -> Path:
        """Where the pages of all workers are."""
        return self.recorder.folder

    def metrics(self, openmetrics: bool = False) -> str:
        """The metrics of all workers, in the Prometheus text format 0.0.4 or in OpenMetrics 1.0.

        Raises ``OSError`` where the folder of the pages is not this user's own.
        """
        publisher.flush()
        page = self.recorder.page
        private = page.bytes() if page is not None and self.recorder.private else None
        return self._exposer.text(openmetrics, private, self._besides)

    def _besides(self, pids: Sequence[int]) -> list[Family]:
        """What is not in the pages: the version, the workers as processes, and collectors of the user's own."""
        return [*version_families(self.version), *process_families(pids), *others(self.recorder)]

    def watch(self, engine: Any) -> None:
        """Time the queries of ``engine``, a SQLAlchemy ``Engine`` or ``AsyncEngine``."""
        self._database.watch(engine)

    def wrap(self, app: Application, templates: Templates) -> Middleware:
        """``app``, an ASGI application, measured."""
        measures = Measures(self.recorder, self._asked(templates), self._edges)
        lag = lag_of(self.recorder, self._edges[names.EVENT_LOOP_LAG.name])
        made = Middleware(app, measures, self._own(templates), lag)
        made.instrument = self
        return made

    def wrap_wsgi(self, app: WsgiApplication, templates: Templates) -> WsgiMiddleware:
        """``app``, a WSGI application, measured."""
        own = {path: wsgi.bridge(each) for path, each in self._own(templates).items() if each is not self._endpoint}
        own[self._paths[0]] = wsgi.metrics(self._endpoint)
        made = WsgiMiddleware(app, ThreadedMeasures(self.recorder, self._asked(templates), self._edges), own)
        made.instrument = self
        return made

    def _asked(self, templates: Templates) -> Templates:
        return Asked(self._route, templates) if self._route else templates

    def _own(self, templates: Templates) -> Mapping[str, Application]:
        metrics_path, beacon_path = self._paths
        pages = PageTemplates(self.service.pages, templates)
        beacon = Beacon(self.recorder, pages, self._edges, self.service.origins)
        return {metrics_path: self._endpoint, beacon_path: beacon.ingest, f"{beacon_path}.js": beacon.script}

    def close(self) -> None:
        """Give this process's page up, as its end would. For tests: nothing may be recorded afterwards."""
        self.recorder.close()


def instrument(
    app: Any, *, service: str | None = None, configuration: Configuration | str | os.PathLike[str] | None = None,
    engine: Any = None, metrics_path: str = "/metrics", beacon_path: str = "/anvil-monitor/beacon",
    directory: str | os.PathLike[str] | None = None, version: str | None = None,
    traces: bool = False, meters: bool = True, registry: Any = True,
    route: Callable[[Any], str | None] | None = None,
) -> Instrument:  # fmt: skip
    """Measure ``app`` (FastAPI, Starlette, Litestar, Quart or Flask) over all its workers.

    ``configuration``: a loaded one or the path of a ``monitor.toml``; without it the one that ``ANVIL_MONITOR_CONFIG``
    names or that stands in the working directory, else the defaults. ``service``: its name there, by default the
    first. ``directory``: where the pages of the workers go. ``version``: of your release, for "since which deploy"; by
    default ``ANVIL_SERVICE_VERSION``, or ``service.version`` in ``OTEL_RESOURCE_ATTRIBUTES``. ``app`` answers
    ``GET metrics_path``, ``POST beacon_path`` and ``GET beacon_path.js`` itself from now on. Call it where the
    application is made; a second call changes nothing.

    ``engine`` (SQLAlchemy; the module or a pool of asyncpg or psycopg): time its queries, too. ``meters``: what is
    recorded through OpenTelemetry's API comes out of ``/metrics``; ``registry``: so does what is in
    ``prometheus_client``'s registry, or in the one given. ``traces``: spans through
    opentelemetry-instrumentation-fastapi (needs ``anvil-monitor[traces]``). ``route``: a function of your own that
    gets the ASGI scope or WSGI environ after the answer and gives the route template, or ``None`` for "as usual".

    Raises ``ConfigurationError`` with every mistake of the file, ``LookupError`` for a service that it does not have,
    ``ImportError`` for ``traces`` without its packages, and ``TypeError`` for an application of another kind: those
    are wrapped by :func:`instrument_asgi` and :func:`instrument_wsgi`.
    """
    known = instrument_of(app)
    if known is not None:
        return known
    kind = _kind(app)
    if kind is None:
        raise TypeError(
            "instrument(app) takes a FastAPI, Starlette, Litestar, Quart or Flask application, not "
            f"{type(app).__name__}; any other (Django …) is wrapped: app = instrument_asgi(app) or instrument_wsgi(app)"
        )
    made = _make(service, configuration, directory)
    made._paths, made._route = (metrics_path, beacon_path), route
    made.version = version or made.version
    if traces:
        from .traces import trace

        trace(app, made.service.name)
        made._traces = True
    kind(made, app)
    _open(made, engine, meters, registry)
    return made


def instrument_asgi(app: Application, **options: Unpack[Options]) -> Application:
    """``app``, any ASGI application, measured: serve what this gives. The options are those of :func:`instrument`.

    Django's routes are found; of another framework ``scope["path_template"]`` or ``route=`` says them, else every
    request has the route ``(unmatched)``.
    """
    if instrument_of(app) is not None or _kind(app) is not None:
        instrument(app, **options)
        return app
    made = _made(options)
    if options.get("traces"):
        from .traces import traced

        app = traced(app, made.service.name)
    wrapped = made.wrap(app, Said(hook_django(app)))
    _open(made, options.get("engine"), options.get("meters", True), options.get("registry", True))
    return wrapped


def instrument_wsgi(app: WsgiApplication, **options: Unpack[Options]) -> WsgiApplication:
    """``app``, any WSGI application, measured: serve what this gives. The options are those of :func:`instrument`.

    Routes of Django and of everything on Werkzeug are found; of another framework ``route=`` says them.
    """
    if instrument_of(app) is not None or _kind(app) is not None:
        instrument(app, **options)
        return app
    made = _made(options)
    if options.get("traces"):
        from .traces import refuse_wsgi

        refuse_wsgi(app)
    wrapped = made.wrap_wsgi(app, SaidByEnviron(app, hook_django(app)))
    _open(made, options.get("engine"), options.get("meters", True), options.get("registry", True))
    return wrapped


def instrument_engine(
    engine: Any, *, service: str | None = None, configuration: Configuration | str | os.PathLike[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
) -> None:  # fmt: skip
    """Time the queries of ``engine``, a SQLAlchemy ``Engine`` or ``AsyncEngine``; the rest as in :func:`instrument`."""
    _make(service, configuration, directory).watch(engine)


def instrument_of(app: Any) -> Instrument | None:
    """What ``app`` has been instrumented with, if it has been."""
    for place in (app, getattr(app, "asgi_handler", None)):
        for name in ("_anvil_monitor", "instrument"):
            known = getattr(place, name, None)
            if isinstance(known, Instrument):
                return known
    return None


def _starlette(made: Instrument, app: Any) -> None:
    routes = Routes(app)
    build = app.build_middleware_stack

    def measured_stack() -> Middleware:
        still(app, made._traces)  # once more: applications have been mounted since
        return made.wrap(build(), routes)

    # Outermost, whatever middleware is added later: what an error page costs and answers is measured too.
    app.build_middleware_stack = measured_stack
    if app.middleware_stack is not None:
        app.middleware_stack = made.wrap(app.middleware_stack, routes)
    app._anvil_monitor = made
    still(app, made._traces)


def _litestar(made: Instrument, app: Any) -> None:
    app.asgi_handler = made.wrap(app.asgi_handler, Said())


def _quart(made: Instrument, app: Any) -> None:
    hook_quart(app)
    app.asgi_app = made.wrap(app.asgi_app, Said(search_url_map(app)))
    app._anvil_monitor = made


def _flask(made: Instrument, app: Any) -> None:
    hook_flask(app)
    app.wsgi_app = made.wrap_wsgi(app.wsgi_app, SaidByEnviron(app, search_url_map(app)))
    app._anvil_monitor = made


# Applications are known by the attribute that lets them be wrapped in place.
KINDS: Final[dict[str, Callable[[Instrument, Any], None]]] = {
    "build_middleware_stack": _starlette, "asgi_handler": _litestar, "asgi_app": _quart, "wsgi_app": _flask,
}  # fmt: skip


def _kind(app: Any) -> Callable[[Instrument, Any], None] | None:
    return next((wrap for name, wrap in KINDS.items() if hasattr(app, name)), None)


def _made(options: Options) -> Instrument:
    made = _make(options.get("service"), options.get("configuration"), options.get("directory"))
    made._paths = options.get("metrics_path", made._paths[0]), options.get("beacon_path", made._paths[1])
    made._route = options.get("route")
    made.version = options.get("version") or made.version
    return made


def _open(made: Instrument, engine: Any, meters: bool, given: Any) -> None:
    """The standard interfaces that others measure through."""
    if engine is not None:
        made.watch(engine)
    if meters:
        from .meters import install

        install(made.recorder, made._edges)
    if given:
        adopt(made.recorder, None if given is True else given)


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
    recorder.counts_its_end = True
    return Instrument(service, recorder, histogram_edges(configuration, service.name))
