"""``/federate``: the last sample of every series that a selector takes, for a Prometheus that scrapes it.

In the text format 0.0.4, with the samples' own times, ended series left out: as Prometheus writes it.
https://prometheus.io/docs/prometheus/latest/federation/
"""

from __future__ import annotations

import asyncio
import math
from itertools import groupby
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from anvil_monitor.exporter.exposition import CONTENT_TYPE, label_text

from .apistate import Sources, exponent_text
from .parameters import ApiError, Parameters
from .promql.values import plain_text
from .samples import NAME, Labels, is_stale, series_of

PATH: Final = "/federate"
LOOKBACK: Final = 300_000  # ms


def route(sources: Sources) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            parameters = await Parameters.of(request)
            text = await asyncio.get_running_loop().run_in_executor(sources.executor, federate, sources, parameters)
        except ApiError as error:
            return PlainTextResponse(f"{error}\n", error.status)
        except RuntimeError as error:  # the executor has been shut down: we are on our way out
            return PlainTextResponse(f"{error}\n", 503)
        return Response(text, media_type=CONTENT_TYPE)

    return Route(PATH, endpoint, methods=["GET"])


def federate(sources: Sources, parameters: Parameters) -> str:
    """The text for ``match[]``. Raises :class:`ApiError` for what is no selector."""
    now = round(sources.clock() * 1000)
    last: dict[Labels, tuple[int, float]] = {}
    for matchers in parameters.matchers(named=False):
        for series in series_of(sources.store.select(matchers, now - LOOKBACK + 1, now)):
            if not is_stale(series.values[-1:])[0]:
                last[series.labels] = (int(series.timestamps[-1]), float(series.values[-1]))
    lines: list[str] = []
    for name, group in groupby(sorted(last, key=lambda labels: (_name(labels), labels)), key=_name):
        lines.append(f"# TYPE {name} untyped")
        for labels in group:
            at, value = last[labels]
            lines.append(f"{name}{_text(labels)} {go_text(value)} {at}")
    return "\n".join(lines) + "\n" if lines else ""


def _name(labels: Labels) -> str:
    return dict(labels)[NAME] if any(name == NAME for name, _ in labels) else ""


def _text(labels: Labels) -> str:
    # Without an instance of its own a series would get the one of whoever is scraped.
    pairs = tuple(pair for pair in labels if pair[0] != NAME)
    return label_text(pairs if any(name == "instance" for name, _ in pairs) else (*pairs, ("instance", "")))


def go_text(value: float) -> str:
    """A number as Go's ``%g`` writes it, and so Prometheus in this format: ``1e+06``, ``0.0001``."""
    if value == 0:
        return "0"
    short = exponent_text(value)
    if not math.isfinite(value):
        return short
    return plain_text(value) if -4 <= int(short.partition("e")[2]) < 6 else short
