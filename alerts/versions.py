"""Since which deploy: what the rules know of the newest version of a service, as a message says it."""

from __future__ import annotations

import math
from collections.abc import Callable

from anvil_monitor.targets import format_duration

from .model import Alert


def since_deploy(alert: Alert, clock: Callable[[float], str]) -> str:
    """``1.4.2, first seen 14:02:10 CET, 8 min before`` the alert began; empty where no version is known.

    The annotations may come from anybody: what is no time is left out.
    """
    version, at = alert.annotations.get("version", ""), _seconds(alert.annotations.get("deploy", ""))
    if not version or at is None:
        return version
    apart = alert.starts_at - at
    when = f"{format_duration(math.floor(abs(apart)))} {'before' if apart >= 0 else 'after'} it began"
    return f"{version}, first seen {clock(at)}, {when}"


def _seconds(text: str) -> float | None:
    try:
        at = float(text)
    except ValueError:
        return None
    return at if math.isfinite(at) and at > 0 else None
