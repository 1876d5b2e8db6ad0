"""The exporter outside the server: host, processes and probe as one ``/metrics``.

Part of ``anvil-monitor up`` (scraped over HTTP as Prometheus would) and of the bundle (``anvil-monitor exporter``).
"""

from __future__ import annotations

import threading

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from anvil_monitor.targets import Configuration

from . import host
from .exposition import CONTENT_TYPE, Family, render
from .probe import Probe
from .processes import ServerProcesses


class Collector:
    """Everything the exporter knows, collected on demand; collections never overlap."""

    def __init__(self, configuration: Configuration) -> None:
        self._processes = [ServerProcesses(service) for service in configuration.services]
        patience = min(1.0, configuration.monitor.scrape_timeout / 2)
        self._probes = [Probe(service, patience=patience) for service in configuration.services]
        self._lock = threading.Lock()

    def collect(self) -> list[Family]:
        with self._lock:
            for probe in self._probes:
                probe.start()
            seen = host.collect()
            seen += (family for processes in self._processes for family in processes.collect())
            seen += (family for probe in self._probes for family in probe.collect())
        return _merged(seen)


def _merged(families: list[Family]) -> list[Family]:
    """One family a name: the text format wants all samples of a name together."""
    by_name: dict[str, Family] = {}
    for family in families:
        known = by_name.get(family.metric.name)
        samples = [*known.samples, *family.samples] if known else family.samples
        by_name[family.metric.name] = Family(family.metric, samples)
    return list(by_name.values())


def create_app(configuration: Configuration) -> Starlette:
    """``GET /metrics`` and ``GET /-/healthy``."""
    collector = Collector(configuration)

    def metrics(_: Request) -> Response:  # no coroutine: Starlette runs it in a thread, off the event loop
        return Response(render(collector.collect()), media_type=CONTENT_TYPE)

    def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/metrics", metrics), Route("/-/healthy", healthy)])
