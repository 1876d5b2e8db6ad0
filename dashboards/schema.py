"""grafanalib's output completed to the dashboard schema that Grafana has today (42), in one place.

grafanalib 0.7.1 writes schema version 12 with the keys of Grafana 5: string data sources, `rows`, `span`, targets
without an editor mode, options that panels have gained since left out. Grafana would migrate such a board through 30
steps at every load, and its own types refuse it. What comes out of :func:`complete` needs no migration, and a test
holds it against Grafana's own types (`@grafana/schema`).
"""

from __future__ import annotations

import json
from typing import Any, Final

from grafanalib._gen import DashboardEncoder  # type: ignore[import-untyped]

VERSION: Final = 42
# The variable, not a fixed data source: the same board works in any Grafana.
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

BOARD: Final = ("description", "editable", "refresh", "tags", "time", "timezone", "title", "uid")
PANEL: Final = ("description", "fieldConfig", "gridPos", "options", "targets", "title", "transformations",
                "transparent", "type")  # fmt: skip

# What each panel's options have gained since grafanalib was written, with the value that Grafana itself fills in.
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {"percentChangeColorMode": "standard", "showPercentChange": False, "wideLayout": True},
    "timeseries": {"legend": {"showLegend": True}, "tooltip": {"hideZeros": False}},
    "text": {"code": {"language": "plaintext", "showLineNumbers": False, "showMiniMap": False}},
    "table": {"cellHeight": "sm", "frameIndex": 0, "showHeader": True},
}


def complete(dashboard: Any, *, interval: str) -> dict[str, Any]:
    """The JSON model of grafanalib's ``dashboard`` in schema 42.

    ``interval`` (a duration as in ``5s``) is the least distance of two points: the recorded series have no more.
    Raises ``ValueError`` for a panel type that is not completed here.
    """
    old = json.loads(json.dumps(dashboard, cls=DashboardEncoder))
    variables = [_variable(variable) for variable in old["templating"]["list"]]
    about_a_service = any(variable["name"] == "service" for variable in variables)
    return {
        **{key: old[key] for key in BOARD if old.get(key) is not None},
        "annotations": {
            "list": [
                _grafana_annotations(),
                *([_firing_annotations(), _deploy_annotations()] if about_a_service else []),
            ]
        },
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": [_panel(panel, number, interval) for number, panel in enumerate(old["panels"], 1)],
        "preload": False,
        "schemaVersion": VERSION,
        "templating": {"list": variables},
        "timepicker": {},
        "version": 1,
        "weekStart": "",
    }


def _panel(old: dict[str, Any], number: int, interval: str) -> dict[str, Any]:
    kind = old["type"]
    if kind not in OPTIONS:  # Angular panels (graph, singlestat, …) are gone since Grafana 12
        raise ValueError(f"panel {old['title']!r}: type {kind!r} is not completed here; known: {', '.join(OPTIONS)}")
    new = {key: old[key] for key in PANEL if old.get(key) is not None}
    new["id"] = number
    if kind == "text":  # asks nothing
        new.pop("targets", None)
        return {
            **new,
            "fieldConfig": {"defaults": {}, "overrides": []},
            "options": _merged(OPTIONS[kind], old["options"]),
        }
    new["interval"] = interval
    new["datasource"] = DATASOURCE
    new["targets"] = [_target(target) for target in old["targets"]]
    # grafanalib's table options are those of Grafana 8; the ones below are complete
    new["options"] = _merged(OPTIONS[kind], {} if kind == "table" else old["options"])
    new["fieldConfig"] = _field_config(kind, old["fieldConfig"])
    return new


def _field_config(kind: str, old: dict[str, Any]) -> dict[str, Any]:
    defaults = {key: value for key, value in old["defaults"].items() if value is not None}
    custom = {key: value for key, value in defaults.pop("custom", {}).items() if value is not None}
    defaults.setdefault("color", {"mode": "thresholds"})
    if kind == "timeseries":
        custom["stacking"] = custom.get("stacking") or {"mode": "none", "group": "A"}
        custom["scaleDistribution"] = {"type": custom["scaleDistribution"]["type"]}
        custom |= {"axisBorderShow": False, "axisCenteredZero": False, "axisColorMode": "text", "insertNulls": False}
        defaults["color"] = {"mode": defaults["color"]["mode"], "fixedColor": "text"}
    if kind == "table":
        custom = {"align": "auto", "inspect": False, "cellOptions": {"type": "auto"}}
    if custom:
        defaults["custom"] = custom
    return {"defaults": defaults, "overrides": old.get("overrides", [])}


def _target(old: dict[str, Any]) -> dict[str, Any]:
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": old["expr"],
        "format": old["format"],
        "instant": old["instant"],
        "legendFormat": old["legendFormat"],
        "range": not old["instant"],
        "refId": old["refId"],
    }


def _variable(old: dict[str, Any]) -> dict[str, Any]:
    new = {key: old[key] for key in ("hide", "includeAll", "label", "multi", "name", "refresh", "type")}
    new |= {"allowCustomValue": False, "options": [], "regex": old["regex"] or "", "skipUrlSync": False}
    if old["current"]["text"]:
        new["current"] = {"text": old["current"]["text"], "value": old["current"]["value"]}
    if old["type"] == "query":
        new["datasource"] = DATASOURCE
        new["sort"] = old["sort"]
        new["query"] = {"query": old["query"], "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    else:
        new["query"] = old["query"]
    return new


def _grafana_annotations() -> dict[str, Any]:
    """The annotations that people write by hand; every board has them."""
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _firing_annotations() -> dict[str, Any]:
    """A mark on every graph where an alert of the service fired. ``expr`` & co. are the Prometheus plugin's own."""
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": 'ALERTS{alertstate="firing",service="$service"}',
        "iconColor": "red",
        "name": "Firing",
        "step": "10s",
        "tagKeys": "severity",
        "textFormat": "{{target}}",
        "titleFormat": "{{alertname}}",
    }


def _deploy_annotations() -> dict[str, Any]:
    """A mark where another version of the server was first seen: the value of the series is that time, in seconds."""
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": 'service:version_since{service="$service"} * 1000',
        "iconColor": "blue",
        "name": "Deploys",
        "step": "60s",
        "tagKeys": "service_version",
        "textFormat": "{{service_version}}",
        "titleFormat": "version first seen",
        "useValueForTime": True,
    }


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict):
            both[key] = _merged(base[key], over[key])
    return both
