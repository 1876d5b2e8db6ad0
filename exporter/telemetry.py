"""FastAPI's own OpenTelemetry, where our middleware measures the same.

FastAPI since 0.142 measures requests itself as soon as a MeterProvider is there, and looks for one (and for providers
of traces and logs) at every request. Its request metrics are switched off here, so that nothing is counted twice; its
look-ups are answered from two module variables as long as nobody has set a provider, which gives about 4 µs a request
back. Its traces and logs stay as they are. All of this is private to FastAPI and OpenTelemetry:
``tests/exporter/test_instrument_telemetry.py`` holds it against what is installed, and where something has moved
FastAPI is left alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from opentelemetry import metrics, trace

logger = logging.getLogger("anvil_monitor.exporter")
PROVIDERS = ("tracer_provider", "meter_provider", "logger_provider")
VARIABLES = ("OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_LOGGER_PROVIDER")


def still(app: Any, traces: bool = False, _seen: set[int] | None = None) -> None:
    """Switch the request metrics of ``app`` and of all that is mounted in it off.

    Unless they were given a MeterProvider of their own, which nothing else writes to. ``traces``: their spans as well,
    because somebody else makes them.
    """
    seen = set() if _seen is None else _seen
    if id(app) in seen:
        return
    seen.add(id(app))
    settings = getattr(app, "_telemetry", None)  # without it (Starlette, older FastAPI) there is nothing to do
    if isinstance(settings, dict):
        given = settings.get("meter_provider")
        if given is None or given is metrics.get_meter_provider():
            settings["metrics"] = False
        if traces:
            settings["tracing"] = False
        _shorten(getattr(app, "_native_telemetry", None), settings)
    for route in getattr(app, "routes", None) or ():
        inner = getattr(route, "app", None)
        while inner is not None and id(inner) not in seen:
            still(inner, traces, seen)
            inner = getattr(inner, "app", None)


def _shorten(native: Any, settings: dict[str, Any]) -> None:
    """Answer ``enabled()`` at once while no provider is set anywhere."""
    original = getattr(native, "enabled", None)
    if original is None or "enabled" in vars(native):
        return
    nobody = _nobody()
    if nobody is None or any(name in os.environ for name in VARIABLES):
        return

    def enabled() -> bool:
        if nobody() and not settings["metrics"] and not any(settings.get(name) for name in PROVIDERS):
            return False
        answer: bool = original()
        return answer

    native.enabled = enabled


def _nobody() -> Callable[[], bool] | None:
    """Whether OpenTelemetry's API has no tracer and no logger provider: its variables, without a look at the
    environment."""
    from opentelemetry._logs import _internal as logs

    if not hasattr(trace, "_TRACER_PROVIDER") or not hasattr(logs, "_LOGGER_PROVIDER"):
        return None
    return lambda: trace._TRACER_PROVIDER is None and logs._LOGGER_PROVIDER is None
