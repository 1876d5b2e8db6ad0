"""The Prometheus HTTP API over the embedded store, faithful enough that Grafana takes it for a Prometheus.

Same paths, parameters, envelope, error types and number text. Queries run in a thread, so that a slow one delays
neither scrapes nor the page.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import apistatus, apisyntax
from .apistate import Sources, alerts, rules, targets
from .parameters import TIMED_OUT, Answer, ApiError, Parameters, cut, invalid
from .promql import Engine, Matrix, QueryError, Scalar, Text, Value, Vector
from .promql.nodes import kind
from .promql.parse import parse
from .promql.values import number_text, plain_text
from .samples import Labels, Matcher, Series

MOST_POINTS: Final = 11_000
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
        ("query_exemplars", both, exemplars),
        ("format_query", both, apisyntax.format_query),
        ("parse_query", both, apisyntax.parse_query),
        ("rules", get, rules),
        ("alerts", get, alerts),
        ("targets", get, targets),
        *((path, get, run) for path, run in apistatus.ENDPOINTS.items()),
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
        found = run(sources, parameters)
        answer = found if isinstance(found, Answer) else Answer(found)
        notes = {"warnings": list(answer.warnings), "infos": list(answer.infos)}
        said = {name: texts for name, texts in notes.items() if texts}
        return encode({"status": "success", "data": answer.data, **said})

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
    limit, run = parameters.limit(), _Run(sources, parameters)
    text = parameters.text("query")
    _parsed(text, "query")
    return run.answer(lambda engine, timeout: engine.instant(text, at, timeout=timeout), limit)


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
    limit, run = parameters.limit(), _Run(sources, parameters)
    text = parameters.text("query")
    found = kind(_parsed(text))
    if found in ("matrix", "string"):
        words = f'invalid expression type "{KIND_WORDS[found]}" for range query, must be Scalar or instant Vector'
        raise ApiError("bad_data", words)
    return run.answer(lambda engine, timeout: engine.range(text, start, end, step, timeout=timeout), limit)


class _Run:
    """How a query is to be run: on which engine, for how long, and whether it is to say how long that took."""

    def __init__(self, sources: Sources, parameters: Parameters) -> None:
        asked, lookback = parameters.timeout(), parameters.lookback()
        self._timeout = sources.query_timeout if asked is None else min(asked, sources.query_timeout)
        self._engine = sources.engine if lookback is None else Engine(sources.store, lookback=lookback)
        self._stats = bool(parameters.text("stats"))

    def answer(self, ask: Callable[[Engine, float], Value], limit: int | None) -> Answer:
        begin = time.perf_counter()
        try:
            value = ask(self._engine, self._timeout)
        except QueryError as error:
            raise ApiError(error.kind, TIMED_OUT if error.kind == "timeout" else error.message) from None
        taken = time.perf_counter() - begin
        answer = _many(value, limit) if isinstance(value, Vector | Matrix) else Answer(_single(value))
        answer = Answer(answer.data, (*value.warnings, *answer.warnings), value.infos)
        if self._stats:
            timings = {"evalTotalTime": taken, "execQueueTime": 0, "execTotalTime": taken}
            answer.data["stats"] = {"timings": timings}
        return answer


def _parsed(text: str, name: str = "") -> Any:
    try:
        return parse(text)
    except QueryError as error:
        raise invalid(name, error.message) if name else ApiError("bad_data", error.message) from None


def _single(value: Scalar | Text) -> dict[str, Any]:
    if isinstance(value, Scalar):
        return {"resultType": "scalar", "result": [_seconds(value.time), plain_text(value.value)]}
    return {"resultType": "string", "result": [_seconds(value.time), value.value]}


def _many(value: Vector | Matrix, limit: int | None) -> Answer:
    if isinstance(value, Vector):
        found = cut(value.samples, limit)
        elements = [{"metric": dict(one.labels), "value": _pair(one.time, one.value)} for one in found.data]
        return Answer({"resultType": "vector", "result": elements}, found.warnings)
    found = cut(value.series, limit)
    times: dict[int, list[float]] = {}  # of arrays, by identity: complete series share theirs
    elements = [_series(each, times) for each in found.data]
    return Answer({"resultType": "matrix", "result": elements}, found.warnings)


def _series(series: Series, times: dict[int, list[float]]) -> dict[str, Any]:
    seconds = times.get(id(series.timestamps))
    if seconds is None:
        seconds = [ms / 1000 if ms % 1000 else ms // 1000 for ms in series.timestamps.tolist()]
        times[id(series.timestamps)] = seconds
    texts = map(number_text, series.values.tolist())
    return {"metric": dict(series.labels), "values": list(zip(seconds, texts, strict=True))}


def _pair(at: float, value: float) -> list[Any]:
    return [_seconds(at), number_text(value)]


def _seconds(at: float) -> float | int:
    rounded = round(at, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def _selected(sources: Sources, parameters: Parameters, matchers: Iterable[Sequence[Matcher]]) -> list[Labels]:
    start, end = parameters.time("start", 0.0), parameters.time("end", 1e11)
    if end < start:
        return []
    found = {
        each
        for matcher in matchers
        for each in sources.store.series(matcher, math.floor(start * 1000), math.ceil(end * 1000))
    }
    return sorted(found)


def series(sources: Sources, parameters: Parameters) -> Any:
    limit, matchers = parameters.limit(), parameters.matchers()
    if not matchers:
        raise ApiError("bad_data", "no match[] parameter provided")
    return cut([dict(each) for each in _selected(sources, parameters, matchers)], limit)


def labels(sources: Sources, parameters: Parameters) -> Any:
    limit, found = parameters.limit(), _selected(sources, parameters, parameters.matchers(named=False) or [()])
    return cut(sorted({name for each in found for name, _ in each}), limit)


def label_values(sources: Sources, parameters: Parameters, name: str) -> Any:
    if name.startswith("U__"):
        name = apisyntax.unescape(name)
    elif not name.replace("_", "a").isalnum() or not name.isascii() or name[0].isdigit():
        raise ApiError("bad_data", f'invalid label name: "{name}"')
    limit, found = parameters.limit(), _selected(sources, parameters, parameters.matchers(named=False) or [()])
    return cut(sorted({value for each in found for key, value in each if key == name}), limit)


def exemplars(sources: Sources, parameters: Parameters) -> Any:
    """None: this store keeps none. A wrong question still is one."""
    start, end = parameters.time("start", 0.0), parameters.time("end", 1e11)
    if end < start:
        raise ApiError("bad_data", "end timestamp must not be before start timestamp")
    _parsed(parameters.text("query"))
    return []
