"""The last hour of a target, as a message's picture is drawn from it."""

from __future__ import annotations

import pytest

from anvil_monitor.alerts.letters import picture
from anvil_monitor.alerts.model import Alert
from anvil_monitor.monitoring.past import past
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store

NOW = 1_800_000_000


@pytest.fixture
def engine() -> Engine:
    """An hour of two targets, one of a service with a name that would end a string of PromQL."""
    store = Store()
    for at in range(NOW - 3600, NOW + 1, 30):
        rows = [
            (labels_of(__name__="target:value", service=service, target="memory", unit="bytes"), value)
            for service, value in (("app", float(at - NOW + 3600)), ('a"} or {b="', 7.0))
        ]
        store.append(at * 1000, rows)
    return Engine(store)


def alert(service: str, target: str = "memory") -> Alert:
    return Alert({"service": service, "target": target}, {"limit": "1800", "unit": "bytes"}, float(NOW))


def test_it_is_the_recorded_series_of_the_target(engine: Engine) -> None:
    """Every half minute of the hour, of that service and target alone; nothing of one that is not there."""
    points = past(engine.range)(alert("app"), NOW - 3600.0, float(NOW))
    assert points[0] == (NOW - 3600.0, 0.0)
    assert points[-1] == (float(NOW), 3600.0)
    assert len(points) == 121
    assert {value for _, value in past(engine.range)(alert('a"} or {b="'), NOW - 3600.0, float(NOW))} == {7.0}
    assert list(past(engine.range)(alert("app", "nothing"), NOW - 3600.0, float(NOW))) == []


def test_a_picture_is_drawn_of_it(engine: Engine) -> None:
    """A PNG; of a target without values none."""
    assert picture(alert("app"), past(engine.range), float(NOW)).startswith(b"\x89PNG")
    assert picture(alert("app", "nothing"), past(engine.range), float(NOW)) == b""
