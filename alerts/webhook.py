"""Alertmanager's webhook, version 4: JSON in, alerts out. https://prometheus.io/docs/alerting/latest/configuration/"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from .model import Alert

MAX_ALERTS: Final = 1000


class WebhookError(Exception):
    """A body that is no webhook. The text says where it is wrong, what was found and what is allowed."""


@dataclass(frozen=True, slots=True)
class Post:
    """What was posted: alerts of the group ``origin``, all of them that are not held back where it is ``whole``."""

    alerts: tuple[Alert, ...]
    origin: str
    whole: bool


def post_from_webhook(body: bytes, now: float) -> Post:
    """What a webhook body says. Raises :class:`WebhookError`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise WebhookError(f"the body is no JSON{where}") from None
    if not isinstance(document, dict):
        raise WebhookError(f"the body is {_kind(document)}, not an object")
    if document.get("version") != "4":
        raise WebhookError('"version" is not "4": this is not Alertmanager\'s webhook')
    items = document.get("alerts")
    if not isinstance(items, list) or not items:
        raise WebhookError('"alerts" is not a list with at least one alert')
    if len(items) > MAX_ALERTS:
        raise WebhookError(f'"alerts" holds {len(items)}; at most {MAX_ALERTS} are taken at once')
    alerts = tuple(alert_from_webhook(item, now, f"alerts[{index}]") for index, item in enumerate(items))
    # A receiver may post to us for several routes; of a group's key only its sameness counts.
    parts = (str(document.get("receiver")), str(document.get("groupKey")))
    origin = hashlib.blake2s("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Post(alerts, origin, not document.get("truncatedAlerts"))


def alert_from_webhook(item: object, now: float, where: str = "alert") -> Alert:
    """One element of ``alerts``. ``now`` stands in for the end of a resolved alert that states none."""
    if not isinstance(item, dict):
        raise WebhookError(f"{where} is {_kind(item)}, not an object")
    status = item.get("status")
    if status not in ("firing", "resolved"):
        raise WebhookError(f'{where}.status is neither "firing" nor "resolved"')
    starts_at = _time(item.get("startsAt"), f"{where}.startsAt")
    ends_at = None
    if status == "resolved":
        # Alertmanager writes the year 1 where there is no end.
        given = _time(item.get("endsAt"), f"{where}.endsAt") if item.get("endsAt") else 0.0
        ends_at = given if given > 0 else now
    url = item.get("generatorURL", "")
    return Alert(
        _texts(item.get("labels"), f"{where}.labels"),
        _texts(item.get("annotations", {}), f"{where}.annotations"),
        starts_at,
        ends_at,
        url if isinstance(url, str) and _encodable(url) else "",
    )


def _texts(value: object, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise WebhookError(f"{where} is {_kind(value)}, not an object")
    for text in value.values():
        if not isinstance(text, str):
            raise WebhookError(f"{where} holds {_kind(text)}; only texts are allowed")
    if not all(_encodable(name) and _encodable(text) for name, text in value.items()):
        raise WebhookError(f"{where} holds half a surrogate pair, which is no text")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(value: object, where: str) -> float:
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    raise WebhookError(f"{where} is no time such as 2026-01-31T14:02:10Z")


def _kind(value: Any) -> str:
    words = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else words[type(value)]
