"""The generated boards against Grafana's own types (npm `@grafana/schema`), panel by panel."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from anvil_monitor.dashboards import generated
from anvil_monitor.targets import load

# Keys of the Prometheus plugin's annotation query, which the types (made for Grafana's own annotations) leave out.
PLUGIN_KEYS = {"expr", "step", "tagKeys", "textFormat", "titleFormat", "useValueForTime"}


def _helper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grafana_schema", Path(__file__).with_name("grafana_schema.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = _helper().schemas()
    return made


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(generated(load(None, {}))["targets.json"])
    return document


def errors(schemas: dict[str, dict[str, Any]], name: str, document: Any) -> list[str]:
    found = jsonschema.Draft7Validator(schemas[name]).iter_errors(document)
    return [f"{name} at {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in found]


def problems(schemas: dict[str, dict[str, Any]], board: dict[str, Any]) -> list[str]:
    """Everything that Grafana's types say against ``board``."""
    annotations = [
        {key: value for key, value in entry.items() if key not in PLUGIN_KEYS} for entry in board["annotations"]["list"]
    ]
    found = errors(schemas, "dashboard", {**board, "panels": [], "annotations": {"list": annotations}})
    for panel in board["panels"]:
        found += errors(schemas, "panel", panel)
        found += errors(schemas, f"{panel['type']}.options", panel["options"])
        if f"{panel['type']}.custom" in schemas:
            found += errors(schemas, f"{panel['type']}.custom", panel["fieldConfig"]["defaults"].get("custom", {}))
    return found


@pytest.mark.needs("npm")
@pytest.mark.parametrize("name", sorted(generated(load(None, {}))))
def test_a_board_is_what_grafanas_own_types_ask_for(schemas: dict[str, dict[str, Any]], name: str) -> None:
    """Board, panels, options and field settings have no unknown key, wrong type or wrong word for Grafana 13."""
    assert problems(schemas, json.loads(generated(load(None, {}))[name])) == []


@pytest.mark.needs("npm")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("fieldConfg",), {}),
        (("fieldConfig", "defaults", "thresholds", "mode"), "abs"),
        (("options", "colorMode"), "loud"),
        (("options", "reduceOptions", "calcs"), "last"),
        (("targets",), {}),
    ],
)
def test_the_types_would_notice_a_mistake(
    schemas: dict[str, dict[str, Any]], board: dict[str, Any], path: tuple[str, ...], value: Any
) -> None:
    """A misspelt key, a wrong word and a wrong type in a panel are each noticed: the check above can fail."""
    broken = json.loads(json.dumps(board))
    place = broken["panels"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert problems(schemas, broken)
