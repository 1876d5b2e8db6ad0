"""The board of the targets: on top each value, green or red; below it each value against its limit over time."""

from __future__ import annotations

from typing import Any, Final

from grafanalib import core  # type: ignore[import-untyped]

from anvil_monitor.alerts.driftkinds import kind
from anvil_monitor.alerts.learning import needed
from anvil_monitor.targets import Configuration, Target, format_duration, format_promql_duration

from . import panels, schema

# Links in messages and bookmarks point at it: never change it.
UID: Final = "anvil-monitor-targets"
TITLE: Final = "Performance targets"
FILE: Final = "targets.json"


def board(configuration: Configuration) -> dict[str, Any]:
    """The board of every target that ``configuration`` names, complete for Grafana's current schema.

    One panel pair a target *name*: the variable ``service`` chooses whose numbers are shown.
    """
    by_name: dict[str, list[Target]] = {}
    for target in configuration.targets:
        by_name.setdefault(target.name, []).append(target)
    shown = [(targets[0], describe(targets)) for targets in by_name.values()]

    width, height = panels.STAT
    per_row = panels.COLUMNS // width
    pieces: list[Any] = []
    for index, (target, text) in enumerate(shown):
        pieces.append(panels.value_stat(target, text, x=index % per_row * width, y=index // per_row * height))
    pieces.append(panels.firing_stat(x=len(shown) % per_row * width, y=len(shown) // per_row * height))

    top = (len(shown) // per_row + 1) * height
    width, height = panels.SERIES
    for index, (target, text) in enumerate(shown):
        words = f"{text}\n\n{learns(target)}"
        pieces.append(panels.value_series(target, words, x=index % 2 * width, y=top + index // 2 * height))
    pieces.append(panels.firing_table(x=len(shown) % 2 * width, y=top + len(shown) // 2 * height))

    first = configuration.services[0].name
    dashboard = core.Dashboard(
        title=TITLE,
        description="Each performance target of a service against its limit. Made by anvil-monitor generate.",
        uid=UID,
        tags=["anvil-monitor"],
        timezone="browser",
        time=core.Time("now-1h", "now"),
        refresh="10s",
        editable=False,
        templating=core.Templating(
            [
                core.Template(name="datasource", label="Data source", type="datasource", query="prometheus"),
                core.Template(name="service", label="Service", query="label_values(target:limit, service)",
                              default=first, refresh=core.REFRESH_ON_TIME_RANGE_CHANGE),
            ]
        ),
        panels=pieces,
    )  # fmt: skip
    interval = format_promql_duration(configuration.monitor.evaluation_interval)
    return schema.complete(dashboard, interval=interval)


def learns(target: Target) -> str:
    """What it means that there are no quiet lines."""
    need = format_duration(needed(kind(target)))
    return f"Quiet lines: what is usual, and where drift is told. None: still learning, which takes {need} of history."


def describe(targets: list[Target]) -> str:
    """What is promised and how it is read; by service where the services differ."""
    texts = {target.service: f"Promise: {target.promise}, read as {target.measure}." for target in targets}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "\n\n".join(f"{service}: {text}" for service, text in texts.items())
