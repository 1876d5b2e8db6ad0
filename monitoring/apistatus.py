"""What a Prometheus tells of itself: build, configuration, flags, store, targets' metadata. And so do we, of us."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata as packages
from itertools import chain
from pathlib import Path
from platform import python_version
from typing import Any, Final

from anvil_monitor.targets import format_promql_duration

from .apistate import Sources
from .parameters import ApiError, Parameters, invalid, rfc3339
from .promql import QueryError
from .promql.nodes import Selector
from .promql.parse import parse
from .samples import Matcher, matches

# What Grafana is told: it decides by this number which PromQL it may send.
PROMETHEUS_VERSION: Final = "2.42.0"
TOP: Final = 10
HEAD: Final = 2 * 3_600_000  # ms
COMMENT: Final = re.compile(r"#[ \t]+(HELP|TYPE|UNIT)[ \t]+([a-zA-Z_:][a-zA-Z0-9_:]*)(?:[ \t]+(.*))?")
HELP_ESCAPE: Final = re.compile(r'\\([n\\"])')
NO_TIMES: Final = (2**63 - 1, -(2**63))  # of an empty store, as Prometheus says them


def buildinfo(sources: Sources, parameters: Parameters) -> Any:
    return {
        "version": PROMETHEUS_VERSION,
        "revision": f"anvil-monitor {packages.version('anvil-monitor')}",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }


def config(sources: Sources, parameters: Parameters) -> Any:
    """The scrape configuration in Prometheus's words. Tokens stay out."""
    lines = []
    if sources.configuration is not None:
        monitor = sources.configuration.monitor
        times = {name: format_promql_duration(getattr(monitor, name))
                 for name in ("scrape_interval", "scrape_timeout", "evaluation_interval")}  # fmt: skip
        lines = ["global:", *(f"  {name}: {text}" for name, text in times.items())]
    files = dict.fromkeys(group.file for group, _ in sources.groups)
    if files:
        lines += ["rule_files:", *(f"- {file}" for file in files)]
    if sources.scrapers:
        lines.append("scrape_configs:")
    for scraper in sources.scrapers:
        labels = scraper.endpoint.labels
        lines += [f"- job_name: {labels['job']}", "  static_configs:", f"  - targets: [{labels['instance']!r}]"]
    return {"yaml": "\n".join(lines) + "\n" if lines else ""}


def flags(sources: Sources, parameters: Parameters) -> Any:
    """Those flags of Prometheus that mean something here."""
    return {
        "config.file": str(sources.configuration.path or "") if sources.configuration is not None else "",
        "query.lookback-delta": "5m",
        "query.timeout": format_promql_duration(sources.query_timeout),
        "storage.tsdb.retention.time": _retention(sources),
        "web.enable-remote-write-receiver": "true",
    }


def _retention(sources: Sources) -> str:
    return format_promql_duration(sources.configuration.monitor.retention) if sources.configuration is not None else ""


def runtimeinfo(sources: Sources, parameters: Parameters) -> Any:
    begun = rfc3339(sources.started)
    return {
        "startTime": begun,
        "CWD": str(Path.cwd()),
        "reloadConfigSuccess": True,
        "lastConfigTime": begun,
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": 1,
        "GOGC": "",
        "GODEBUG": f"Python {python_version()}",
        "storageRetention": _retention(sources),
    }


def tsdb(sources: Sources, parameters: Parameters) -> Any:
    """How many series there are, and of what: of the last hours, what Prometheus calls the head."""
    limit = parameters.count("limit")
    if parameters.text("limit") and limit < 1:
        raise ApiError("bad_data", "limit must be a positive number")
    store = sources.store
    now = round(sources.clock() * 1000)
    found = store.select((), now - HEAD, now + HEAD)
    by_name: Counter[str] = Counter()
    by_pair: Counter[str] = Counter()
    values: dict[str, set[str]] = {}
    for name, value in chain.from_iterable(labels for panel in found for labels in panel.labels):
        by_pair[f"{name}={value}"] += 1
        values.setdefault(name, set()).add(value)
        if name == "__name__":
            by_name[value] += 1
    first = min((int(each.times[0]) for each in found), default=NO_TIMES[0])
    last = max((int(each.times[-1]) for each in found), default=NO_TIMES[1])

    def top(counted: Mapping[str, int]) -> list[dict[str, Any]]:
        ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
        return [{"name": name, "value": count} for name, count in ordered[: limit if limit > 0 else TOP]]

    return {
        "headStats": {
            "numSeries": store.series_count,
            "numLabelPairs": len(by_pair),
            "chunkCount": store.series_count,
            "minTime": first,
            "maxTime": last,
        },
        "seriesCountByMetricName": top(by_name),
        "labelValueCountByLabelName": top({name: len(each) for name, each in values.items()}),
        "memoryInBytesByLabelName": top(
            {name: sum(len(value.encode()) for value in each) for name, each in values.items()}
        ),
        "seriesCountByLabelValuePair": top(by_pair),
    }


def metadata(sources: Sources, parameters: Parameters) -> Any:
    """Type, help and unit of each metric, in the words of the targets that have it."""
    limit, each_most, wanted = (
        parameters.count("limit"),
        parameters.count("limit_per_metric"),
        parameters.text("metric"),
    )
    found: dict[str, list[dict[str, str]]] = {}
    for scraper in sources.scrapers:
        for name, said in describe(scraper.comments).items():
            known = found.setdefault(name, [])
            if said not in known and (each_most <= 0 or len(known) < each_most):
                known.append(said)
    if wanted:
        found = {wanted: found[wanted]} if wanted in found else {}
    names = sorted(found)[: limit if limit >= 0 else None]
    return {name: found[name] for name in names}


def target_metadata(sources: Sources, parameters: Parameters) -> Any:
    limit, wanted = parameters.count("limit"), parameters.text("metric")
    matchers: tuple[Matcher, ...] = ()
    if text := parameters.text("match_target"):
        try:
            node = parse(text)
        except QueryError as error:
            raise invalid("match_target", error.message) from None
        if not isinstance(node, Selector):
            raise invalid("match_target", f"{text!r} is no series selector")
        matchers = node.matchers
    found = [
        {"target": dict(scraper.endpoint.labels), **({} if wanted else {"metric": name}), **said}
        for scraper in sources.scrapers
        if matches(tuple(scraper.endpoint.labels.items()), matchers)
        for name, said in sorted(describe(scraper.comments).items())
        if wanted in ("", name)
    ]
    return found[: limit if limit >= 0 else None]


def describe(comments: Iterable[str]) -> dict[str, dict[str, str]]:
    """What ``# TYPE``, ``# HELP`` and ``# UNIT`` lines say, by metric."""
    found: dict[str, dict[str, str]] = {}
    for line in comments:
        match = COMMENT.fullmatch(line)
        if match is None:
            continue
        said = found.setdefault(match[2], {"type": "unknown", "help": "", "unit": ""})
        text = match[3] or ""
        if match[1] == "HELP":
            said["help"] = HELP_ESCAPE.sub(lambda each: "\n" if each[1] == "n" else each[1], text)
        else:
            said[match[1].lower()] = "unknown" if text == "untyped" else text
    return found


def scrape_pools(sources: Sources, parameters: Parameters) -> Any:
    return {"scrapePools": sorted({scraper.endpoint.labels["job"] for scraper in sources.scrapers})}


def alertmanagers(sources: Sources, parameters: Parameters) -> Any:
    """None: the pipeline of this process does an Alertmanager's work."""
    return {"activeAlertmanagers": [], "droppedAlertmanagers": []}


ENDPOINTS: Final[Mapping[str, Callable[[Sources, Parameters], Any]]] = {
    "status/buildinfo": buildinfo,
    "status/config": config,
    "status/flags": flags,
    "status/runtimeinfo": runtimeinfo,
    "status/tsdb": tsdb,
    "metadata": metadata,
    "targets/metadata": target_metadata,
    "scrape_pools": scrape_pools,
    "alertmanagers": alertmanagers,
}
