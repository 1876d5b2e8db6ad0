"""Rules, alerts and scrape targets as Prometheus's HTTP API lists them, and what the API reads from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from anvil_monitor.alerts.rulefile import Alerting, Group, Rule
from anvil_monitor.targets import format_promql_duration

from .parameters import Parameters, invalid, rfc3339
from .promql import Engine, number_text
from .rulemanager import ActiveAlert, GroupState, RuleState, State
from .scrape import Scraper
from .store import Store


@dataclass(frozen=True, slots=True)
class Sources:
    """What the API reads."""

    store: Store
    engine: Engine
    groups: Sequence[tuple[Group, GroupState]]
    scrapers: Sequence[Scraper]
    clock: Callable[[], float]
    executor: Executor
    rule_file: str = "rules.yml"


def rules(sources: Sources, parameters: Parameters) -> Any:
    wanted = parameters.text("type")
    if wanted not in ("", "alert", "record"):
        raise invalid("type", f'not supported value "{wanted}"')
    names, groups = parameters.texts("rule_name[]"), parameters.texts("rule_group[]")
    found = []
    for group, state in sources.groups:
        if groups and group.name not in groups:
            continue
        members = [
            _rule(rule, memory)
            for rule, memory in zip(group.rules, state.rules, strict=True)
            if wanted in ("", "alert" if isinstance(rule, Alerting) else "record")
        ]
        members = [each for each in members if not names or each["name"] in names]
        if not members and (wanted or names):
            continue
        found.append(
            {
                "name": group.name,
                "file": sources.rule_file,
                "rules": members,
                "interval": group.interval,
                "limit": 0,
                "evaluationTime": state.duration,
                "lastEvaluation": rfc3339(state.evaluated_at),
            }
        )
    return {"groups": found}


def _rule(rule: Rule, memory: RuleState) -> dict[str, Any]:
    common = {
        "query": rule.expr,
        "labels": dict(rule.labels),
        "health": memory.health,
        **({"lastError": memory.error} if memory.error else {}),
        "evaluationTime": memory.duration,
        "lastEvaluation": rfc3339(memory.evaluated_at),
    }
    if not isinstance(rule, Alerting):
        return {"name": rule.record, **common, "type": "recording"}
    return {
        "state": memory.state,
        "name": rule.alert,
        "duration": rule.hold,
        "keepFiringFor": rule.keep,
        "annotations": dict(rule.annotations),
        "alerts": _alerts(memory),
        **common,
        "type": "alerting",
    }


def alerts(sources: Sources, parameters: Parameters) -> Any:
    found = [alert for _, state in sources.groups for memory in state.rules for alert in _alerts(memory)]
    return {"alerts": found}


def _alerts(memory: RuleState) -> list[dict[str, Any]]:
    return [_alert(alert) for alert in list(memory.alerts.values()) if alert.state is not State.INACTIVE]


def _alert(alert: ActiveAlert) -> dict[str, Any]:
    keep = {"keepFiringSince": rfc3339(alert.keep_since)} if alert.keep_since is not None else {}
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "state": alert.state.value,
        "activeAt": rfc3339(alert.active_at),
        **keep,
        "value": exponent_text(alert.value),
    }


def exponent_text(value: float) -> str:
    """A number as Prometheus writes an alert's value: always with an exponent, ``1e+00``."""
    if not math.isfinite(value):
        return number_text(value)
    mantissa, _, power = f"{value:.16e}".partition("e")
    for digits in range(17):  # the shortest text that reads back as the same number
        text = f"{value:.{digits}e}"
        if float(text) == value:
            mantissa, _, power = text.partition("e")
            break
    return f"{mantissa}e{power}"


def targets(sources: Sources, parameters: Parameters) -> Any:
    return {"activeTargets": [_target(scraper) for scraper in sources.scrapers], "droppedTargets": []}


def _target(scraper: Scraper) -> dict[str, Any]:
    endpoint, health = scraper.endpoint, scraper.health
    state: Mapping[bool | None, str] = {None: "unknown", True: "up", False: "down"}
    return {
        "discoveredLabels": {"__address__": endpoint.labels["instance"], "job": endpoint.labels["job"]},
        "labels": dict(endpoint.labels),
        "scrapePool": endpoint.labels["job"],
        "scrapeUrl": endpoint.url,
        "globalUrl": endpoint.url,
        "lastError": health.error,
        "lastScrape": rfc3339(health.at),
        "lastScrapeDuration": health.duration,
        "health": state[health.up],
        "scrapeInterval": format_promql_duration(scraper.interval),
        "scrapeTimeout": format_promql_duration(scraper.timeout),
    }
