"""Rules, alerts and scrape targets as Prometheus's HTTP API lists them, and what the API reads from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from anvil_monitor.alerts.rulefile import Alerting, Group, Rule
from anvil_monitor.targets import Configuration, format_promql_duration

from .parameters import INTEGER, Parameters, invalid, rfc3339
from .promql import Engine, number_text
from .rulemanager import ActiveAlert, GroupState, RuleState, State
from .samples import matches
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
    started: float = 0.0
    configuration: Configuration | None = None
    query_timeout: float = 120.0


def rules(sources: Sources, parameters: Parameters) -> Any:
    wanted = parameters.text("type").lower()
    if wanted not in ("", "alert", "record"):
        raise invalid("type", f'not supported value "{parameters.text("type")}"')
    without_alerts = parameters.truth("exclude_alerts")
    most, token = _page(parameters)
    names, groups = set(parameters.texts("rule_name[]")), set(parameters.texts("rule_group[]"))
    files, matchers = set(parameters.texts("file[]")), parameters.matchers()

    def fits(rule: Rule) -> bool:
        alerting = isinstance(rule, Alerting)
        if wanted not in ("", "alert" if alerting else "record") or (names and name_of(rule) not in names):
            return False
        own = tuple(rule.labels.items())
        return not matchers or any(matches(own, each) for each in matchers)

    found: list[dict[str, Any]] = []
    begun = not token
    for group, state in sources.groups:
        if (groups and group.name not in groups) or (files and group.file not in files):
            continue
        if not begun:
            begun = _token(group) == token
            if not begun:
                continue
        members = [
            _rule(rule, memory, without_alerts)
            for rule, memory in zip(group.rules, state.rules, strict=True)
            if fits(rule)
        ]
        if not members and (wanted or names or matchers):
            continue
        if len(found) == most:
            return {"groups": found, "groupNextToken": _token(group)}
        found.append(
            {
                "name": group.name,
                "file": group.file,
                "rules": members,
                "interval": int(group.interval) if group.interval.is_integer() else group.interval,
                "limit": group.limit,
                "evaluationTime": state.duration,
                "lastEvaluation": rfc3339(state.evaluated_at),
            }
        )
    if not begun:
        raise invalid("group_next_token", f"invalid group_next_token '{token}'. were rule groups changed?")
    return {"groups": found}


def _page(parameters: Parameters) -> tuple[int, str]:
    """How many groups at most (-1: all), and the token of the first."""
    text, token = parameters.text("group_limit"), parameters.text("group_next_token")
    if not text:
        if token:
            words = "group_limit needs to be present in order to paginate over the groups"
            raise invalid("group_next_token", words)
        return -1, ""
    if not INTEGER.fullmatch(text):
        words = f'group_limit needs to be a valid number: strconv.ParseInt: parsing "{text}": invalid syntax'
        raise invalid("group_limit", words)
    if int(text) <= 0:
        raise invalid("group_limit", "group_limit needs to be greater than 0")
    return int(text), token


def _token(group: Group) -> str:
    return hashlib.sha1(f"{group.file};{group.name}".encode(), usedforsecurity=False).hexdigest()


def name_of(rule: Rule) -> str:
    return rule.alert if isinstance(rule, Alerting) else rule.record


def _rule(rule: Rule, memory: RuleState, without_alerts: bool) -> dict[str, Any]:
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
        # Until its first evaluation nothing of it can be active.
        "state": "inactive" if memory.state == "unknown" else memory.state,
        "name": rule.alert,
        "duration": rule.hold,
        "keepFiringFor": rule.keep,
        "annotations": dict(rule.annotations),
        **({} if without_alerts else {"alerts": _alerts(memory)}),
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
    state, pool = parameters.text("state").lower(), parameters.text("scrapePool")
    shown = [_target(each) for each in sources.scrapers if not pool or pool == each.endpoint.labels["job"]]
    return {"activeTargets": shown if state in ("", "any", "active") else [], "droppedTargets": []}


HEALTH: Final[Mapping[bool | None, str]] = {None: "unknown", True: "up", False: "down"}


def _target(scraper: Scraper) -> dict[str, Any]:
    endpoint, health = scraper.endpoint, scraper.health
    url = urlsplit(endpoint.url)
    interval, timeout = format_promql_duration(scraper.interval), format_promql_duration(scraper.timeout)
    return {
        "discoveredLabels": {
            "__address__": endpoint.labels["instance"],
            "__metrics_path__": url.path,
            "__scheme__": url.scheme,
            "__scrape_interval__": interval,
            "__scrape_timeout__": timeout,
            "job": endpoint.labels["job"],
        },
        "labels": dict(endpoint.labels),
        "scrapePool": endpoint.labels["job"],
        "scrapeUrl": endpoint.url,
        "globalUrl": endpoint.url,
        "lastError": health.error,
        "lastScrape": rfc3339(health.at),
        "lastScrapeDuration": health.duration,
        "health": HEALTH[health.up],
        "scrapeInterval": interval,
        "scrapeTimeout": timeout,
    }
