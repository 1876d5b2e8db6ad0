"""What is asked: eight queries as dashboards make them, and eight of the rules that this project generates itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from anvil_monitor.alerts.rulefile import Recording
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.targets import Configuration, load
from bench.engine.data import HTTP, SERVICE

QUANTILE: Final = "p95 by route"
RATE: Final = "rate, summed by route"
RANGES: Final = {
    RATE: f"sum by (http_route) (rate({HTTP}_count[5m]))",
    QUANTILE: f"histogram_quantile(0.95, sum by (le, http_route) (rate({HTTP}_bucket[5m])))",
    "share of errors": f'sum by (service) (rate({HTTP}_count{{http_response_status_code=~"5.."}}[5m]))'
                       f" / sum by (service) (rate({HTTP}_count[5m]))",
    "mean of memory": "sum by (service) (avg_over_time(process_memory_usage_bytes[5m]))",
    "five slowest routes": f"topk(5, sum by (http_route) (rate({HTTP}_sum[5m]))"
                           f" / sum by (http_route) (rate({HTTP}_count[5m])))",
    "peak rate, a subquery": f"max_over_time(sum by (http_route) (rate({HTTP}_count[1m]))[30m:1m])",
    "requests an hour": f"sum by (http_route, http_response_status_code) (increase({HTTP}_count[1h]))",
    "p90 of open requests": "quantile_over_time(0.9, http_server_active_requests[10m])",
}  # fmt: skip
# Recorded name or alert, and target, of the rules that are asked.
RULES: Final = (
    ("target:value", "api_response_time"), ("target:samples", "api_response_time"),
    ("target:estimate", "api_response_time"), ("target:value", "db_query_time"), ("target:value", "memory"),
    ("target:value", "concurrent_users"), ("TargetMissed", "api_response_time"), ("ServiceDown", ""),
)  # fmt: skip


def configuration() -> Configuration:
    """The shipped targets, for the service of the data."""
    shipped = load(None, {})
    services = tuple(replace(service, name=SERVICE) for service in shipped.services)
    return replace(shipped, services=services, targets=tuple(replace(one, service=SERVICE) for one in shipped.targets))


def instants() -> dict[str, str]:
    """By what they are called in the tables. ``SystemExit`` where the generated rules lack one."""
    found = {}
    for group in rule_groups(configuration()):
        for rule in group.rules:
            name = rule.record if isinstance(rule, Recording) else rule.alert
            found.setdefault((name, rule.labels.get("target", "")), rule.expr)
    lacking = [f"{name} {target}".strip() for name, target in RULES if (name, target) not in found]
    if lacking:
        raise SystemExit(f"bench: the generated rules have no {', '.join(lacking)}: see bench/engine/queries.py")
    return {f"{name} {target}".strip(): found[name, target] for name, target in RULES}
