"""The tests of a service's own rules: it stops answering, it fails, a request hangs, its processes crash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from anvil_monitor.exporter import names
from anvil_monitor.targets import Configuration, Service

from . import templates
from .rulefile import Alerting
from .ruleparts import COSTLIEST, CRASHING, DOWN, ERRORS, STUCK, quoted
from .rules_service import CRASH_LEAST, CRASH_MINUTES, FAILED_LEAST, WINDOWS, shortest, stuck_age
from .ruletestparts import Condition, document, up
from .scenes import Runs, Series, counter, gauge

# Requests a scrape: enough by far for every rule.
TRAFFIC: Final = 64


class ServiceTests:
    """The tests of ``service``, scraped and evaluated every ``step`` seconds; ``rules`` are its own by name."""

    def __init__(
        self, configuration: Configuration, service: Service, step: float, rules: Mapping[str, Alerting]
    ) -> None:
        self._configuration, self._service, self._step, self._rules = configuration, service, step, rules
        self._short = shortest(configuration)

    def all(self) -> Iterator[dict[str, Any]]:
        yield from self.down()
        yield from self.errors()
        yield from self.little_traffic()
        yield from self.crashing()
        if STUCK in self._rules:
            yield from self.stuck()

    def down(self) -> Iterable[dict[str, Any]]:
        """The service stops answering, and answers again."""
        rule, step = self._rules[DOWN], self._step
        fires = 2 * step + up(rule.hold, step)
        back = fires + 2 * step
        ends = back + up(rule.keep, step)
        name = self._service.name
        first = f'up{{job="server",service={quoted(name)},instance="a"}}'
        if self._service.pushes:
            first = f'{names.PROBE_SUCCESS.name}{{service={quoted(name)},url="a"}}'
        runs = ((1, 2), (0, self._count(back) - 2), (1, self._count(ends - back) + 2))
        outage = Condition(rule, 0, 2 * step, back)
        yield self._test("fires when nothing is answered, and recovers", {first: gauge(runs)}, DOWN,
                         outage.edges(step), outage)  # fmt: skip
        end = ends + 2 * step
        hiccup = gauge(((1, 2), (0, max(1, self._count(up(rule.hold, step)) - 1)), (1, self._count(end))))
        yield self._test("a hiccup stays silent", {first: hiccup}, DOWN, (fires - step, fires, end))
        pair = {first: gauge(((0, self._count(end)),)), first.replace('"a"', '"b"'): gauge(((1, self._count(end)),))}
        yield self._test("stays silent while one of two instances answers", pair, DOWN, (end - step,))
        yield self._test("no data: stays silent when it was never scraped", {}, DOWN, (end,))

    def errors(self) -> Iterable[dict[str, Any]]:
        """All of much traffic fails, then none; a few of much; what is no failure of the server's."""
        rule, step = self._rules[ERRORS], self._step
        bad = self._count(up(rule.hold, step)) + 3
        failing = Condition(rule, 1, step, (bad + 1) * step)
        good = 3 + self._count(up(self._short + rule.keep, step))
        # So many good ones that what failed before is less than any share that counts.
        well = {self._answers(status="200"): counter(((0, bad), (1024 * TRAFFIC, good)))}
        for name, labels in (
            ("fires when the server answers 500, and recovers", {"status": "500", "error": "500"}),
            ("fires when nothing is answered at all, and recovers", {"error": "incomplete_response"}),
        ):
            series = {self._answers(**labels): counter(((TRAFFIC, bad), (0, good)))} | well
            yield self._test(name, series, ERRORS, failing.edges(step), failing)
        # As much goes well afterwards as failed before: it is over, though five minutes still hold much of it.
        series = {
            self._answers("500"): counter(((TRAFFIC, bad), (0, good))),
            self._answers("200"): counter(((0, bad), (TRAFFIC, good))),
        }
        over = bad * step + up(self._short + 2 * step + rule.keep, step)
        yield self._test("is over a minute after the last failure, not after five", series, ERRORS, (over,))
        end = up(2 * self._short + rule.hold, step)
        scrapes = self._count(end)
        for name, runs in (
            ("stays silent while one request in 25 fails", {("500", "500"): 4, ("200", ""): 96}),
            ("stays silent when clients leave, or ask for what is not there",
             {("200", "client_disconnected"): TRAFFIC, ("404", ""): TRAFFIC, ("422", "ValueError"): TRAFFIC}),
        ):  # fmt: skip
            series = {self._answers(status, error): counter(((n, scrapes),)) for (status, error), n in runs.items()}
            yield self._test(name, series, ERRORS, (end // 2 // step * step, end))
        yield self._test("no data: no failure is told of what was never measured", {}, ERRORS, (end,))
        yield self._routes(rule, failing.fired(step))

    def _routes(self, rule: Alerting, at: float) -> dict[str, Any]:
        """The message names the three routes that fail most, the worst first."""
        scrapes = self._count(at)
        failing = {"/a": 1, "/orders": 40, "/products/{id}": 20, "/b": 3}
        series: Series = {}
        for route, each in failing.items():
            series[self._answers("500", "500", route)] = counter(((each, scrapes + 2),))
        worst = sorted(failing.items(), key=lambda item: -item[1])[:3]
        found = [
            templates.Element({"http_request_method": "GET", "http_route": route}, float(each * scrapes))
            for route, each in worst
        ]
        condition = Condition(rule, 1, self._step, answers={f"topk({COSTLIEST}, ": found})
        return self._test("names the routes that fail most", series, ERRORS, (at,), condition)

    def little_traffic(self) -> Iterable[dict[str, Any]]:
        """One failing request now and then: an outage once there are enough of them; one alone is none."""
        rule, step = self._rules[ERRORS], self._step
        # Less often than a short window is long, so that only the long one sees enough of them.
        apart = self._count(up((WINDOWS[0][0] - 1) * self._short, step))
        fifth = FAILED_LEAST * apart * step
        runs: Runs = [(0, apart - 1), (1, 1)] * (FAILED_LEAST + 1)
        outage = Condition(rule, 1, fifth)
        fired = outage.fired(step)
        series = {self._answers("500"): counter(runs)}
        yield self._test("fires at night, when the few requests that come all fail", series, ERRORS,
                         (fifth - step, fired - step, fired), outage)  # fmt: skip
        few = counter([(0, 1), *[(1, 1), (0, 1)] * (FAILED_LEAST - 1), (0, 2 * apart)])
        times = tuple(n * step for n in range(2, 2 * FAILED_LEAST + 4, 2))
        yield self._test("stays silent when a few requests fail at night, all that there were",
                         {self._answers("500"): few}, ERRORS, times)  # fmt: skip

    def stuck(self) -> Iterable[dict[str, Any]]:
        """A request hangs until its worker is ended."""
        rule, step = self._rules[STUCK], self._step
        age = stuck_age(self._configuration, self._service)
        oldest = f"{names.HTTP_OLDEST.name}{{service={quoted(self._service.name)},instance="
        hangs = Condition(rule, 2 * age, 4 * step, 7 * step)
        runs = ((0, 2), (age, 2), (2 * age, 3), (0, self._count(up(rule.keep, step)) + 2))
        series = {oldest + '"a"}': gauge(runs), oldest + '"b"}': gauge(((0, sum(n for _, n in runs)),))}
        yield self._test("fires when a request has no answer, not at the limit itself, and recovers", series, STUCK,
                         (3 * step, *hangs.edges(step)), hangs)  # fmt: skip
        yield self._test("no data: knows of no request where none is measured", {}, STUCK, (7 * step,))

    def crashing(self) -> Iterable[dict[str, Any]]:
        """A process is replaced minute after minute; or all of them once, by a deploy."""
        rule, step, minute = self._rules[CRASHING], self._step, self._short
        restarts = f'{names.PROCESS_RESTARTS.name}{{service={quoted(self._service.name)},process_role="'
        # The last scrape of each minute, so that no two of them see the same restart.
        ends = [int(n * minute / step + 1e-9) for n in range(1, CRASH_LEAST + 1)]
        runs: list[tuple[float, int]] = []
        for before, last in zip([0, *ends], ends, strict=False):
            runs += [(0, last - before - 1), (1, 1)]
        told = up(CRASH_LEAST * minute, step)
        quiet = told + up(CRASH_MINUTES * minute + rule.keep, step)
        series = {
            restarts + 'worker"}': counter([*runs, (0, self._count(quiet - told) + 2)]),
            restarts + 'root"}': gauge(((0, self._count(quiet) + 3),)),
        }
        loop = Condition(rule, CRASH_LEAST, told, told + up((CRASH_MINUTES - CRASH_LEAST) * minute, step))
        yield self._test("fires when a worker crashes again and again, and recovers", series, CRASHING,
                         (told - step, told, quiet), loop)  # fmt: skip
        deploy = counter([(0, ends[0] - 1), (5, 1), (0, ends[1] - ends[0] - 1), (4, 1), (0, self._count(told))])
        times = (ends[0] * step, ends[1] * step, told)
        yield self._test("a deploy stays silent", {restarts + 'worker"}': deploy}, CRASHING, times)
        yield self._test("no data: knows of no crash where no process is seen", {}, CRASHING, (told,))

    def _answers(self, status: str = "", error: str = "", route: str = "") -> str:
        labels = {"service": self._service.name, "http_response_status_code": status, "error_type": error}
        labels |= {"http_request_method": "GET", "http_route": route} if route else {}
        text = ",".join(f"{name}={quoted(value)}" for name, value in labels.items() if value)
        return f"{names.HTTP_DURATION.count}{{{text}}}"

    def _count(self, seconds: float) -> int:
        return round(seconds / self._step)

    def _test(
        self, name: str, series: Series, alert: str, times: Iterable[float], *conditions: Condition
    ) -> dict[str, Any]:
        return document(self._service.name, name, self._step, series, {alert: (tuple(times), conditions)})
