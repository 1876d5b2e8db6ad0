"""Every metric of this project: name, type, labels, meaning. The contract between instrument, rules and dashboards.

Names follow the OpenTelemetry semantic conventions, translated to Prometheus by OpenTelemetry's own rules (dots become
underscores, the unit is appended, counters end in ``_total``), so that this middleware, an OTel Collector, Node's SDK
or Prometheus's OTLP receiver all give the same series and one rule serves all.
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
# The base units that a name of ours may end in (OpenMetrics wants the unit to be the end of the name).
UNITS: Final = ("seconds", "bytes")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. ``name`` is the Prometheus name (of a counter with its ``_total``).

    ``unit`` is its OpenMetrics unit; by default what the name ends in.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.unit:
            last = self.name.removesuffix("_total").rpartition("_")[2]
            object.__setattr__(self, "unit", last if last in UNITS else "")

    @property
    def bucket(self) -> str:
        return f"{self.name}_bucket"

    @property
    def sum(self) -> str:
        return f"{self.name}_sum"

    @property
    def count(self) -> str:
        return f"{self.name}_count"


# OTel's advised edges for seconds (semconv http.server.request.duration); every target limit is added to them.
SECONDS_EDGES: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# At so many times the limit of a percentile there is an edge, too: between wide edges a wander of the p95 reads as
# twice as much, and without these two the drift rules tell two thirds more for nothing (docs/drift.md).
NEAR_LIMIT: Final = (0.75, 1.5)
# semconv db.client.operation.duration
DATABASE_EDGES: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
# A healthy loop wakes within a millisecond or two; what hurts begins at tens of them.
LAG_EDGES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BYTES_EDGES: Final = tuple(float(4**n) for n in range(4, 14))  # 256 bytes to 64 MiB
PAGE_LOAD_EDGES: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0, 30.0)

# Where instrument(app), the monitor and the exporter take what browsers measured; `.js` behind it is the script.
BEACON_PATH: Final = "/anvil-monitor/beacon"

# One shared value for what matched no route: no raw path ever becomes a label.
UNMATCHED: Final = "(unmatched)"
# The label value that new label sets get once a page is full.
OVERFLOW: Final = "(overflow)"

HTTP_DURATION: Final = Metric(
    "http_server_request_duration_seconds", "histogram", "Duration of HTTP server requests.",
    ("http_request_method", "http_route", "http_response_status_code", "error_type"))  # fmt: skip
HTTP_ACTIVE: Final = Metric(
    "http_server_active_requests", "gauge", "Requests being answered now.", ("http_request_method",))  # fmt: skip
HTTP_OLDEST: Final = Metric(
    "http_server_oldest_request_age_seconds", "gauge", "Age of the oldest unanswered request.")  # fmt: skip
# No status and no error in these two: sizes hardly depend on them, and each label more would double the series.
HTTP_REQUEST_SIZE: Final = Metric(
    "http_server_request_body_size_bytes", "histogram", "Size of HTTP server request bodies.",
    ("http_request_method", "http_route"))  # fmt: skip
HTTP_RESPONSE_SIZE: Final = Metric(
    "http_server_response_body_size_bytes", "histogram", "Size of HTTP server response bodies.",
    ("http_request_method", "http_route"))  # fmt: skip
HTTP_WEBSOCKETS: Final = Metric("http_server_active_websockets", "gauge", "WebSockets that are open now.")
HTTP_USERS: Final = Metric("http_server_active_users", "gauge", "Distinct clients served in the last minute.")

# Of a process that pushes by OTLP, the resource's service.version.
SERVICE_VERSION: Final = Metric(
    "service_version_info", "gauge", "1: this version of the server runs.", ("service_version",))  # fmt: skip

DB_DURATION: Final = Metric(
    "db_client_operation_duration_seconds", "histogram", "Duration of database client operations.",
    ("db_system_name", "db_operation_name", "db_collection_name"))  # fmt: skip
DB_CONNECTIONS: Final = Metric(
    "db_client_connection_count", "gauge", "Connections of the pool by state.",
    ("db_client_connection_state", "db_client_connection_pool_name"))  # fmt: skip

DB_CONNECTIONS_MAX: Final = Metric(
    "db_client_connection_max", "gauge", "Connections that the pool may have.",
    ("db_client_connection_pool_name",))  # fmt: skip
DB_CONNECTIONS_PENDING: Final = Metric(
    "db_client_connection_pending_requests", "gauge", "Requests waiting for a connection of the pool.",
    ("db_client_connection_pool_name",))  # fmt: skip
DB_CONNECTION_TIMEOUTS: Final = Metric(
    "db_client_connection_timeouts_total", "counter", "Requests that got no connection of the pool in time.",
    ("db_client_connection_pool_name",))  # fmt: skip
DB_CONNECTION_WAIT: Final = Metric(
    "db_client_connection_wait_time_seconds", "histogram", "Time to get an open connection from the pool.",
    ("db_client_connection_pool_name",))  # fmt: skip

PAGE_LOAD: Final = Metric(
    "browser_page_load_duration_seconds", "histogram", "Page load time as browsers measured it.",
    ("url_template",))  # fmt: skip
# Apart from page loads: many quick route changes must not hide slow first loads.
SOFT_NAVIGATION: Final = Metric(
    "browser_soft_navigation_duration_seconds", "histogram",
    "Time from a client-side route change, or the input that led to it, until the page was at rest.",
    ("url_template",), "seconds")  # fmt: skip
WEB_VITALS: Final = {
    vital: Metric(f"browser_web_vital_{vital}_seconds", "histogram", f"Web vital {vital.upper()}.", ("url_template",))
    for vital in ("lcp", "fcp", "inp", "ttfb")
}
WEB_VITAL_CLS: Final = Metric("browser_web_vital_cls", "histogram", "Cumulative layout shift.", ("url_template",))

PROCESS_MEMORY: Final = Metric(
    "process_memory_usage_bytes", "gauge", "Resident memory of the server, all its processes.", ("service",)
)
PROCESS_MEMORY_MAX: Final = Metric(
    "process_memory_usage_bytes_max", "gauge", "Resident memory of its largest process.", ("service",)
)
PROCESS_MEMORY_PSS: Final = Metric(
    "process_memory_pss_bytes",
    "gauge",
    "Memory of the server in which pages that its processes share count once.",
    ("service",),
)
PROCESS_CPU: Final = Metric(
    "process_cpu_time_seconds_total", "counter", "CPU time of the server, all its processes.", ("service",)
)
PROCESS_FDS: Final = Metric("process_open_file_descriptor_count", "gauge", "Open file descriptors.", ("service",))
PROCESS_FDS_MAX: Final = Metric(
    "process_open_file_descriptor_count_max", "gauge", "Open file descriptors of the process with the most.",
    ("service",))  # fmt: skip
PROCESS_FDS_LIMIT: Final = Metric(
    "process_open_file_descriptor_limit", "gauge", "Descriptors that one process may open: the least of them.",
    ("service",))  # fmt: skip
PROCESS_THREADS: Final = Metric("process_thread_count", "gauge", "Threads.", ("service",))
PROCESS_UPTIME: Final = Metric(
    "process_uptime_seconds", "gauge", "Seconds since the server's root process started.", ("service",)
)
PROCESS_COUNT: Final = Metric("process_count", "gauge", "Processes of the server; 0: none found.", ("service",))
PROCESS_RESTARTS: Final = Metric(
    "process_restarts_total", "counter", "Processes replaced by a new one: the server's root, or one of its workers.",
    ("service", "process_role"))  # fmt: skip

EVENT_LOOP_LAG: Final = Metric("python_event_loop_lag_seconds", "histogram", "How late the event loop wakes up.")

# What the monitor calls itself where a service is named.
MONITOR: Final = "anvil-monitor"
# Who the probe says it is.
PROBE_AGENT: Final = "anvil-monitor-probe"
PROBE_SUCCESS: Final = Metric("probe_success", "gauge", "1: the service's URL answered below 500.", ("service", "url"))
PROBE_DURATION: Final = Metric(
    "probe_duration_seconds", "gauge", "Time to the answer, or since the question.", ("service", "url")
)
PROBE_FAILURE: Final = Metric(
    "probe_failure", "gauge", "1: the URL did not answer as it should, for this reason.", ("service", "url", "reason")
)
PROBE_STATUS: Final = Metric("probe_http_status_code", "gauge", "Status of the answer.", ("service", "url"))
PROBE_CERTIFICATE: Final = Metric(
    "probe_certificate_expiry_timestamp_seconds", "gauge", "When the certificate ends, also one that is not trusted.",
    ("service", "url"))  # fmt: skip

# The control group of a service, by OpenTelemetry's container metrics and in their manner. Only where there are limits.
CONTAINER_MEMORY: Final = Metric(
    "container_memory_usage_bytes", "gauge", "Memory charged to the group that is limited, file cache included.",
    ("service",))  # fmt: skip
CONTAINER_MEMORY_WORKING_SET: Final = Metric(
    "container_memory_working_set_bytes", "gauge", "The same without file cache that was not used lately.",
    ("service",))  # fmt: skip
CONTAINER_MEMORY_LIMIT: Final = Metric("container_memory_limit_bytes", "gauge", "What it may have.", ("service",))
CONTAINER_OOM_KILLS: Final = Metric(
    "container_memory_oom_kills_total", "counter", "Processes of the group that the kernel killed for want of memory.",
    ("service",))  # fmt: skip
CONTAINER_CPU_LIMIT: Final = Metric("container_cpu_limit", "gauge", "Cores that the group may use.", ("service",))
CONTAINER_CPU_THROTTLED: Final = Metric(
    "container_cpu_throttled_seconds_total", "counter", "Time in which it wanted CPU and had used up its share.",
    ("service",))  # fmt: skip
CONTAINER_CPU_PERIODS: Final = Metric(
    "container_cpu_periods_total", "counter", "Periods of the scheduler in which it ran.", ("service",)
)
CONTAINER_CPU_THROTTLED_PERIODS: Final = Metric(
    "container_cpu_throttled_periods_total", "counter", "Of them those in which it was held back.", ("service",)
)
CONTAINER_THREADS: Final = Metric("container_thread_count", "gauge", "Processes and threads.", ("service",))
CONTAINER_THREADS_LIMIT: Final = Metric("container_thread_limit", "gauge", "How many there may be.", ("service",))

# The host, under OpenTelemetry's system metrics (and, where those have no word, in their manner).
SYSTEM_CPU: Final = Metric("system_cpu_time_seconds_total", "counter", "CPU time by mode, all cores.", ("cpu_mode",))
SYSTEM_CPU_LOGICAL_COUNT: Final = Metric("system_cpu_logical_count", "gauge", "Logical cores.")
SYSTEM_LOAD_AVERAGE: Final = Metric("system_load_average", "gauge", "Load average.", ("window",))
SYSTEM_UPTIME: Final = Metric("system_uptime_seconds", "gauge", "Seconds since the host started.")
SYSTEM_CONTEXT_SWITCHES: Final = Metric("system_context_switches_total", "counter", "Context switches, all cores.")
SYSTEM_PROCESS_COUNT: Final = Metric(
    "system_process_count", "gauge", "Tasks that run or are blocked on I/O.", ("system_process_status",)
)
SYSTEM_PROCESS_CREATED: Final = Metric("system_process_created_total", "counter", "Processes and threads started.")
SYSTEM_THREADS: Final = Metric("system_thread_count", "gauge", "Threads of all processes.")
SYSTEM_FDS: Final = Metric("system_open_file_descriptor_count", "gauge", "Open files of the whole host.")
SYSTEM_FDS_LIMIT: Final = Metric("system_open_file_descriptor_limit", "gauge", "Files that may be open at once.")
SYSTEM_MEMORY_LIMIT: Final = Metric("system_memory_limit_bytes", "gauge", "Memory of the host.")
SYSTEM_MEMORY_AVAILABLE: Final = Metric("system_memory_available_bytes", "gauge", "Memory to be had without swapping.")
SYSTEM_MEMORY: Final = Metric("system_memory_usage_bytes", "gauge", "Memory by state.", ("system_memory_state",))
SYSTEM_OOM_KILLS: Final = Metric(
    "system_memory_oom_kills_total", "counter", "Processes that the kernel killed for want of memory."
)
SYSTEM_PAGING: Final = Metric("system_paging_usage_bytes", "gauge", "Swap by state.", ("system_paging_state",))
SYSTEM_PAGING_OPERATIONS: Final = Metric(
    "system_paging_operations_total", "counter", "Pages swapped in and out.", ("system_paging_direction",)
)
SYSTEM_PAGING_FAULTS: Final = Metric(
    "system_paging_faults_total", "counter", "Page faults; major ones read a disk.", ("system_paging_fault_type",)
)
SYSTEM_PRESSURE: Final = Metric(
    "system_pressure_stall_seconds_total", "counter",
    "Time in which some or all (full) tasks waited for the resource.", ("resource", "kind"))  # fmt: skip
SYSTEM_FILESYSTEM: Final = Metric(
    "system_filesystem_usage_bytes",
    "gauge",
    "File system space by state.",
    ("system_device", "system_filesystem_mountpoint", "system_filesystem_state"),
)
SYSTEM_INODES: Final = Metric(
    "system_filesystem_inodes_usage",
    "gauge",
    "File system inodes by state.",
    ("system_device", "system_filesystem_mountpoint", "system_filesystem_state"),
)
SYSTEM_DISK_IO: Final = Metric(
    "system_disk_io_bytes_total", "counter", "Disk traffic.", ("disk_io_direction", "system_device")
)
SYSTEM_DISK_OPERATIONS: Final = Metric(
    "system_disk_operations_total", "counter", "Disk operations.", ("disk_io_direction", "system_device")
)
SYSTEM_DISK_OPERATION_TIME: Final = Metric(
    "system_disk_operation_time_seconds_total", "counter", "Sum of the durations of disk operations.",
    ("disk_io_direction", "system_device"))  # fmt: skip
SYSTEM_DISK_IO_TIME: Final = Metric(
    "system_disk_io_time_seconds_total", "counter", "Time in which the disk was busy.", ("system_device",)
)
SYSTEM_NETWORK_IO: Final = Metric(
    "system_network_io_bytes_total", "counter", "Network traffic.", ("network_interface_name", "network_io_direction")
)
SYSTEM_NETWORK_PACKETS: Final = Metric(
    "system_network_packet_count_total", "counter", "Network packets.",
    ("network_interface_name", "network_io_direction"))  # fmt: skip
SYSTEM_NETWORK_ERRORS: Final = Metric(
    "system_network_errors_total", "counter", "Network errors.", ("network_interface_name", "network_io_direction")
)
SYSTEM_NETWORK_DROPPED: Final = Metric(
    "system_network_packet_dropped_total", "counter", "Network packets dropped.",
    ("network_interface_name", "network_io_direction"))  # fmt: skip
SYSTEM_CLOCK_SYNCHRONIZED: Final = Metric(
    "system_clock_synchronized", "gauge", "1: the kernel's clock is held to a reference (NTP)."
)
SYSTEM_CLOCK_OFFSET: Final = Metric(
    "system_clock_offset_seconds", "gauge", "What the clock is still being corrected by."
)
SYSTEM_CLOCK_ERROR: Final = Metric(
    "system_clock_maximum_error_seconds", "gauge", "The most the clock may be off, as the kernel believes."
)

# The monitor about itself.
STORE_SERIES: Final = Metric("anvil_monitor_series", "gauge", "Series in the store.")
STORE_SAMPLES: Final = Metric("anvil_monitor_samples", "gauge", "Samples in the store.")
STORE_REFUSED: Final = Metric(
    "anvil_monitor_refused_samples_total", "counter", "Samples of new series that found no room."
)
HISTORY_SIZE: Final = Metric("anvil_monitor_history_bytes", "gauge", "Size of the history on disk.")
HISTORY_DAMAGED: Final = Metric(
    "anvil_monitor_history_damaged_blocks", "gauge", "Hours of history that cannot be read and are set aside."
)
HISTORY_WRITABLE: Final = Metric(
    "anvil_monitor_history_writable", "gauge", "1: new samples reach the disk; 0: they are in memory alone."
)
SCRAPES_DOWN: Final = Metric("anvil_monitor_targets_down", "gauge", "Scrape targets whose last scrape failed.")
RULE_EVALUATION: Final = Metric(
    "anvil_monitor_rule_evaluation_seconds", "gauge", "Duration of the last evaluation of a group.", ("group",)
)
RULE_MISSED: Final = Metric(
    "anvil_monitor_rule_evaluations_missed_total", "counter", "Slots that a group's evaluation skipped.", ("group",)
)
RULES_FAILING: Final = Metric("anvil_monitor_rules_failing", "gauge", "Rules whose last evaluation failed.", ("group",))
NOTIFICATIONS: Final = Metric(
    "anvil_monitor_notifications", "gauge", "Notifications in the outbox, by what became of them.", ("channel", "state")
)
SENDS: Final = Metric(
    "anvil_monitor_sends_total", "counter", "Attempts to send a notification.", ("channel", "outcome")
)
HEARTBEATS: Final = Metric(
    "anvil_monitor_heartbeats_total", "counter", "Calls of the heartbeat URL by what became of them.", ("outcome",)
)
QUEUE_AGE: Final = Metric(
    "anvil_monitor_queue_age_seconds", "gauge", "Age of the notification that has waited longest."
)

# The OTLP receiver about itself.
OTLP_REQUESTS: Final = Metric(
    "anvil_monitor_otlp_requests_total", "counter", "OTLP requests: taken, taken in part, refused.", ("result",)
)
OTLP_POINTS: Final = Metric(
    "anvil_monitor_otlp_points_total", "counter", "OTLP data points by what became of them.", ("result",)
)
OTLP_INSTANCES: Final = Metric("anvil_monitor_otlp_instances", "gauge", "Instances that send OTLP now.", ("service",))
OTLP_SERIES: Final = Metric("anvil_monitor_otlp_series", "gauge", "Series made of what came by OTLP.", ("service",))
HISTOGRAM_EDGE_MISSING: Final = Metric(
    "anvil_monitor_histogram_edge_missing",
    "gauge",
    "1: an instance sends this histogram without an edge at the target's limit, and what is said of it is an estimate.",
    ("service", "metric", "limit"),
)

# The instrument about itself.
WORKERS: Final = Metric("anvil_monitor_workers", "gauge", "Live worker processes that have recorded something.")
WORKERS_ENDED: Final = Metric(
    "anvil_monitor_workers_ended_total",
    "counter",
    "Worker processes that ended in an orderly way, as recycled ones do and crashed ones do not.",
)
PAGES_REFUSED: Final = Metric(
    "anvil_monitor_pages_refused", "gauge", "Files in the pages folder that are no valid page."
)
PRIVATE_PAGE: Final = Metric(
    "anvil_monitor_private_page",
    "gauge",
    "1: the worker that answers could make no page file; no other shows its numbers.",
)
SERIES_OVERFLOW: Final = Metric(
    "anvil_monitor_series_overflow_total", "counter", "Look-ups of label sets for which a page had no room."
)
BEACONS: Final = Metric("anvil_monitor_beacons_total", "counter", "Beacons by what became of them.", ("result",))


def foreign(name: str, kind: Kind, help: str, unit: str = "") -> Metric:  # noqa: A002  the field's word
    """A metric that is not ours: a meter's or a collector's of the user's own. Its labels differ by series."""
    return Metric(name, kind, help, unit=unit)


def _catalogue(found: dict[str, object]) -> dict[str, Metric]:
    values = (each for value in found.values() for each in (value.values() if isinstance(value, dict) else (value,)))
    return {value.name: value for value in values if isinstance(value, Metric)}


# Every metric of this file by its name.
BY_NAME: Final = _catalogue(dict(globals()))
