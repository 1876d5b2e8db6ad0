"""A real Prometheus with the same samples as our store, and random data and queries to compare them with."""

from __future__ import annotations

import http.client
import json
import math
import random
import urllib.parse

from real_prometheus import push

from anvil_monitor.monitoring.promql import Engine, QueryError
from anvil_monitor.monitoring.samples import STALE_NAN, Labels, labels_of
from anvil_monitor.monitoring.store import Store

START = 10_000
"""Seconds at which the data begins; it lasts an hour."""

MATHS = (
    *("abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "sgn", "round", "deg", "rad", "-", "+"),
    *("asin", "acos", "atan", "sinh", "tanh", "asinh", "acosh", "atanh", "absent", "timestamp", "sort", "sort_desc"),
)
SMALL = ("sin", "cos", "tan", "cosh")
DATES = ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")

OVER = ("delta", "irate", "idelta", "changes", "resets", "deriv")
OVER_TIME = ("sum", "avg", "min", "max", "count", "last", "present", "stddev", "stdvar")

Data = dict[Labels, list[tuple[int, float]]]
Answer = dict[Labels, dict[int, float]] | str


def random_data(seed: int) -> Data:
    """Counters with resets, gauges with NaN, gaps and stale markers, histograms. Sample times never fall on a bound."""
    choice = random.Random(seed)
    data: Data = {}

    def times() -> list[int]:
        step = choice.choice([10, 15, 30])
        shift = choice.randrange(1, 400)
        return [at * 1000 + shift for at in range(START, START + 3600, step) if choice.random() > 0.03]

    for job in "ab":
        for instance in "12":
            value = choice.uniform(1e4, 2e4)
            counter, gauge = [], []
            for at in times():
                value = value / 2 if choice.random() < 0.01 else value + choice.expovariate(0.1)
                counter.append((at, value))
            data[labels_of(__name__="requests_total", job=job, instance=instance)] = counter
            for at in times():
                odd = choice.random()
                gauge.append((at, STALE_NAN if odd < 0.02 else math.nan if odd < 0.04 else choice.gauss(0, 50)))
            data[labels_of(__name__="level", job=job, instance=instance)] = gauge
            data[labels_of(__name__="info", job=job, instance=instance, zone=choice.choice("xy"))] = [
                (at, 1.0) for at in times()
            ]
            moments = times()
            totals = [choice.uniform(1e4, 2e4) for _ in range(4)]
            buckets: list[list[tuple[int, float]]] = [[], [], [], []]
            for at in moments:
                totals = [total + choice.randrange(5) for total in totals]
                for number, samples in enumerate(buckets):
                    samples.append((at, float(int(sum(totals[: number + 1])))))
            for le, samples in zip(("0.1", "0.5", "2.5", "+Inf"), buckets, strict=True):
                data[labels_of(__name__="size_bucket", job=job, instance=instance, le=le)] = samples
    return data


def store_of(data: Data) -> Store:
    """Our store with the same samples."""
    store = Store()
    flat = sorted((at, labels, value) for labels, samples in data.items() for at, value in samples)
    for at, labels, value in flat:
        store.append(at, [(labels, value)])
    return store


class Queries:
    """Random PromQL that means the same in Prometheus 2.42 and 3."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)

    def one(self, *options: str) -> str:
        return self.choice.choice(options)

    def matchers(self) -> str:
        return self.one("", "", '{job="a"}', '{instance!="1"}', '{job=~"a|c"}', '{instance!~"2.*"}')

    def shift(self) -> str:
        return self.one("", "", "", "", " offset 90s", " offset -45s", f" @ {START + 1800.5}", " @ end()", " @ start()")

    def selector(self) -> str:
        return self.one("requests_total", "level", "info", "size_bucket") + self.matchers() + self.shift()

    def window(self, depth: int) -> str:
        if depth > 0 and self.choice.random() < 0.25:
            return f"({self.vector(depth - 1)})[{self.one('3m', '5m')}:{self.one('17s', '29s', '53s')}]{self.shift()}"
        return self.one("requests_total", "level", "size_bucket") + self.stretch()

    def stretch(self) -> str:
        return f"{self.matchers()}[{self.one('45s', '2m', '5m')}]{self.shift()}"

    def over(self, depth: int) -> str:
        window = self.window(depth)
        function = f"{self.one(*OVER_TIME)}_over_time" if self.choice.random() < 0.6 else self.one(*OVER)
        # Nearer to zero than half a sample apart, 2.42 and 3 stretch an increase differently: large counters here.
        counter = self.one("requests_total", "size_bucket") + self.stretch()
        return self.one(
            *[f"{function}({window})"] * 6,
            *[f"{self.one('rate', 'increase')}({counter})"] * 3,
            f"quantile_over_time({self.one('0.3', '0.95', '2')}, {window})",
            f"absent_over_time({window})",
            f"predict_linear({window}, {self.one('60', '-30', '3600')})",
        )

    def grouping(self) -> str:
        return self.one("", " by (job)", " by (instance, job)", " without (instance)", " by (le)", " without (job, le)")

    def histogram(self) -> str:
        return f"sum by (le{self.one('', ', job')}) (rate(size_bucket[2m]))"

    def vector(self, depth: int) -> str:
        if depth <= 0:
            return self.selector()
        inner = self.vector(depth - 1)
        kind = self.choice.randrange(8)
        if kind <= 1:
            return self.over(depth)
        if kind == 2:
            if self.choice.random() < 0.2:
                # Go's integers wrap for huge values, and the C library's sine is its own for them.
                seconds = self.one(
                    "time()", "vector(time() * 86400)", "requests_total * 12345", "-requests_total * 999"
                )
                seconds = f"vector({seconds})" if seconds == "time()" else seconds
                small = f"{self.one(*SMALL)}(level{self.matchers()}{self.shift()})"
                return self.one(f"{self.one(*DATES)}({seconds})", f"{self.one(*DATES)}()", small)
            return f"{self.one(*MATHS)}({inner})"
        if kind == 3:
            # Of one infinite value 2.42 takes the deviation for 0, 3 for NaN: only finite ones here.
            finite = self.one("requests_total", "size_bucket") + self.matchers()
            operation = self.one("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar")
            return f"{operation}{self.grouping()} ({finite if operation.startswith('std') else inner})"
        if kind == 4:
            return self.one(
                # Which of two equal values stays depends on the order in the database: only different ones here.
                f"topk{self.grouping()} ({self.one('1', '2', '2.9', '0')}, requests_total{self.shift()})",
                f"bottomk (2, level{self.matchers()})",
                f"quantile{self.grouping()} (0.7, {inner})",
                f"clamp({inner}, {self.one('-10', '7', '-Inf')}, {self.one('100', '3', '+Inf')})",
                f"clamp_{self.one('min', 'max')}({inner}, {self.one('3', '-2.5')})",
                f"round({inner}, {self.one('0.5', '5', '-3')})",
                f'count_values{self.grouping()} ("value", round(info * 3 + sgn(level)))',
                f"histogram_quantile({self.one('0.9', '0.5', '1', '0', '-1')}, {self.histogram()})",
                f'label_replace({inner}, "new", "$1-x", "{self.one("job", "instance")}", "(.*)")',
                f'label_join({inner}, "new", "/", "job", "instance")',
                f"vector(scalar({inner}))",
            )
        other = self.vector(depth - 1)
        matching = self.one("", "", " on (job, instance)", " on (job)", " ignoring (le, zone)")
        if kind == 5:
            return f"({inner}) {self.one('and', 'or', 'unless')}{matching} ({other})"
        if kind == 6:
            operator = self.one("+", "-", "*", "/", "%", "^", ">", "< bool", "==", "!= bool", ">=")
            return f"({inner}) {operator} {self.one('2', '-0.5', 'time()', 'pi()', '1e3')}"
        operator = self.one("+", "-", "*", "/", ">", "<= bool", "!=")
        group = self.one("", " group_left", " group_left (zone)", " group_right ()") if "on" in matching else ""
        return f"({inner}) {operator}{matching}{group} ({other})"


class Prometheus:
    """A running server, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: http.client.HTTPConnection | None = None

    def write(self, data: Data) -> None:
        """Remote write, in order of time."""
        last = max(samples[-1][0] for samples in data.values())
        for begin in range(START * 1000, last + 1, 1_500_000):
            end = begin + 1_500_000
            parts = [(labels, [one for one in each if begin <= one[0] < end]) for labels, each in data.items()]
            push(self.url, [(labels, samples) for labels, samples in parts if samples])

    def ask(self, path: str, **parameters: object) -> Answer:
        """The answer as samples by labels and ms, or the kind of error."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=20)
        body = urllib.parse.urlencode({name: str(value) for name, value in parameters.items()})
        self._connection.request("POST", f"/api/v1/{path}", body, {"Content-Type": "application/x-www-form-urlencoded"})
        found = json.loads(self._connection.getresponse().read())
        if found["status"] == "error":
            return str(found["errorType"])
        result = found["data"]["result"]
        if found["data"]["resultType"] in ("scalar", "string"):
            at, value = result
            return {(): {round(at * 1000): float(value)}}
        return {
            tuple(sorted(one["metric"].items())): {
                round(at * 1000): float(value) for at, value in one.get("values") or [one["value"]]
            }
            for one in result
        }

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def ours(engine: Engine, query: str, start: float, end: float | None = None, step: float = 0) -> Answer:
    """The same from our engine."""
    try:
        if end is not None:
            found = engine.range(query, start, end, step)
            return {
                one.labels: dict(zip(one.timestamps.tolist(), one.values.tolist(), strict=True)) for one in found.series
            }
        value = engine.instant(query, start)
    except QueryError as error:
        return error.kind
    if hasattr(value, "samples"):
        return {one.labels: {round(one.time * 1000): one.value} for one in value.samples}
    if hasattr(value, "series"):
        return {
            one.labels: dict(zip(one.timestamps.tolist(), one.values.tolist(), strict=True)) for one in value.series
        }
    return {(): {round(value.time * 1000): float(value.value)}}


def differ(a: Answer, b: Answer) -> str:
    """What is different; values may differ by 1e-9 of their size, and by rounding about zero."""
    if isinstance(a, str) or isinstance(b, str):
        return "" if a == b else f"{a if isinstance(a, str) else 'data'} against {b if isinstance(b, str) else 'data'}"
    if set(a) != set(b):
        return f"series {sorted(set(a) ^ set(b))[:3]} on one side only"
    for labels, points in a.items():
        if set(points) != set(b[labels]):
            return f"{labels}: times {sorted(set(points) ^ set(b[labels]))[:5]} on one side only"
        for at, value in points.items():
            other = b[labels][at]
            if not (
                value == other
                or (value != value and other != other)
                or math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-9)
            ):
                return f"{labels} at {at}: {value!r} against {other!r}"
    return ""
