"""What a value is read from where there are several sources, or not the one that was hoped for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from anvil_monitor.alerts.rulefile import Alerting
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring.promql import Engine, Vector
from anvil_monitor.monitoring.rulemanager import GroupState, evaluate
from anvil_monitor.monitoring.samples import Labels, labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.targets.load import parse

HTTP = "http_server_request_duration_seconds"


def recorded(series: Sequence[tuple[Labels, float, float]], name: str, target: str, toml: str = "") -> list[float]:
    """The recorded series after 90 s of ``series``: (labels, value at 0, growth a second)."""
    configuration = parse(toml)
    store = Store()
    group = next(each for each in rule_groups(configuration) if each.name == "targets of app")
    state, engine = GroupState.of(group), Engine(store)
    for at in range(0, 95, 5):
        store.append(at * 1000, [(labels, start + growth * at) for labels, start, growth in series])
        evaluate(group, state, float(at), engine.instant, store.append, lambda text, labels, value, query: "")
    found = engine.instant(f'{name}{{target="{target}"}}', 90.0)
    assert isinstance(found, Vector)
    return [sample.value for sample in found.samples]


def of(name: str, **labels: str) -> Labels:
    return labels_of(__name__=name, service="app", **labels)


def test_memory_told_by_server_and_exporter_is_not_added_up() -> None:
    """The server's own workers and the exporter's process tree are two views of one memory: the greater counts."""
    name = "process_memory_usage_bytes"
    workers = [(of(name, job="server", instance=each), 2e8, 0.0) for each in ("a", "b")]
    tree = [(of(name, job="exporter", instance="c"), 4.5e8, 0.0)]
    assert recorded([*workers, *tree], "target:value", "memory") == [4.5e8]
    assert recorded(workers, "target:value", "memory") == [4e8]


def test_users_of_a_server_that_counts_none_are_estimated() -> None:
    """Little's law: 200 requests a second of 0.15 s each are 30 at once, marked as an estimate."""
    little = [(of(f"{HTTP}_sum"), 0.0, 30.0), (of(f"{HTTP}_count"), 0.0, 200.0)]
    assert recorded(little, "target:value", "concurrent_users") == pytest.approx([30.0])
    assert recorded(little, "target:estimate", "concurrent_users") == [1.0]
    counted = [*little, (of("http_server_active_users"), 42.0, 0.0)]
    assert recorded(counted, "target:value", "concurrent_users") == [42.0]
    assert recorded(counted, "target:estimate", "concurrent_users") == []


@pytest.mark.parametrize("edge", ["0.2", "0.20"])
def test_a_histogram_without_an_edge_at_the_limit_is_an_estimate(edge: str) -> None:
    """Node's stock edges have none at 200 ms."""
    stock = [(of(f"{HTTP}_bucket", le=le), 0.0, 100.0) for le in ("0.1", "0.25", "+Inf")]
    assert recorded(stock, "target:estimate", "api_response_time") == [1.0]
    exact = [*stock, (of(f"{HTTP}_bucket", le=edge), 0.0, 100.0)]
    assert recorded(exact, "target:estimate", "api_response_time") == ([] if edge == "0.2" else [1.0])


@pytest.mark.parametrize("edge", ["2", "2.0"])
def test_an_edge_is_known_however_it_is_written(edge: str) -> None:
    """``le="2"`` and ``le="2.0"`` are one limit (Prometheus 3 and OpenMetrics write the latter)."""
    buckets = [(of("browser_page_load_duration_seconds_bucket", le=le), 0.0, 10.0) for le in (edge, "+Inf")]
    assert recorded(buckets, "target:estimate", "frontend_load_time") == []


def test_no_metrics_at_all_is_no_estimate() -> None:
    """What is not there is no data, not an estimate."""
    assert recorded([], "target:estimate", "api_response_time") == []
    assert recorded([], "target:value", "concurrent_users") == []


def test_a_pushed_service_is_down_when_its_probes_fail() -> None:
    """``metrics = "otlp"``: no scrape, so the rule reads the probes; no age of what has not ended, so no rule."""
    groups = rule_groups(parse('[service]\nmetrics = "otlp"\n'))
    alerts = {rule.alert: rule for group in groups for rule in group.rules if isinstance(rule, Alerting)}
    down = alerts["ServiceDown"]
    assert down.expr == 'max by (service) (probe_success{service="app"}) == 0'
    assert "RequestsStuck" not in alerts
