"""What the notifier asks of Prometheus: the last hour for a picture, a value for the wording, whether an alert fires.

Without an answer a message goes without: every question has seconds, and its answer so many bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from .model import Alert
from .outcomes import describe
from .ruleparts import VALUE, quoted

logger = logging.getLogger(__name__)

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
        with contextlib.suppress(PrometheusError):
            asked = {"query": past(alert), "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{STEP:g}"}
            for series in self._result("query_range", asked):
                return [(float(at), float(value)) for at, value in series["values"]]
        return ()

    def measure(self, alert: Alert) -> float | None:
        """What the target of ``alert`` measures now; ``None`` where that is not known."""
        if self._clock() >= self._at + FRESH:
            # One question for all, and no second one at once where it failed.
            found: dict[tuple[str, str], float] = {}
            with contextlib.suppress(PrometheusError):
                for series in self._result("query", {"query": VALUE}):
                    labels = series["metric"]
                    found[labels.get("service", ""), labels.get("target", "")] = float(series["value"][1])
            self._values, self._at = found, self._clock()
        return self._values.get((alert.service, alert.labels.get("target", "")))

    def fires(self, alerts: Sequence[Alert]) -> dict[str, bool | None]:
        """Which of ``alerts`` fire there, by fingerprint; ``None`` for all where it does not say.

        One that is about to fire counts, too: so it is after a start of Prometheus. What Prometheus tells Alertmanager
        may have labels besides its own (``external_labels``).
        """
        there: list[set[tuple[str, str]]] = []
        try:
            there += [set(one["labels"].items()) for one in self._ask("alerts", {})["alerts"]]
        except (PrometheusError, KeyError, TypeError, AttributeError):
            return dict.fromkeys((alert.fingerprint for alert in alerts), None)
        return {alert.fingerprint: any(labels <= set(alert.labels.items()) for labels in there) for alert in alerts}

    def _result(self, path: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        try:
            return list(self._ask(path, parameters)["result"])
        except (KeyError, TypeError, ValueError):
            raise PrometheusError("it answers otherwise than a Prometheus") from None

    def _ask(self, path: str, parameters: dict[str, str]) -> Any:
        """The data of its answer; what is wrong is told in the log once."""
        try:
            data = asyncio.run(self._answer(path, parameters))
        except PrometheusError as error:
            if str(error) != self._trouble:
                logger.warning("Prometheus (%s) is asked in vain: %s", path, error)
            self._trouble = str(error)
            raise
        self._trouble = ""
        return data

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


def nobody_knows(alerts: Sequence[Alert]) -> dict[str, bool | None]:
    """Where there is no Prometheus to be asked."""
    return dict.fromkeys((alert.fingerprint for alert in alerts), None)
