"""What every module of rules is written with: the names of series and alerts, links, and text made safe.

Rules are pure functions from the configuration to :class:`~.rulefile.Group`; :mod:`.rules` puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from anvil_monitor.targets import Monitor, Target, Unit
from anvil_monitor.targets import format_promql_duration as duration

__all__ = [
    "Links",
    "about",
    "costliest",
    "duration",
    "human",
    "literal",
    "number",
    "quoted",
    "recorded",
    "since_deploy",
    "target_labels",
]

MISSED: Final = "TargetMissed"
CAPACITY: Final = "CapacityShort"
MISSES: Final = (MISSED, CAPACITY)  # what says that a promise is broken
NO_DATA: Final = "TargetNoData"
DOWN: Final = "ServiceDown"
ERRORS: Final = "ErrorRateHigh"
STUCK: Final = "RequestsStuck"
CRASHING: Final = "WorkersCrashing"
CPU: Final = "HostCpuSaturated"
MEMORY: Final = "HostMemoryLow"
DISK: Final = "HostDiskFilling"
NOTIFICATIONS: Final = "NotificationsFailing"
COLLECTOR: Final = "CollectorDown"
WATCHDOG: Final = "Watchdog"

VALUE: Final = "target:value"
LIMIT: Final = "target:limit"
RATIO: Final = "target:ratio"
SAMPLES: Final = "target:samples"
ESTIMATE: Final = "target:estimate"
OVER: Final = "target:over"
LOOKED_BACK: Final = "target:looked_back"
REQUESTS: Final = "service:requests"
FAILED: Final = "service:failed_requests"
VERSION_SINCE: Final = "service:version_since"

# Below the monitor's page; what is filled in is filled into the commands of the runbook.
RUNBOOKS: Final = "/runbooks/{alert}/{service}/{target}"

# How many routes a message names: enough to begin with.
COSTLIEST: Final = 3


@dataclass(frozen=True, slots=True)
class Links:
    """Where an alert sends its reader. Both may hold ``{service}``, ``{target}`` and ``{alert}``."""

    dashboard: str
    runbooks: str = "docs/runbooks/{alert}.md"  # in the project's tree

    @classmethod
    def to_page(cls, monitor: Monitor) -> Links:
        """To the monitor's own page, which has the runbooks, too, unless the user has his own elsewhere."""
        page = monitor.reached_at
        return cls(f"{page}/#{{service}}/{{target}}", monitor.runbooks or f"{page}{RUNBOOKS}")

    def of(self, service: str, target: str, alert: str) -> dict[str, str]:
        def filled(link: str) -> str:
            words = {"{service}": service, "{target}": target, "{alert}": alert}
            for place, word in words.items():
                # A host has no service, a service no target: the step that would name them is left out.
                for step in ("/", "#", "") if not word else ("",):
                    link = link.replace(f"{step}{place}", word)
            return link

        return {"dashboard": filled(literal(self.dashboard)), "runbook_url": filled(literal(self.runbooks))}


def target_labels(target: Target) -> dict[str, str]:
    return {"service": target.service, "target": target.name, "unit": target.unit.value}


def about(target: Target) -> dict[str, str]:
    return {"title": target.title, "unit": target.unit.value, **since_deploy(target.service)}


def since_deploy(service: str) -> dict[str, str]:
    """Which version of ``service`` came last, and when (Unix seconds); empty where no version is known."""
    # Also for a while after nothing has answered any more.
    known = f"last_over_time({VERSION_SINCE}{{service={quoted(service)}}}[1h])"
    newest = f"{{{{ with query `sort_desc({known})` }}}}{{{{ %s }}}}{{{{ end }}}}"
    return {"version": newest % '. | first | label "service_version"', "deploy": newest % ". | first | value"}


def recorded(series: str, target: Target, name: str = "") -> str:
    return f"{series}{{service={quoted(target.service)},target={quoted(name or target.name)}}}"


def costliest(expr: str, what: str, labels: tuple[str, ...] = ("http_request_method", "http_route")) -> str:
    """The template that names the :data:`COSTLIEST` elements of ``expr``, a count of requests by ``labels``.

    It prints nothing where nothing was counted: ``GET /orders 41 failed, GET /products/{id} 3 failed``.
    """
    name = " ".join(f"{{{{ .Labels.{label} }}}}" for label in labels)
    top = f"topk({COSTLIEST}, {expr}) > 0.5"
    return (
        f"{{{{ range $number, $each := query `{top}` }}}}{{{{ if $number }}}}, {{{{ end }}}}"
        f'{name} {{{{ .Value | printf "%.0f" }}}} {what}{{{{ end }}}}'
    )


def human(unit: Unit) -> str:
    """The template that prints ``$value`` in human units: ``312ms``, ``512.3MB``, ``37 users``, ``0.75``."""
    match unit:
        case Unit.SECONDS:
            return "{{ $value | humanizeDuration }}"
        case Unit.BYTES:
            return "{{ $value | humanize }}B"
        case Unit.USERS:
            return '{{ $value | printf "%.0f" }} user{{ if ne ($value | printf "%.0f") "1" }}s{{ end }}'
        case Unit.PERCENT:
            return "{{ $value | humanizePercentage }}"
        case Unit.NUMBER:
            # humanize makes 750m of 0.75.
            return '{{ if lt ($value) 1.0 }}{{ $value | printf "%.3g" }}{{ else }}{{ $value | humanize }}{{ end }}'


def literal(text: str) -> str:
    """``text`` from outside as a template that prints just that."""
    return text.replace("{{", '{{ "{{" }}')


def quoted(text: str) -> str:
    """``text`` as a PromQL string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def number(value: float) -> str:
    """A constant as a person would write it: ``0.2``, ``500000000``, ``100``."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
