"""What ``monitor.toml`` may say, as data: the kinds of target, the times of the monitor, the allowed words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .model import Capacity, Indicator, Level, Mean, Percentile
from .units import Unit

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
NAME_RULE: Final = "use letters, digits, '_', '-' and '.', beginning with a letter (63 at most)"
SEVERITIES: Final = ("critical", "warning")
INFO: Final = "info"  # what a channel gets only if it asks for it
FORMATS: Final = ("text", "short", "markdown", "html")
LISTEN: Final = "127.0.0.1:9109"
# Where OpenTelemetry SDKs send to when nobody tells them otherwise.
LISTEN_OTLP: Final = "127.0.0.1:4318"
OTLP: Final = "otlp"  # metrics = "otlp": the server pushes
OFF: Final = "off"
PAGE_STEP: Final = r"/(?:[^\s{}?#/]+|\{[A-Za-z_]\w*\})"
PAGE: Final = re.compile(rf"(?:{PAGE_STEP})+(?:/(?:\{{[A-Za-z_]\w*:path\}})?)?|/(?:\{{[A-Za-z_]\w*:path\}})?")
PAGE_RULE: Final = 'must be page templates such as "/", "/products/{id}" or "/docs/{rest:path}"'
ORIGIN: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
ORIGIN_RULE: Final = 'must be origins: scheme and host, as in "https://www.example.com"'
RULE_FILE: Final = re.compile(r"\S(?:[^\x00-\x1f]*\S)?")
RULE_FILE_RULE: Final = 'must be rule files or patterns of them, as in ["rules/*.yml"]'
MOST_LISTED: Final = 200
SILENCE: Final = 300.0

# Seconds. A scrape every 5 s lets a one-minute window lose a scrape and stay exact; group_wait gathers what breaks
# together into one message; repeat_interval is Alertmanager's default.
MONITOR_TIMES: Final = {
    "scrape_interval": 5.0,
    "scrape_timeout": 4.0,
    "evaluation_interval": 5.0,
    "retention": 15 * 86400.0,
    "group_wait": 1.0,
    "group_interval": 30.0,
    "repeat_interval": 4 * 3600.0,
    "flap_window": 3600.0,
    "heartbeat_interval": 60.0,
}


# Of history on disk; fifteen days of 2,000 series every 5 s take about 1 GB at 2 bytes a sample.
RETENTION_SIZE: Final = "5GB"


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the targets that this version knows: its wording, its unit and where its number comes from."""

    title: str
    unit: Unit
    indicator: Callable[[float], Indicator]
    percentile: bool = False
    counted: bool = False


# The metric names stand here a second time because targets/ is the ground floor and may not import exporter/;
# tests/targets/test_settings.py holds them against exporter/names.py.
KINDS: Final = {
    "api_response_time": Kind(
        "API response time", Unit.SECONDS, lambda q: Percentile("http_server_request_duration_seconds", q),
        percentile=True, counted=True),
    "frontend_load_time": Kind(
        "Frontend load time", Unit.SECONDS, lambda q: Percentile("browser_page_load_duration_seconds", q),
        percentile=True, counted=True),
    "db_query_time": Kind(
        "Database query time", Unit.SECONDS, lambda _: Mean("db_client_operation_duration_seconds"), counted=True),
    "memory": Kind("Server memory", Unit.BYTES, lambda _: Level("process_memory_usage_bytes")),
    "concurrent_users": Kind(
        "Concurrent users", Unit.USERS, lambda _: Capacity("http_server_active_users", "api_response_time")),
}  # fmt: skip
