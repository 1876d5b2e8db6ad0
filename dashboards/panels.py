"""The one place for style: how a value, its limit and what is firing look on every board.

The panels are generic. They show the recorded family ``target:*`` (see ``alerts/rules.py``) of one target of the
service chosen in the variable ``service``, so limits come from the rules as data and no number stands in a panel:
a board stays right for every service and through every change of a limit.
"""

from __future__ import annotations

from typing import Any, Final

from grafanalib import core  # type: ignore[import-untyped]

from anvil_monitor.targets import Target, Unit

KEPT: Final = "green"
MISSED: Final = "red"
MEASURED: Final = "blue"
TOLD: Final = "orange"
USUAL: Final = "text"

# Grafana's grid is 24 columns wide; a row is 30 pixels high.
COLUMNS: Final = 24
STAT: Final = (4, 4)
SERIES: Final = (12, 8)
PAGE: Final = (24, 26)

# Ids of Grafana's unit registry (packages/grafana-data/src/valueFormats/categories.ts): "s" shows 0.2 as 200 ms,
# "decbytes" counts in powers of ten, as the limits do (500 MB = 500,000,000 bytes).
UNITS: Final = {
    Unit.SECONDS: "s",
    Unit.BYTES: "decbytes",
    Unit.USERS: "none",
    Unit.PERCENT: "percentunit",
    Unit.NUMBER: "short",
}

# A rate over an idle minute is 0/0: not an error, and not a missing instrument either.
NO_TRAFFIC: Final = {
    "type": "special",
    "options": {"match": "nan", "result": {"text": "no traffic", "color": MEASURED, "index": 0}},
}


def selector(target: str) -> str:
    """The label matchers that pick target ``target`` of the service chosen on the board."""
    return f'{{service="$service",target="{target}"}}'


def query(expr: str, legend: str, ref: str, *, instant: bool = False, table: bool = False) -> Any:
    """One PromQL query of a panel; ``instant`` asks for the newest value only."""
    form = core.TABLE_TARGET_FORMAT if table else core.TIME_SERIES_TARGET_FORMAT
    return core.Target(expr=expr, legendFormat=legend, refId=ref, instant=instant, format=form)


def value_stat(target: Target, description: str, x: int, y: int) -> Any:
    """The newest value of ``target``: green while the promise is kept, red while it is missed.

    Colour comes from ``target:ratio`` (over 1 = missed), which is right whichever way a target points and whatever the
    limit of the chosen service is; a fixed threshold would be neither. Exactly one of the two queries has an answer.
    """
    pick = selector(target.name)
    missed = f"target:ratio{pick} > 1"
    return core.Stat(
        title=target.title,
        description=description,
        gridPos=_place(STAT, x, y),
        targets=[
            query(f"target:value{pick} unless ({missed})", "kept", "A", instant=True),
            query(f"target:value{pick} and ({missed})", "missed", "B", instant=True),
        ],
        format=UNITS[target.unit],
        decimals=0 if target.unit.is_count else None,
        noValue="no data",
        mappings=[NO_TRAFFIC],
        overrides=[_fixed("kept", KEPT), _fixed("missed", MISSED)],
        colorMode="background",
        graphMode="none",
        textMode="value",
        reduceCalc="last",
        thresholds=plain_thresholds(),
    )


def firing_stat(x: int, y: int) -> Any:
    """How many alerts of the service fire now."""
    return core.Stat(
        title="Alerts firing",
        description="Alerts of this service that fire now.",
        gridPos=_place(STAT, x, y),
        targets=[query('count(ALERTS{alertstate="firing",service="$service"}) or vector(0)', "firing", "A",
                       instant=True)],
        format="none",
        decimals=0,
        colorMode="background",
        graphMode="none",
        textMode="value",
        reduceCalc="last",
        thresholds=[{"color": KEPT, "value": None}, {"color": MISSED, "value": 1}],
    )  # fmt: skip


def value_series(target: Target, description: str, x: int, y: int) -> Any:
    """``target`` over time, with its limit, as it was at each time, as a dashed line.

    Quieter, once there is a past to learn from: what is usual at this hour, and where drift is told.
    """
    pick = selector(target.name)
    limit_style: list[dict[str, Any]] = [
        {"id": "color", "value": {"mode": "fixed", "fixedColor": MISSED}},
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "custom.lineWidth", "value": 2},
    ]
    return core.TimeSeries(
        title=f"{target.title} ({target.measure})",
        description=description,
        gridPos=_place(SERIES, x, y),
        targets=[
            query(f"target:value{pick}", "measured", "A"),
            query(f"target:limit{pick}", "limit", "B"),
            query(f"target:baseline{pick}", "usual", "C"),
            query(f"target:upper{pick}", "drift is told above", "D"),
            query(f"target:lower{pick}", "drift is told below", "E"),
        ],
        unit=UNITS[target.unit],
        axisSoftMin=0,
        fillOpacity=10,
        lineWidth=2,
        showPoints="never",
        tooltipMode="multi",
        legendDisplayMode="list",
        legendPlacement="bottom",
        colorMode="fixed",
        overrides=[
            _fixed("measured", MEASURED),
            _override("limit", limit_style),
            _override("usual", _quiet(USUAL, [1, 6])),
            _override("drift is told above", _quiet(TOLD, [4, 6])),
            _override("drift is told below", _quiet(TOLD, [4, 6])),
        ],
        thresholds=plain_thresholds(),
    )


def _quiet(color: str, dash: list[int]) -> list[dict[str, Any]]:
    """A thin line behind the measured one."""
    return [
        {"id": "color", "value": {"mode": "fixed", "fixedColor": color}},
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": dash}},
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "custom.lineWidth", "value": 1},
    ]


def firing_table(x: int, y: int) -> Any:
    """What fires now and since when (``ALERTS_FOR_STATE`` carries the second at which an alert became active)."""
    hidden = ("Time", "__name__", "service", "unit", "instance", "job")
    order = ("Value", "alertname", "severity", "target")
    return core.Table(
        title="Firing alerts",
        description="Alerts of this service that fire now, and when the condition of each began.",
        gridPos=_place(SERIES, x, y),
        targets=[
            query('(ALERTS_FOR_STATE{service="$service"} * 1000) and ignoring(alertstate) '
                  'ALERTS{alertstate="firing",service="$service"}', "", "A", instant=True, table=True)
        ],
        transformations=[
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": {name: index for index, name in enumerate(order)},
                    "renameByName": {"Value": "since", "alertname": "alert"},
                },
            }
        ],
        showHeader=True,
        overrides=[_override("since", [{"id": "unit", "value": "dateTimeAsLocal"}])],
        thresholds=plain_thresholds(),
    )  # fmt: skip


def page(markdown: str) -> Any:
    """A text over the whole board."""
    return core.Text(title="", content=markdown, mode=core.TEXT_MODE_MARKDOWN, gridPos=_place(PAGE, 0, 0))


def plain_thresholds() -> list[dict[str, Any]]:
    """No threshold: the base step that Grafana wants in every panel."""
    return [{"color": KEPT, "value": None}]


def _place(size: tuple[int, int], x: int, y: int) -> Any:
    return core.GridPos(w=size[0], h=size[1], x=x, y=y)


def _override(name: str, properties: list[dict[str, Any]]) -> dict[str, Any]:
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


def _fixed(name: str, color: str) -> dict[str, Any]:
    return _override(name, [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}])
