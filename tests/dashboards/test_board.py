"""The board of the targets: complete for schema 42, byte-stable, and every query in it is PromQL."""

from __future__ import annotations

import json
from typing import Any

import promql_parser
import pytest

from anvil_monitor.dashboards import UID, generated, schema
from anvil_monitor.dashboards.targets_board import board
from anvil_monitor.targets import Configuration, load
from anvil_monitor.targets.load import parse

TWO_SERVICES = """
[[service]]
name = "shop"
url = "http://127.0.0.1:8000"
[[service]]
name = "blog"
url = "http://127.0.0.1:8001"
[targets.db_query_time]
services = ["shop"]
"""
# Of Grafana 5 to 8; Grafana's migrations remove or rewrite each of them.
LEGACY = {"rows", "sharedCrosshair", "hideControls", "style", "__inputs", "span", "minSpan", "height", "error",
          "intervalFactor", "step", "metric", "target", "useTags", "tagsQuery", "tagValuesQuery", "auto", "auto_min",
          "auto_count", "columns", "fontSize"}  # fmt: skip


@pytest.fixture(scope="module")
def configuration() -> Configuration:
    return load(None, {})


@pytest.fixture(scope="module")
def made(configuration: Configuration) -> dict[str, Any]:
    return board(configuration)


def queries(made: dict[str, Any]) -> list[str]:
    """Every PromQL text on the board, with its variables filled in."""
    texts = [target["expr"] for panel in made["panels"] for target in panel["targets"]]
    texts += [entry["expr"] for entry in made["annotations"]["list"] if "expr" in entry]
    return [text.replace("$service", "app") for text in texts]


def walk(node: Any, path: str = "") -> list[tuple[str, str, Any]]:
    """Every (path, key, value) of a JSON document."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found: list[tuple[str, str, Any]] = []
    for key, value in pairs:
        found.append((path, str(key), value))
        found += walk(value, f"{path}.{key}")
    return found


def test_every_query_is_promql(made: dict[str, Any]) -> None:
    """Each query of each panel and annotation parses with its variables filled in."""
    texts = queries(made)
    assert len(texts) > 20
    for text in texts:
        promql_parser.parse(text)


def test_each_target_has_a_value_and_a_series_with_its_limit(
    made: dict[str, Any], configuration: Configuration
) -> None:
    """All five targets have a stat and a time series, and the limit in it is the recorded one."""
    names = {target.name for target in configuration.targets}
    assert len(names) == 5
    for name in names:
        kinds = {}
        for panel in made["panels"]:
            texts = [target["expr"] for target in panel["targets"] if f'target="{name}"' in target["expr"]]
            if texts:
                kinds[panel["type"]] = texts
        assert set(kinds) == {"stat", "timeseries"}
        assert any(text.startswith("target:limit{") for text in kinds["timeseries"])
        assert all('service="$service"' in text for texts in kinds.values() for text in texts)


def test_no_key_of_an_older_schema_is_left(made: dict[str, Any]) -> None:
    """The board is schema 42 and none of grafanalib's old keys survived in board, panels, queries or variables."""
    assert made["schemaVersion"] == schema.VERSION == 42
    panels = [{**panel, "transformations": []} for panel in made["panels"]]  # those name columns, e.g. "target"
    places = walk({**made, "panels": panels, "annotations": {}})
    left = [f"{path}.{key}" for path, key, _ in places if key in LEGACY]
    assert left == []


def test_nothing_is_null_but_what_may_be(made: dict[str, Any]) -> None:
    """Only the board's id and a first threshold are null: the types allow null nowhere else."""
    assert {key for _, key, value in walk(made) if value is None} == {"id", "value"}
    for panel in made["panels"]:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert [step["value"] is None for step in steps] == [True] + [False] * (len(steps) - 1)


def test_panels_fill_the_grid_without_overlap(made: dict[str, Any]) -> None:
    """Each panel has its own id and its own cells of the 24-column grid."""
    cells: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        own = {(x, y) for x in range(place["x"], place["x"] + place["w"])
               for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    assert len(cells) == 24 * (1 + max(y for _, y in cells)), "the grid has a hole"


def test_every_query_and_panel_uses_the_chosen_data_source(made: dict[str, Any]) -> None:
    """No data source is fixed: the variable chooses it, so the board works in any Grafana."""
    sources = [value for _, key, value in walk(made) if key == "datasource"]
    assert all(isinstance(source, dict) for source in sources)
    assert {source["uid"] for source in sources} == {"${datasource}", "-- Grafana --"}
    assert [variable["name"] for variable in made["templating"]["list"]] == ["datasource", "service"]
    for panel in made["panels"]:
        ids = [target["refId"] for target in panel["targets"]]
        assert len(set(ids)) == len(ids) > 0


def test_overrides_name_a_series_that_the_panel_has(made: dict[str, Any]) -> None:
    """A style override by name matches a legend (or a renamed column) of its own panel, else it would do nothing."""
    for panel in made["panels"]:
        names = {target["legendFormat"] for target in panel["targets"]}
        for step in panel["transformations"]:
            names |= set(step["options"]["renameByName"].values())
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in names


def test_the_uid_is_stable_and_the_text_is_sorted(configuration: Configuration) -> None:
    """The uid that links point at never changes, and the same configuration gives the same sorted bytes."""
    assert UID == "anvil-monitor-targets"
    text = generated(configuration)["targets.json"]
    assert text == generated(load(None, {}))["targets.json"]
    document = json.loads(text)
    assert document["uid"] == UID
    assert text == json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_services_share_one_panel_pair_a_target() -> None:
    """Two services give no more panels than one: the variable chooses, and the description says who has the target."""
    made = board(parse(TWO_SERVICES, None, {}))
    assert len(made["panels"]) == 12
    assert made["templating"]["list"][1]["current"]["value"] in {"shop", "blog"}


def test_a_limit_that_differs_by_service_is_told_by_service() -> None:
    """Where services promise different things, the description lists each."""
    from dataclasses import replace

    from anvil_monitor.dashboards.targets_board import describe

    first = load(None, {}).targets[0]
    text = describe([first, replace(first, service="slow", limit=0.4)])
    assert text == (
        "app: Promise: < 200 ms, read as p95 over 1 min.\n\nslow: Promise: < 400 ms, read as p95 over 1 min."
    )


def test_an_unknown_panel_type_is_refused() -> None:
    """A panel type that nobody completed is an error that names the panel, not a board that Grafana shows broken."""
    from grafanalib import core

    dashboard = core.Dashboard(title="x", panels=[core.Graph(title="old one", dataSource="p", targets=[])])
    with pytest.raises(ValueError, match=r"panel 'old one': type 'graph' is not completed here"):
        schema.complete(dashboard, interval="5s")
