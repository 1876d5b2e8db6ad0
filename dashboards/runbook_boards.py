"""The runbooks as boards of one text: where the messages of the bundle lead, which has Grafana and no page of ours."""

from __future__ import annotations

from typing import Any, Final

from grafanalib import core  # type: ignore[import-untyped]

from anvil_monitor.alerts import runbooks
from anvil_monitor.targets import Configuration

from . import panels, schema

# Links in messages point at it: never change it. Grafana takes 40 characters.
UID: Final = "anvil-runbook-"
FOLDER: Final = "runbooks"
# Where the bundle answers PromQL, as a person on its machine reaches it.
PROMETHEUS: Final = "http://127.0.0.1:9090"


def boards(configuration: Configuration) -> dict[str, dict[str, Any]]:
    """A board for each alert, by its file."""
    return {f"{FOLDER}/{alert}.json": _board(alert, configuration) for alert in runbooks.names()}


def _board(alert: str, configuration: Configuration) -> dict[str, Any]:
    only = configuration.services[0].name if len(configuration.services) == 1 else ""
    text = runbooks.text(alert, lambda other: f"/d/{UID}{other}", PROMETHEUS, only) or ""
    dashboard = core.Dashboard(
        title=f"Runbook: {alert}",
        description="What the alert means and what to do first. Made by anvil-monitor generate.",
        uid=f"{UID}{alert}",
        tags=["anvil-monitor", "runbook"],
        timezone="browser",
        editable=False,
        refresh="",
        panels=[panels.page(text)],
    )
    return schema.complete(dashboard, interval="")
