"""The Prometheus HTTP API over the embedded store, faithful enough that Grafana takes it for a Prometheus.

Same paths, parameters, envelope, error types and number text. Queries run in a thread, so that a slow one delays
neither scrapes nor the page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from starlette.routing import Route

from . import apistatus, apisyntax
from .answers import Pairs
from .apistate import Sources, alerts, rules, targets
from .endpoints import Endpoint, Handler, Quick
from .parameters import TIMED_OUT, Answer, ApiError, Parameters, cut, invalid
from .promql import Engine, Matrix, QueryError, Scalar, Text, Value, Vector
from .promql.nodes import kind
from .promql.parse import parse
from .promql.values import number_text, plain_text
from .samples import Labels, Matcher

MOST_POINTS: Final = 11_000
KIND_WORDS: Final = {"matrix": "range vector", "string": "string", "vector": "instant vector", "scalar": "scalar"}


def routes(sources: Sources) -> list[Route]:
    """The endpoints, as Starlette routes below ``/api/v1``; those that are asked most come first."""
    both, get = ["GET", "POST"], ["GET"]
    table: list[tuple[str, list[str], Handler, Quick | None]] = [
        ("query", both, query, Quick()),
        ("query_range", both, query_range, None),
        ("series", both, series, None),
        ("labels", both, labels, None),
        ("label/{name}/values", get, label_values, None),
        ("query_exemplars", both, exemplars, None),
        ("format_query", both, apisyntax.format_query, None),
        ("parse_query", both, apisyntax.parse_query, None),
        ("rules", get, rules, None),
        ("alerts", get, alerts, None),
        ("targets", get, targets, None),
        *((path, get, run, None) for path, run in apistatus.ENDPOINTS.items()),
    ]
    return [
        Route(f"/api/v1/{path}", Endpoint(sources, run, quick), methods=methods) for path, methods, run, quick in table
    ]


def query(sources: Sources, parameters: Parameters) -> Any:
    at = parameters.time("time", round(sources.clock(), 3))
    limit, run = parameters.limit(), _Run(sources, parameters)
    text = parameters.text("query")
    _parsed(text, "query")
    return run.answer(lambda engine, limits: engine.instant(text, at, **limits), limit)


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
    return run.answer(lambda engine, limits: engine.range(text, start, end, step, **limits), limit)


class _Run:
    """How a query is to be run: on which engine, for how long, and whether it is to say how long that took."""

    def __init__(self, sources: Sources, parameters: Parameters) -> None:
        asked, lookback = parameters.timeout(), parameters.lookback()
        bounds = (each for each in (asked, parameters.patience, sources.query_timeout) if each is not None)
        self._limits = {"timeout": min(bounds), "cancel": parameters.cancel}
        self._engine = sources.engine if lookback is None else Engine(sources.store, lookback=lookback)
        self._stats = bool(parameters.text("stats"))

    def answer(self, ask: Callable[[Engine, dict[str, Any]], Value], limit: int | None) -> Answer:
        begin = time.perf_counter()
        try:
            value = ask(self._engine, self._limits)
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
    pairs = Pairs()
    elements = [{"metric": dict(each.labels), "values": pairs.of(each)} for each in found.data]
    return Answer({"resultType": "matrix", "result": elements}, found.warnings)


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


def label_values(sources: Sources, parameters: Parameters) -> Any:
    name = parameters.path["name"]
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
