"""Made-up targets of the user's own, any kind and any key, on metrics that other targets are read from as well."""

from __future__ import annotations

import random

HTTP = "http_server_request_duration_seconds"
HISTOGRAMS = (HTTP, "db_client_operation_duration_seconds", "job_duration_seconds", "upload_size_bytes")
GAUGES = ("process_memory_usage_bytes", "http_server_active_users", "jobs_waiting", "cache_fill_ratio")
COUNTERS = ("orders_total", f"{HTTP}_count", "signups_total")
MATCHERS = (
    "", "", 'http_route="/checkout/{id}"', 'http_route!="/health"', 'http_response_status_code=~"2..|3.."',
    'http_response_status_code!~"5..",http_request_method=~"GET|HEAD"', 'queue=~"mail.*"', 'a=~"[a-f0-9]{8}",b!=""',
)  # fmt: skip
SHARES = ("0.1%", "5%", "50%", "80%", "99%", "99.5%", "99.99%", "100%")
EXPRESSIONS = (
    ('sum by (queue) (jobs_waiting{service="$service"}) / 10', "number", (5, 0.25, 1000)),
    (f'sum(rate({HTTP}_count{{service="$service"}}[$window])) * 60', "number", (10, 3000)),
    ('time() - max(last_success_timestamp_seconds{service="$service"})', "seconds", ('"1h"', '"90s"')),
    (f'histogram_quantile(0.9, sum by (le) (rate({HTTP}_bucket{{service="$service"}}[$window])))',
     "seconds", ('"300ms"', '"2s"')),
    (f'sum(rate({HTTP}_count{{service="$service",http_response_status_code=~"5.."}}[$window])) / '
     f'sum(rate({HTTP}_count{{service="$service"}}[$window]))', "percent", ('"2%"', '"60%"')),
    ('max_over_time(process_memory_usage_bytes{service="$service"}[10m])', "bytes", ('"300MB"', '"2GiB"')),
)  # fmt: skip


def monitor_toml(chance: random.Random, targets: int) -> str:
    """A monitor.toml with so many targets of the user's own, besides the shipped ones."""
    parts = [f'[monitor]\nscrape_interval = "{chance.choice(("5s", "7s", "15s"))}"\n']
    if chance.random() < 0.4:
        parts.append('[[service]]\nname = "shop.eu-1"\n[[service]]\nname = "api"\nurl = "http://127.0.0.1:9000"\n')
    parts += [_target(chance, f"own_{number}") for number in range(targets)]
    return "\n".join(parts)


def _target(chance: random.Random, name: str) -> str:
    kind = chance.choice(("percentile", "mean", "gauge", "gauge", "ratio", "ratio", "rate", "rate", "expression"))
    side = chance.choice(("at_most", "at_least"))
    lines = [f"[targets.{name}]", f'kind = "{kind}"']
    match kind:
        case "percentile" | "mean":
            metric = chance.choice(HISTOGRAMS)
            lines.append(f"metric = '{_selector(chance, metric)}'")
            lines.append(f"at_most = {_limit(chance, metric)}")
            if kind == "percentile":
                lines.append(f"percentile = {chance.choice((50, 90, 99, 99.9))}")
            lines += _floor(chance)
        case "gauge":
            metric = chance.choice(GAUGES)
            lines += [f"metric = '{_selector(chance, metric)}'", f"{side} = {_limit(chance, metric)}"]
            lines += ['unit = "percent"'] if metric.endswith("ratio") else []
        case "ratio":
            metric = chance.choice(COUNTERS)
            good = 'result="ok"' if metric != f"{HTTP}_count" else 'http_response_status_code!~"5.."'
            total = chance.choice((metric, metric, "events_total"))
            lines += [f"good = '{metric}{{{good}}}'", f"total = '{total}'"]
            lines += [f'{side} = "{chance.choice(SHARES[: -1 if side == "at_most" else None])}"', *_floor(chance)]
        case "rate":
            lines += [f"metric = '{_selector(chance, chance.choice(COUNTERS))}'"]
            lines += [f"{side} = {chance.choice((0.1, 3, 250, 1e4))}"]
        case "expression":
            expr, unit, limits = chance.choice(EXPRESSIONS)
            lines += [f"expr = '{expr}'", f'unit = "{unit}"', f"{side} = {chance.choice(limits)}"]
    for key, some in (("window", ("1m", "90s", "5m")), ("for", ("0s", "1m", "4m")),
                      ("keep_firing_for", ("0s", "1m", "5m")), ("silence", ("1m", "5m"))):  # fmt: skip
        if chance.random() < 0.4:
            lines.append(f'{key} = "{chance.choice(some)}"')
    return "\n".join(lines) + "\n"


def _selector(chance: random.Random, metric: str) -> str:
    matchers = chance.choice(MATCHERS)
    return f"{metric}{{{matchers}}}" if matchers else metric


def _limit(chance: random.Random, metric: str) -> str:
    if metric.endswith("_seconds"):
        return chance.choice(('"250ms"', '"0.98s"', '"1s"', '"3.3ms"', '"2min"'))
    if metric.endswith("_bytes"):
        return chance.choice(('"500MB"', '"1.5GiB"', '"3kB"'))
    if metric.endswith("_ratio"):
        return f'"{chance.choice(SHARES)}"'
    return chance.choice(("1", "7", "0.8", "100", "12345.678"))


def _floor(chance: random.Random) -> list[str]:
    return [f"floor = {chance.choice((0, 1, 5, 50))}"] if chance.random() < 0.6 else []
