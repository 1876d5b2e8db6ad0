"""The exporter outside the server: host, processes, probes, what is pushed over OTLP and what browsers report.

Part of ``anvil-monitor up`` (scraped over HTTP as Prometheus would) and of the bundle (``anvil-monitor exporter``).
"""

from __future__ import annotations

import threading

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from anvil_monitor.targets import Configuration, Service

from . import host, merge, names
from .beacon import Beacon
from .exposition import Family, Sample, encode, negotiate, render
from .instrument import histogram_edges
from .otlp import Receiver, Totals
from .otlp.receiver import PATH
from .pagetemplates import PageTemplates
from .probe import Probe
from .processes import ServerProcesses
from .reader import Reader
from .recorder import Recorder


class Collector:
    """Everything the exporter knows, collected on demand; collections never overlap.

    ``totals`` is what was pushed over OTLP, ``receiver`` its endpoint, ``beacons`` the endpoints of the browsers of
    servers that have none of their own, by service. What browsers report outlives a restart (it is below the monitor's
    data folder); what is pushed begins again, as its senders go on.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._processes = [ServerProcesses(service) for service in configuration.services]
        patience = min(1.0, configuration.monitor.scrape_timeout / 2)
        self._probes = [Probe(service, patience=patience) for service in configuration.services]
        self._lock = threading.Lock()
        self.totals = Totals(lambda service: histogram_edges(configuration, service), configuration.targets)
        self.receiver = Receiver(self.totals)
        self.beacons = {service.name: Browsers(service, configuration) for service in configuration.services}

    def collect(self) -> list[Family]:
        with self._lock:
            for probe in self._probes:
                probe.start()
            seen = host.collect()
            seen += (family for processes in self._processes for family in processes.collect())
            seen += (family for probe in self._probes for family in probe.collect())
            seen += self.totals.collect()
            seen += (family for browsers in self.beacons.values() for family in browsers.collect())
        return _merged(seen)

    def close(self) -> None:
        """Take nothing more; give the pages up."""
        self.receiver.close()
        for browsers in self.beacons.values():
            browsers.recorder.close()


class Browsers:
    """What the browsers of one service report to the monitor itself: the endpoint, and the families."""

    def __init__(self, service: Service, configuration: Configuration) -> None:
        self._service = service.name
        self._edges = histogram_edges(configuration, service.name)
        self.recorder = Recorder(configuration.monitor.data / "beacons" / service.name)
        self._reader = Reader(self.recorder.folder)
        self.endpoint = Beacon(self.recorder, PageTemplates(service.pages), self._edges, service.origins)

    def collect(self) -> list[Family]:
        page = self.recorder.page
        private = page.bytes() if page is not None and self.recorder.private else None
        families = merge.families(self._reader.totals(private), self._edges)
        return [
            Family(
                family.metric,
                [
                    Sample(each.suffix, (("service", self._service), *each.labels), each.value)
                    for each in family.samples
                ],
            )
            for family in families
            if family.metric.name.startswith("browser_") or family.metric is names.BEACONS
        ]


def _merged(families: list[Family]) -> list[Family]:
    """One family a name: the text format wants all samples of a name together, and no series twice.

    What two sources know (the memory of a server that pushes it, and as its processes have it) is the first's.
    """
    by_name: dict[str, Family] = {}
    for family in families:
        known = by_name.get(family.metric.name)
        if known is None:
            by_name[family.metric.name] = family
            continue
        seen = {(sample.suffix, sample.labels) for sample in known.samples}
        more = [sample for sample in family.samples if (sample.suffix, sample.labels) not in seen]
        by_name[family.metric.name] = Family(known.metric, [*known.samples, *more])
    return list(by_name.values())


def routes(collector: Collector) -> list[Route]:
    """Where others send to: ``POST /v1/metrics`` and the beacons of every service."""
    found = [Route(PATH, collector.receiver)]
    for service, browsers in collector.beacons.items():
        path = f"{names.BEACON_PATH}/{service}"
        found += [Route(path, browsers.endpoint), Route(f"{path}.js", browsers.endpoint)]
    return found


def otlp_app(collector: Collector) -> Starlette:
    """The application of the listener for senders: :func:`routes` and ``GET /-/healthy``."""
    return Starlette(routes=[*routes(collector), Route("/-/healthy", _healthy)])


def create_app(configuration: Configuration, collector: Collector | None = None) -> Starlette:
    """``GET /metrics``, ``GET /-/healthy`` and :func:`routes`."""
    collected = collector or Collector(configuration)

    def metrics(request: Request) -> Response:  # no coroutine: Starlette runs it in a thread, off the event loop
        wanted = negotiate(request.headers.get("accept", ""), request.headers.get("accept-encoding", ""))
        body, headers = encode(render(collected.collect(), wanted.openmetrics), wanted)
        return Response(body, headers=dict(headers))

    return Starlette(routes=[Route("/metrics", metrics), Route("/-/healthy", _healthy), *routes(collected)])


def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")
