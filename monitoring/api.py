"""The Prometheus HTTP API over the embedded store, faithful enough that Grafana takes it for a Prometheus.

Same paths, parameters, envelope, error types and number text. Queries run in a thread, so that a slow one delays
neither scrapes nor the page.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import metadata
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .apistate import Sources, alerts, rules, targets
from .parameters import ApiError, Parameters, invalid
from .promql import QueryError, Scalar, Text, Value, Vector
from .promql.nodes import kind
from .promql.parse import parse
from .promql.values import number_text
from .samples import Labels, Matcher, Series

MOST_POINTS: Final = 11_000
# What Grafana is told: it decides by this number which PromQL it may send.
PROMETHEUS_VERSION: Final = "2.42.0"
KIND_WORDS: Final = {"matrix": "range vector", "string": "string", "vector": "instant vector", "scalar": "scalar"}


Handler = Callable[[Sources, Parameters], Any]


def routes(sources: Sources) -> list[Route]:
    """The endpoints, as Starlette routes below ``/api/v1``."""
    both, get = ["GET", "POST"], ["GET"]
    table: list[tuple[str, list[str], Handler]] = [
        ("query", both, query),
        ("query_range", both, query_range),
        ("series", both, series),
        ("labels", both, labels),
        ("metadata", get, lambda sources, parameters: {}),
        ("query_exemplars", both, lambda sources, parameters: []),
        ("rules", get, rules),
        ("alerts", get, alerts),
        ("targets", get, targets),
        ("status/buildinfo", get, buildinfo),
    ]
    made = [Route(f"/api/v1/{path}", _endpoint(sources, run), methods=methods) for path, methods, run in table]

    async def values(request: Request) -> Response:
        name = request.path_params["name"]
        return await _answer(request, sources, lambda sources, parameters: label_values(sources, parameters, name))

    return [*made, Route("/api/v1/label/{name}/values", values, methods=get)]


def _endpoint(sources: Sources, run: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await _answer(request, sources, run)

    return endpoint


async def _answer(request: Request, sources: Sources, run: Handler) -> Response:
    def work(parameters: Parameters) -> bytes:
        return encode({"status": "success", "data": run(sources, parameters)})

    try:
        parameters = await Parameters.of(request)
        body = await asyncio.get_running_loop().run_in_executor(sources.executor, work, parameters)
    except ApiError as error:
        return failure(error.kind, str(error), error.status)
    except QueryError as error:
        wrong = ApiError(error.kind, error.message)
        return failure(wrong.kind, str(wrong), wrong.status)
    except RuntimeError as error:  # the executor has been shut down: we are on our way out
        return failure("unavailable", str(error), 503)
    return Response(body, media_type="application/json")


def failure(kind: str, message: str, status: int) -> Response:
    """The error envelope."""
    body = encode({"status": "error", "errorType": kind, "error": message})
    return Response(body, status_code=status, media_type="application/json")


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def query(sources: Sources, parameters: Parameters) -> Any:
    at = parameters.time("time", round(sources.clock(), 3))
    limit = parameters.limit()
    text = parameters.text("query")
    _parsed(text)
    return _result(sources.engine.instant(text, at), limit)


def query_range(sources: Sources, parameters: Parameters) -> Any:
    start, end = parameters.time("start"), parameters.time("end")
    if end < start:
        raise invalid("end", "end timestamp must not be before start time")
    step = parameters.duration("step")
    if step <= 0:
        raise invalid("step", "zero or negative query resolution step widths are not accepted. Try a positive integer")
    if (end - start) / step > MOST_POINTS:
        raise ApiError(
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. "
            "Try decreasing the query resolution (?step=XX)",
        )
    limit = parameters.limit()
    text = parameters.text("query")
    found = kind(_parsed(text))
    if found in ("matrix", "string"):
        words = f'invalid expression type "{KIND_WORDS[found]}" for range query, must be Scalar or instant Vector'
        raise ApiError("bad_data", words)
    return _result(sources.engine.range(text, start, end, step), limit)


def _parsed(text: str) -> Any:
    try:
        return parse(text)
    except QueryError as error:
        raise invalid("query", error.message) from None


def _result(value: Value, limit: int | None) -> dict[str, Any]:
    if isinstance(value, Scalar):
        return {"resultType": "scalar", "result": _pair(value.time, value.value)}
    if isinstance(value, Text):
        return {"resultType": "string", "result": [_seconds(value.time), value.value]}
    if isinstance(value, Vector):
        elements = [
            {"metric": dict(sample.labels), "value": _pair(sample.time, sample.value)}
            for sample in value.samples[:limit]
        ]
        return {"resultType": "vector", "result": elements}
    return {"resultType": "matrix", "result": [_series(each) for each in value.series[:limit]]}


def _series(series: Series) -> dict[str, Any]:
    pairs = zip(series.timestamps.tolist(), series.values.tolist(), strict=True)
    return {"metric": dict(series.labels), "values": [_pair(ms / 1000, value) for ms, value in pairs]}


def _pair(at: float, value: float) -> list[Any]:
    return [_seconds(at), number_text(value)]


def _seconds(at: float) -> float | int:
    rounded = round(at, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _selected(sources: Sources, parameters: Parameters, matchers: Iterable[Sequence[Matcher]]) -> list[Labels]:
    start, end = parameters.time("start", 0.0), parameters.time("end", 1e11)
    if end < start:
        raise invalid("end", "end timestamp must not be before start time")
    found = {
        each
        for matcher in matchers
        for each in sources.store.series(matcher, math.floor(start * 1000), math.ceil(end * 1000))
    }
    return sorted(found)


def series(sources: Sources, parameters: Parameters) -> Any:
    matchers = parameters.matchers()
    if not matchers:
        raise ApiError("bad_data", "no match[] parameter provided")
    return [dict(each) for each in _selected(sources, parameters, matchers)[: parameters.limit()]]


def labels(sources: Sources, parameters: Parameters) -> Any:
    found = _selected(sources, parameters, parameters.matchers() or [()])
    return sorted({name for each in found for name, _ in each})[: parameters.limit()]


def label_values(sources: Sources, parameters: Parameters, name: str) -> Any:
    if not name.replace("_", "a").isalnum() or not name.isascii() or name[0].isdigit():
        raise ApiError("bad_data", f'invalid label name: "{name}"')
    found = _selected(sources, parameters, parameters.matchers() or [()])
    return sorted({value for each in found for key, value in each if key == name})[: parameters.limit()]


def buildinfo(sources: Sources, parameters: Parameters) -> Any:
    return {
        "version": PROMETHEUS_VERSION,
        "revision": f"anvil-monitor {metadata.version('anvil-monitor')}",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }
