"""``anvil-monitor up`` and a Prometheus with the same rules, side by side over the same server for some minutes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from anvil_monitor.alerts import rulefile
from anvil_monitor.alerts.rules import rule_groups
from bench.engine import queries, scraped, server
from bench.engine.data import INTERVAL, SERVICE
from bench.machine import command, cpu_seconds, free_port

MONITOR = """[service]
name = "{service}"
url = "http://{address}"

[monitor]
otlp = "off"
data = "{folder}"
"""


@dataclass
class Lived:
    """``rss``: bytes of all its processes, at every look. ``cpu``: share of a core, likewise. ``series``: scraped."""

    name: str
    pid: int
    rss: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    spent: float = 0.0
    seconds: float = 0.0
    series: int = 0

    @property
    def share(self) -> float:
        """Percent of a core."""
        return 100 * self.spent / self.seconds

    def look(self) -> tuple[float, int]:
        cpu, rss = 0.0, 0
        root = psutil.Process(self.pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                rss += process.memory_info().rss
                cpu += cpu_seconds(process.pid)
            except (psutil.Error, OSError):
                continue  # it has just ended
        return cpu, rss


def measure(
    series: int, seconds: float, folder: Path, pins: tuple[list[str], list[str]], progress: Callable[..., None]
) -> tuple[Lived, Lived]:
    """Ours and theirs over ``seconds``, the start left out."""
    folder.mkdir()
    with ExitStack() as stack:
        progress("up: starting")
        address = scraped.exporter(stack, series, folder, pins[1])
        rules = folder / "rules.yml"
        rules.write_text(rulefile.dump(rule_groups(queries.configuration())), encoding="utf-8")
        config = scraped.scrape_config(address, f"{INTERVAL}s", f"rule_files: ['{rules}']\n")
        theirs = stack.enter_context(server.prometheus(folder / "prometheus", pins[0], config))
        ours = stack.enter_context(_up(address, folder, pins[0]))
        both = Lived("anvil-monitor up", ours.pid), Lived("Prometheus", theirs.pid)
        _until_scraped(ours, theirs)
        begin = last = time.monotonic()
        spent = [one.look()[0] for one in both]
        while last - begin < seconds:
            progress("up beside Prometheus", round(last - begin), round(seconds))
            time.sleep(min(INTERVAL, seconds))
            now = time.monotonic()
            for number, one in enumerate(both):
                cpu, rss = one.look()
                one.rss.append(rss)
                one.cpu.append(100 * (cpu - spent[number]) / (now - last))
                one.spent += cpu - spent[number]
                one.seconds = now - begin
                spent[number] = cpu
            last = now
        for one, asked in zip(both, (ours, theirs), strict=True):
            one.series = round(asked.value(f'scrape_samples_scraped{{service="{SERVICE}",job="server"}}'))
    return both


def _up(address: str, folder: Path, pin: list[str]) -> AbstractContextManager[server.Server]:
    config, port = folder / "monitor.toml", free_port()
    config.write_text(MONITOR.format(service=SERVICE, address=address, folder=folder / "state"), encoding="utf-8")
    os.environ.pop("ANVIL_MONITOR_CONFIG", None)
    line = command("anvil_monitor.monitoring.cli", "up", "--config", str(config), "--listen", f"127.0.0.1:{port}")
    return server.started("anvil-monitor up", [*pin, *line], port, "/api/v1/status/buildinfo", folder / "up.log")


def _until_scraped(*servers: server.Server, patience: float = 60) -> None:
    """A few scrapes and evaluations: what is done once is not what it costs to go on."""
    deadline = time.monotonic() + patience
    for one in servers:
        while one.value(f'count_over_time(up{{service="{SERVICE}",job="server"}}[1h])') < 3:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: {one.name} does not scrape")
            time.sleep(0.5)
