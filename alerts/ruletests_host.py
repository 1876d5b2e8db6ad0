"""The tests of the rules of the machine, and of those by which the monitor watches itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from anvil_monitor.exporter import names

from .rulefile import Alerting
from .ruleparts import COLLECTOR, CPU, DISK, MEMORY, NOTIFICATIONS, WATCHDOG, quoted
from .rules_host import CPU_WAITS, DISK_KNOWN, MEMORY_STALLED, WINDOW
from .rules_self import COLLECTOR_LEAST
from .ruletestparts import Condition, document, up
from .scenes import Series, counter, gauge

HOST: Final = {"instance": "a"}
MOUNT: Final = HOST | {"system_filesystem_mountpoint": "/data"}
# Powers of two, so that every share of them is exact.
SIZE: Final = 2**30


class HostTests:
    """The tests, scraped and evaluated every ``step`` seconds. Of ``rules``, others than ours are passed over."""

    def __init__(self, step: float, rules: Sequence[Alerting]) -> None:
        self._step = step
        self._rules = {(rule.alert, rule.labels.get("of", "")): rule for rule in rules if "target" not in rule.labels}

    def all(self) -> Iterator[dict[str, Any]]:
        yield from self.cpu()
        yield from self.memory()
        yield from self.disk()
        if (NOTIFICATIONS, "") in self._rules:
            yield from self.notifications()
        yield from self.collector()
        yield self.watchdog()

    def cpu(self) -> Iterable[dict[str, Any]]:
        rule, step = self._rules[CPU, ""], self._step
        # A rate is of the whole window, also while less is known.
        waited = up(CPU_WAITS / 0.8 * WINDOW, step)
        bad = self._count(waited + up(rule.hold, step)) + 3
        after = self._count(up(rule.keep, step)) + 2
        end = (bad - 1) * step
        busy = Condition(rule, 1, waited, (bad + 1) * step, HOST)
        unknown = Condition(rule, 1, step, labels=HOST)

        def series(user: float, idle: float, waits: float | None) -> Series:
            # Afterwards idle for so long that what was before counts no more.
            found = {
                self._cpu("user"): counter(((user, bad), (0, after))),
                self._cpu("idle"): counter(((idle, bad), (1024 * 1024 * step, after))),
                self._cpu("iowait"): counter(((0, bad + after),)),
            }
            if waits is not None:
                pressure = f'{names.SYSTEM_PRESSURE.name}{{instance="a",resource="cpu",kind="some"}}'
                found[pressure] = counter(((waits * step, bad), (0, after)))
            return found

        yield self._test("fires when the CPU is busy and waited for, and recovers", series(2 * step, 0, 0.8), CPU,
                         busy.edges(step), busy)  # fmt: skip
        yield self._test("fires without the kernel's count of who waits", series(2 * step, 0, None), CPU,
                         unknown.edges(step), unknown)  # fmt: skip
        yield self._test("stays silent while nobody waits for the busy CPU", series(2 * step, 0, 0.125), CPU, (end,))
        yield self._test("stays silent while the CPU has time to spare", series(1.75 * step, 0.25 * step, 0.8), CPU,
                         (end,))  # fmt: skip
        yield self._test("no data: says nothing of a CPU that is not measured", {}, CPU, (end,))

    def memory(self) -> Iterable[dict[str, Any]]:
        rule, step = self._rules[MEMORY, ""], self._step
        bad = self._count(up(rule.hold, step)) + 3
        after = self._count(up(rule.keep, step)) + 2
        limit = {f'{names.SYSTEM_MEMORY_LIMIT.name}{{instance="a"}}': gauge(((SIZE, 3 * bad),))}
        available = f'{names.SYSTEM_MEMORY_AVAILABLE.name}{{instance="a"}}'
        half = {**limit, available: gauge(((SIZE // 2, 3 * bad),))}
        low = Condition(rule, 1 / 16, 0, bad * step, HOST)
        series = {**limit, available: gauge(((SIZE // 16, bad), (SIZE // 2, after)))}
        yield self._test("fires when little memory is available, and recovers", series, MEMORY, low.edges(step), low)
        stalled = f'{names.SYSTEM_PRESSURE.name}{{instance="a",resource="memory",kind="full"}}'
        waits = Condition(rule, 0.5, up(MEMORY_STALLED / 0.3 * WINDOW, step), labels=HOST)
        for name, share, conditions in (
            ("fires when everything waits for memory", 0.3, [waits]),
            ("stays silent while little waits for memory", 1 / 16, []),
        ):
            series = {**half, stalled: counter(((share * step, 3 * bad),))}
            yield self._test(name, series, MEMORY, waits.edges(step), *conditions)
        killed = Condition(rule, 0.5, 3 * step, labels=HOST)
        kills = counter(((0, 2), (1, 1), (0, bad)))
        yield self._test("fires when the kernel has killed a process for want of memory",
                         {**half, f'{names.SYSTEM_OOM_KILLS.name}{{instance="a"}}': kills}, MEMORY,
                         killed.edges(step), killed)  # fmt: skip
        yield self._test("no data: says nothing of memory that is not measured", {}, MEMORY, (bad * step,))

    def disk(self) -> Iterable[dict[str, Any]]:
        for of, metric in (("space", names.SYSTEM_FILESYSTEM), ("inodes", names.SYSTEM_INODES)):
            rule, step = self._rules[DISK, of], self._step
            bad = self._count(up(rule.hold, step)) + 3
            after = self._count(up(rule.keep, step)) + 2
            low = Condition(rule, 1 / 32, 0, bad * step, MOUNT)
            series = {
                self._disk(metric.name, "free"): gauge(((SIZE // 32, bad), (SIZE // 2, after))),
                self._disk(metric.name, "used"): gauge(((SIZE - SIZE // 32, bad), (SIZE // 2, after))),
            }
            yield self._test(f"fires when little {of} is left, and recovers", series, DISK, low.edges(step), low)
            yield self._test(f"no data: says nothing of {of} that is not measured", {}, DISK, (bad * step,))
            yield from self.filling(metric.name, rule)

    def filling(self, metric: str, rule: Alerting) -> Iterable[dict[str, Any]]:
        """Three tenths are free, and become less: so quickly that it will be full within a day, or in a week."""
        step, known = self._step, up(DISK_KNOWN, self._step)
        fires = known + up(rule.hold, step)
        scrapes = self._count(fires)
        of = rule.labels["of"]
        for name, days in (
            (f"fires when no {of} will be left within a day", 0.75),
            (f"stays silent while {of} for a week is left", 7),
        ):
            less = int(0.3 * SIZE / (days * 86400 / step))
            free, used = int(0.3 * SIZE), SIZE - int(0.3 * SIZE)
            series = {
                self._disk(metric, "free"): f"{free}-{less}x{scrapes}",
                self._disk(metric, "used"): f"{used}+{less}x{scrapes}",
            }
            full = Condition(rule, (free - less * scrapes) / SIZE, known, labels=MOUNT)
            yield self._test(name, series, DISK, (fires - step, fires), *([full] if days < 1 else []))

    def notifications(self) -> Iterable[dict[str, Any]]:
        rule, step = self._rules[NOTIFICATIONS, ""], self._step
        bad = self._count(up(rule.hold, step)) + 3
        failed, delivered, other = (
            f'{names.SENDS.name}{{channel="{channel}",outcome="{outcome}"}}'
            for channel, outcome in (("team", "failed"), ("team", "delivered"), ("mail", "delivered"))
        )
        dead = Condition(rule, 0, step, (bad + 1) * step, {"channel": "team"})
        series = {
            failed: counter(((1, bad), (0, 3))),
            delivered: counter(((0, bad), (1, 1), (0, 2))),
            other: counter(((1, bad + 3),)),
        }
        yield self._test("fires when nothing reaches a channel, and recovers with the first that does", series,
                         NOTIFICATIONS, dead.edges(step), dead)  # fmt: skip
        series = {failed: counter(((1, 1), (0, bad))), delivered: counter(((0, 1), (1, 1), (0, bad)))}
        yield self._test("stays silent when the next try arrives", series, NOTIFICATIONS, dead.edges(step))
        yield self._test("no data: says nothing of a channel that was not used", {}, NOTIFICATIONS, (bad * step,))

    def collector(self) -> Iterable[dict[str, Any]]:
        rule, step = self._rules[COLLECTOR, ""], self._step
        bad = self._count(up(rule.hold, step)) + 3
        after = self._count(up(rule.keep, step)) + 2
        up_ = 'up{job="exporter",instance="a"}'
        down = Condition(rule, 0, step, (bad + 1) * step, {"job": "exporter"})
        runs = ((1, 1), (0, bad), (1, after))
        yield self._test("fires when the exporter does not answer, and recovers", {up_: gauge(runs)}, COLLECTOR,
                         down.edges(step), down)  # fmt: skip
        yield self._test("stays silent while it answers", {up_: gauge(((1, bad),))}, COLLECTOR, down.edges(step)[:2])
        never = Condition(rule, 1, up(COLLECTOR_LEAST, step), labels={"job": "exporter"})
        yield self._test("no data: fires where it was never scraped", {}, COLLECTOR, never.edges(step), never)

    def watchdog(self) -> dict[str, Any]:
        """It fires from the first evaluation on, whatever there is; that is all."""
        always = Condition(self._rules[WATCHDOG, ""], 1, 0)
        return self._test("always fires", {}, WATCHDOG, (0, 2 * self._step), always)

    def _cpu(self, mode: str) -> str:
        return f'{names.SYSTEM_CPU.name}{{instance="a",cpu_mode="{mode}"}}'

    def _disk(self, metric: str, state: str) -> str:
        labels: Mapping[str, str] = MOUNT | {"system_device": "/dev/sda1", "system_filesystem_state": state}
        text = ",".join(f"{name}={quoted(value)}" for name, value in labels.items())
        return f"{metric}{{{text}}}"

    def _count(self, seconds: float) -> int:
        return round(seconds / self._step)

    def _test(
        self, name: str, series: Series, alert: str, times: Iterable[float], *conditions: Condition
    ) -> dict[str, Any]:
        return document(alert, name, self._step, series, {alert: (tuple(times), conditions)})
