"""What the notifier asks of Prometheus: the last hour for a picture, a value for the wording, whether an alert fires.

Without an answer a message goes without: every question has seconds, and its answer so many bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from .model import Alert
from .outcomes import describe
from .ruleparts import VALUE, quoted

logger = logging.getLogger(__name__)

Read = TypeVar("Read")

TIMEOUT: Final = 2.0  # seconds for one question and its whole answer
LARGEST: Final = 4 << 20  # bytes; an hour of one target takes 4 kB, a thousand alerts 1 MB
# Seconds between two points of a picture: two for each of its columns would say no more.
STEP: Final = 30.0
# Seconds that the values are good for: a message may tell of ten targets that recovered.
FRESH: Final = 2.0


class PrometheusError(Exception):
    """Why there is no answer."""


def past(alert: Alert) -> str:
    """The query for what the target of ``alert`` measured."""
    return f"{VALUE}{{service={quoted(alert.service)},target={quoted(alert.labels.get('target', ''))}}}"


class Prometheus:
    """Asks the Prometheus at ``url``. Its methods block for :data:`TIMEOUT` at most: not for the event loop."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url.rstrip("/")
        self._clock = clock
        self._trouble = ""
        self._values: dict[tuple[str, str], float] = {}
        self._at = -math.inf

    def history(self, alert: Alert, start: float, end: float) -> Sequence[tuple[float, float]]:
        """The values of the alert's target from ``start`` to ``end``; none where they cannot be had."""

        def points(data: Any) -> Sequence[tuple[float, float]]:
            found = [series["values"] for series in data["result"]]
            return [(float(at), float(value)) for at, value in found[0]] if found else ()

        asked = {"query": past(alert), "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{STEP:g}"}
        return self._ask("query_range", asked, points) or ()

    def measure(self, alert: Alert) -> float | None:
        """What the target of ``alert`` measures now; ``None`` where that is not known."""
        if self._clock() >= self._at + FRESH:
            # One question for all, and no second one at once where it failed.
            self._values, self._at = self._ask("query", {"query": VALUE}, _by_target) or {}, self._clock()
        return self._values.get((alert.service, alert.labels.get("target", "")))

    def fires(self, alerts: Sequence[Alert]) -> dict[str, bool | None]:
        """Which of ``alerts`` fire there, by fingerprint; ``None`` for all where it does not say.

        One that is about to fire counts, too: so it is after a start of Prometheus. What Prometheus tells Alertmanager
        may have labels besides its own (``external_labels``).
        """
        there = self._ask("alerts", {}, lambda data: [set(one["labels"].items()) for one in data["alerts"]])
        if there is None:
            return nobody_knows(alerts)
        return {alert.fingerprint: any(labels <= set(alert.labels.items()) for labels in there) for alert in alerts}

    def _ask(self, path: str, parameters: dict[str, str], read: Callable[[Any], Read]) -> Read | None:
        """What ``read`` makes of the data of its answer, ``None`` where there is none; the log says why once."""
        try:
            found = read(asyncio.run(self._answer(path, parameters)))
        except PrometheusError as error:
            trouble = str(error)
        except (ValueError, KeyError, TypeError, AttributeError):
            trouble = "it answers otherwise than a Prometheus does"
        else:
            self._trouble = ""
            return found
        if trouble != self._trouble:
            logger.warning("Prometheus (%s) is asked in vain: %s", path, trouble)
        self._trouble = trouble
        return None

    async def _answer(self, path: str, parameters: dict[str, str]) -> Any:
        import httpx

        body = bytearray()
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client,
                client.stream("GET", f"{self._url}/api/v1/{path}", params=parameters) as answer,
            ):
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > LARGEST:
                        raise PrometheusError(f"its answer is larger than {LARGEST} bytes")
            return json.loads(body)["data"]
        except TimeoutError:
            raise PrometheusError(f"no answer within {TIMEOUT:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise PrometheusError(describe(error)) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PrometheusError(f"it answers HTTP {answer.status_code}, but not as a Prometheus does") from None


def _by_target(data: Any) -> dict[tuple[str, str], float]:
    return {
        (series["metric"].get("service", ""), series["metric"].get("target", "")): float(series["value"][1])
        for series in data["result"]
    }


def nobody_knows(alerts: Sequence[Alert]) -> dict[str, bool | None]:
    """Where there is no Prometheus to be asked."""
    return dict.fromkeys((alert.fingerprint for alert in alerts), None)
