"""``anvil-monitor explain``: why an alert fires or does not, who was told and who was not, from a monitor that runs."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from anvil_monitor.alerts import learning, routing
from anvil_monitor.alerts import matchers as matching
from anvil_monitor.alerts.driftalerts import DRIFTING, TRENDING
from anvil_monitor.alerts.inhibition import explained
from anvil_monitor.alerts.matchers import Matcher, MatcherError
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.rulefile import Recording
from anvil_monitor.alerts.versions import since_deploy
from anvil_monitor.targets import Channel, Configuration, format_duration

from .asking import Command, Load, add_remote, connect, printable, series_text, wrong
from .explain import Part, explain
from .promql import QueryError
from .promql.parse import parse
from .promql.text import quoted
from .remote import Remote, RemoteError
from .samples import Labels

EXAMPLES: Final = """\
  anvil-monitor explain TargetMissed service=shop target=api_response_time
  anvil-monitor explain ServiceDown
  anvil-monitor explain HighErrorRate --url http://127.0.0.1:9090
exit status: 0 explained, 1 nobody answers, 2 there is no such alert"""
# Rules, and alerts of one rule, that are taken apart; of more, only how they stand.
SHOWN: Final = 3
LEDGER: Final = "200"
LOOKED_BACK: Final = "1d"


def add(command: Command, config: Any, load: Load) -> None:
    """Add the command. ``load`` gives the configuration that the options name."""
    sub = command(
        "explain", lambda options: _explain(options, load), "say why an alert fires or does not, with values", EXAMPLES
    )
    sub.add_argument("alert", metavar="ALERT", help="its name")
    sub.add_argument("labels", nargs="*", metavar="LABEL=VALUE", help="which one, where there are several")
    config(sub)
    sub.add_argument("--json", action="store_true", help="the same for programs")
    add_remote(sub)


@dataclass(frozen=True, slots=True)
class Account:
    """One alert, or a rule that has none: how it stands, why, and who was told of it."""

    name: str
    state: str
    sentences: tuple[str, ...]
    condition: Part | None = None
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Monitor:
    """What a monitor says of its rules and of who was told; a Prometheus knows only the former."""

    remote: Remote
    now: float
    state: Mapping[str, Any] = field(default_factory=dict)
    ledger: Sequence[Mapping[str, Any]] = ()
    firing: Sequence[Alert] = ()
    recorded: Sequence[Recording] = ()
    configuration: Configuration | None = None

    def ask(self, expr: str) -> list[tuple[Labels, float]]:
        data = self.remote.data("query", query=expr, time=f"{self.now:.3f}")
        if data["resultType"] == "scalar":
            return [((), float(data["result"][1]))]
        return [(tuple(sorted(one["metric"].items())), float(one["value"][1])) for one in data["result"]]


def _explain(options: argparse.Namespace, load: Load) -> int:
    try:
        chosen = [matching.parse(word) for word in options.labels]
    except MatcherError as error:
        raise wrong(str(error), "as in service=shop") from None
    try:
        with connect(options, load) as remote:
            groups = remote.data("rules")["groups"]
            rules = list(_chosen(groups, options.alert, chosen))
            own = load(options) if not options.url else None
            accounts = account_of(rules, chosen, _monitor(remote, groups, own))
    except RemoteError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2 if error.wrong else 1
    if options.json:
        print(json.dumps([asdict(each) for each in accounts], ensure_ascii=False))
    else:
        print("\n\n".join("\n".join(printable(line) for line in lines(each)) for each in accounts))
    return 0


def _chosen(groups: Any, name: str, chosen: Sequence[Matcher]) -> Iterator[dict[str, Any]]:
    rules = [rule for group in groups for rule in group["rules"] if rule["type"] == "alerting"]
    named = [rule for rule in rules if rule["name"].lower() == name.lower()]
    if not named:
        names = sorted({rule["name"] for rule in rules})
        near = difflib.get_close_matches(name, names, 3, 0.5)
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        raise wrong(f"there is no alert {name!r}", f"{guess}there are: {', '.join(names) or 'none'}")
    fitting = [rule for rule in named if _fits(rule, chosen)]
    if not fitting:
        said = ", ".join(series_text(rule["labels"]) for rule in named[:10])
        raise wrong(f"no {named[0]['name']} has {' '.join(map(str, chosen))}", f"there are: {said}")
    yield from fitting


def _fits(rule: Mapping[str, Any], chosen: Sequence[Matcher]) -> bool:
    """A label that the rule does not set may be that of an element."""
    own = [matcher for matcher in chosen if matcher.name in rule["labels"] and "{{" not in rule["labels"][matcher.name]]
    return matching.match(own, rule["labels"])


def _monitor(remote: Remote, groups: Any, configuration: Configuration | None) -> Monitor:
    now = round(time.time(), 3)
    alerts = [each for group in groups for rule in group["rules"] for each in rule.get("alerts", ())]
    firing = [
        Alert(each["labels"], each["annotations"], _seconds(each["activeAt"]))
        for each in alerts
        if each["state"] == "firing"
    ]
    recorded = [
        Recording(rule["name"], rule["query"], rule["labels"])
        for group in groups
        for rule in group["rules"]
        if rule["type"] == "recording"
    ]
    try:
        state = remote.data("targets-state")
        ledger = remote.data("notifications", limit=LEDGER)["notifications"]
    except RemoteError:  # a Prometheus: its Alertmanager knows
        return Monitor(remote, now, firing=firing, recorded=recorded, configuration=configuration)
    return Monitor(remote, now, state, ledger, firing, recorded, configuration)


def account_of(rules: Sequence[Mapping[str, Any]], chosen: Sequence[Matcher], monitor: Monitor) -> list[Account]:
    """Each alert of the rules that bears the chosen labels, or the rule where it has none; what is active first."""
    found: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]] = []
    for rule in rules:
        alerts = [each for each in rule.get("alerts", ()) if matching.match(chosen, each["labels"])]
        found += [(rule, alert) for alert in alerts] or [(rule, None)]
    rank = {"firing": 0, "pending": 1}
    found.sort(key=lambda each: rank.get(each[1]["state"], 2) if each[1] else 2)
    return [_account(rule, alert, chosen, monitor, apart=number < SHOWN) for number, (rule, alert) in enumerate(found)]


def _account(
    rule: Mapping[str, Any],
    alert: Mapping[str, Any] | None,
    chosen: Sequence[Matcher],
    monitor: Monitor,
    *,
    apart: bool,
) -> Account:
    labels = dict((alert or rule)["labels"])
    labels.pop("alertname", None)
    name = series_text({"__name__": rule["name"], **labels})
    state = alert["state"] if alert else "inactive" if rule["health"] == "ok" else rule["health"]
    condition = None
    if apart:
        wanted = {key: value for key, value in labels.items() if alert and key not in rule["labels"]}
        wanted |= {each.name: each.value for each in chosen if each.operator == "=" and each.name not in rule["labels"]}
        try:
            condition = explain(parse(rule["query"]), monitor.ask, wanted, monitor.recorded)
        except (QueryError, RemoteError) as error:
            rule = {**rule, "lastError": rule.get("lastError") or str(error)}
    stands = [*_stands(rule, alert, monitor.now), *_newest(alert)]
    if apart and alert is None:
        stands += [*_last(rule, chosen, monitor), *_learning(rule, monitor)]
    told = tuple(_told(alert, monitor)) if alert and state == "firing" and monitor.state else ()
    return Account(name, state, tuple(stands), condition, told)


def _stands(rule: Mapping[str, Any], alert: Mapping[str, Any] | None, now: float) -> Iterator[str]:
    """How it stands, in sentences."""
    if rule.get("lastError"):
        yield f"its expression cannot be evaluated: {rule['lastError']}"
    hold, keep = rule["duration"], rule.get("keepFiringFor", 0)
    if alert is None:
        if rule["health"] == "unknown":
            yield "it was not evaluated yet"
        elif not rule.get("lastError"):
            waits = f"; once it does, it has to for {format_duration(hold)}" if hold else ""
            yield f"it does not fire: its condition does not hold{waits}"
        return
    since = _seconds(alert["activeAt"])
    if alert["state"] == "pending":
        left = max(0.0, since + hold - now)
        yield (
            f"it is pending: its condition holds since {_clock(since)}. It fires at {_clock(since + hold)}, in "
            f"{format_duration(round(left))}, if that goes on (for {format_duration(hold)})"
        )
        return
    waited = f" (its condition since {_clock(since)})" if hold else ""
    yield f"it fires since {_clock(since + hold)}, for {format_duration(round(max(0, now - since - hold)))}{waited}"
    if kept := alert.get("keepFiringSince"):
        begin = _seconds(kept)
        yield (
            f"its condition does not hold any more since {_clock(begin)}: it is kept firing until "
            f"{_clock(begin + keep)} (keep_firing_for {format_duration(keep)})"
        )


def _last(rule: Mapping[str, Any], chosen: Sequence[Matcher], monitor: Monitor) -> Iterator[str]:
    """When an alert that does not fire last did so, as the history of ALERTS has it."""
    wanted = {"alertname": rule["name"], "alertstate": "firing"}
    wanted |= {key: value for key, value in rule["labels"].items() if "{{" not in value}
    wanted |= {each.name: each.value for each in chosen if each.operator == "="}
    matchers = ",".join(f"{key}={quoted(value)}" for key, value in wanted.items())
    with contextlib.suppress(RemoteError):
        query = f"ALERTS{{{matchers}}}[{LOOKED_BACK}]"
        found = monitor.remote.data("query", query=query, time=f"{monitor.now:.3f}")["result"]
        last = max((float(one["values"][-1][0]) for one in found), default=None)
        yield f"it has not fired in the last {LOOKED_BACK}" if last is None else f"it last fired at {_clock(last)}"


def _newest(alert: Mapping[str, Any] | None) -> Iterator[str]:
    """Since which deploy, where a version is known."""
    if alert is not None:
        known = Alert(alert["labels"], alert["annotations"], _seconds(alert["activeAt"]))
        if deployed := since_deploy(known, _clock):
            yield f"the newest version is {deployed}"


def _learning(rule: Mapping[str, Any], monitor: Monitor) -> Iterator[str]:
    """Of a warning of drift: whether there is enough of a past for it to speak."""
    service, target = (rule["labels"].get(name, "") for name in ("service", "target"))
    if rule["name"] not in (DRIFTING, TRENDING) or not target:
        return
    chosen = f"{{service={quoted(service)},target={quoted(target)}}}"
    with contextlib.suppress(RemoteError):
        if not monitor.ask(" or ".join(f"{name}{chosen}" for name in learning.BOUNDS)):
            found = monitor.ask(learning.began(service, target))
            kind = dict(found[0][0]).get("class", "") if found else ""
            yield learning.said(kind, found[0][1] if found else None, monitor.now, _clock)


def _told(alert: Mapping[str, Any], monitor: Monitor) -> Iterator[str]:
    """What holds the alert back, and what became of the messages about its service since it began."""
    labels, since = alert["labels"], _seconds(alert["activeAt"])
    ours = Alert(labels, alert["annotations"], since)
    for one in monitor.state.get("silences", ()):
        held = matching.match([matching.parse(text) for text in one["matchers"]], labels)
        if held and one["starts"] <= monitor.now:
            yield f"held back by silence {one['id']} of {one['author']} until {_clock(one['ends'])}: {one['reason']}"
    for one in monitor.state.get("maintenance", ()):
        services, targets = one["services"], one["targets"]
        if (not services or ours.service in services) and (not targets or labels.get("target") in targets):
            yield f"held back by the maintenance {one['name']} until {_clock(one['ends'])}"
    for greater in monitor.firing:
        if explained([greater])(ours):
            yield f"held back while {greater.name} fires, which explains it"
    for one in monitor.state.get("alerts", ()):
        if one["fingerprint"] == ours.fingerprint and (ack := one.get("acknowledged")):
            said = f"{ack['author']} looks after it since {_clock(ack['at'])}: {ack['reason']}"
            yield f"{said}. It is neither repeated nor escalated until it ends"
    decided = [one for one in monitor.state.get("decisions", ()) if one["service"] == ours.service]
    newest: dict[str, Mapping[str, Any]] = {}
    for entry in monitor.ledger:  # the newest first
        if entry["service"] == ours.service and entry["created"] >= since:
            newest.setdefault(entry["channel"], entry)
    for channel, entry in sorted(newest.items()):
        yield f"{channel}: {_became(entry)} ({entry['cause']}: {entry['title']})"
    channels = monitor.configuration.channels if monitor.configuration else ()
    told = {channel.name for channel in routing.around(channels, ours, routing.failing(monitor.firing))}
    for one in channels:
        if one.name not in told:
            yield f"{one.name} takes no {_not_for(one, ours)}"
        elif one.name not in newest:
            why = next((d["reason"] for d in decided if d["channel"] in ("", one.name) and not d["tell"]), "")
            yield f"{one.name}: no message about {ours.service or 'it'} since it began{why and f' ({why})'}"


def _not_for(channel: Channel, alert: Alert) -> str:
    """What keeps ``alert`` from ``channel``."""
    target = alert.labels.get("target", "")
    if alert.severity not in channel.severities:
        return f"alerts of severity {alert.severity}"
    if channel.services and alert.service not in channel.services:
        return f"alerts of the service {alert.service or '(none)'}"
    if channel.targets and target not in channel.targets:
        return f"alerts of the target {target or '(none)'}"
    for name, values in channel.labels:
        if (given := alert.labels.get(name, "")) not in values:
            return f"alerts with {name}={quoted(given)}"
    return "news that nothing reaches it: the others are told"


def _became(entry: Mapping[str, Any]) -> str:
    if entry["state"] == "sent":
        return f"told at {_clock(entry['finished'])}"
    failed = f": {entry['reason']}" if entry["reason"] else ""
    if entry["state"] == "queued":
        return f"waits since {_clock(entry['created'])}, {entry['attempts']} attempts{failed}"
    return f"not delivered, given up{failed}"


def lines(account: Account) -> list[str]:
    """What a person reads."""
    found = [account.name, *(f"  {sentence}" for sentence in account.sentences)]
    if account.condition is not None:
        found += ["", *_tree(account.condition, 1)]
    if account.told:
        found += ["", *(f"  {each}" for each in account.told)]
    return found


def _tree(part: Part, depth: int) -> list[str]:
    mark = "yes" if part.holds else "no "
    said = "  ".join(
        filter(None, (f"{'  ' * depth}{mark}  {part.said}", part.values, f"({part.note})" * bool(part.note)))
    )
    return [said, *(line for each in part.parts for line in _tree(each, depth + 1))]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _clock(at: float) -> str:
    local, today = datetime.fromtimestamp(at).astimezone(), datetime.now().astimezone()
    return local.strftime("%H:%M:%S" if local.date() == today.date() else "%Y-%m-%d %H:%M:%S")
