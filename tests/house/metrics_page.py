"""``docs/names.md`` from ``exporter/names.py``: ``python -m tests.house.metrics_page > docs/names.md``."""

from __future__ import annotations

from anvil_monitor.exporter.names import BY_NAME, Metric

HEAD = """\
# Every metric

Made from `exporter/names.py` by `python -m tests.house.metrics_page > docs/names.md`; a test holds the two together.
Names and labels follow the [OpenTelemetry semantic conventions](https://opentelemetry.io/docs/specs/semconv/) in their
Prometheus form, so that a Collector, Node's SDK or Prometheus's own OTLP receiver give the same series. A histogram `x`
has the series `x_bucket`, `x_sum` and `x_count`. A label without a value is absent. Metrics of your own
(`prometheus_client`, OpenTelemetry meters) stand beside these under their own names.
"""
SECTIONS = (
    ("The server: requests", ("http_server_",)),
    ("The server: database", ("db_",)),
    ("The server: Python", ("python_",)),
    ("The server: its version", ("service_",)),
    ("Browsers", ("browser_",)),
    ("The server's processes", ("process_", "container_", "cgroup_")),
    ("Probes", ("probe_",)),
    ("The host", ("system_",)),
    ("The monitor and the instrument about themselves", ("anvil_monitor_",)),
)


def page() -> str:
    """The whole page."""
    parts, left = [HEAD], dict(BY_NAME)
    for title, prefixes in SECTIONS:
        found = sorted(name for name in left if name.startswith(prefixes))
        parts.append(_section(title, [left.pop(name) for name in found]))
    if left:
        parts.append(_section("Others", [left[name] for name in sorted(left)]))
    return "\n".join(parts)


def _section(title: str, metrics: list[Metric]) -> str:
    rows = [f"| `{m.name}` | {m.kind} | {' '.join(f'`{label}`' for label in m.labels)} | {m.help} |" for m in metrics]
    return "\n".join([f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    print(page(), end="")
