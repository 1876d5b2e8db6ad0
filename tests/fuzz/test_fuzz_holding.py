"""Whatever is sent to the API of silences and acknowledgements, or to a link: an answer with a reason, no failure."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from anvil_monitor.alerts import actions, holdingapi
from anvil_monitor.alerts.links import Links
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox

NOW = 1_800_000_000.0
FIRES = Alert({"alertname": "A", "service": "shop"}, {"summary": "<b>"}, NOW - 60)
GOOD = {"matchers": ["service=shop"], "for": "2h", "author": "Ada", "reason": "move", "alert": FIRES.fingerprint[:6]}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=50)
    | st.sampled_from(["a=b", "a=~(", 'a="', "9" * 400 + "w", "999999w", "x" * 600]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["name", "value", "isRegex", "isEqual", "other"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
bodies = st.dictionaries(st.sampled_from([*GOOD, "createdBy", "comment"]), values, max_size=5).map(
    lambda some: {**GOOD, **some}
)


@pytest.fixture(scope="module")
def app() -> Iterator[Starlette]:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        outbox = Outbox(Path(folder) / "outbox.sqlite3")
        held = holdingapi.routes(outbox, lambda: [FIRES], lambda: NOW, executor)
        links = Links("http://monitor.test", bytes(32))
        acting = actions.routes(links, outbox, lambda: [FIRES], lambda: b"", lambda: NOW, executor)
        yield Starlette(routes=[*held, *acting])
        outbox.close()


def ask(app: Starlette, method: str, path: str, **more: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://monitor.test") as http:
            return await http.request(method, path, **more)

    return asyncio.run(go())


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(["silences", "acks"]), body=bodies)
def test_any_object(app: Starlette, path: str, body: dict[str, Any]) -> None:
    """A failure inside would be raised here; a refusal says why."""
    answer = ask(app, "POST", f"/api/v1/{path}", json=body)
    assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert answer.json()["error"]
    assert ask(app, "GET", f"/api/v1/{path}").status_code == 200


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST"]),
    action=st.sampled_from(["ack", "silence", "other"]),
    asked=st.dictionaries(st.sampled_from(["of", "until", "sign"]), st.text(max_size=60)),
)
def test_any_link(app: Starlette, method: str, action: str, asked: dict[str, str]) -> None:
    """What is not signed by us does nothing."""
    asked = {name: value.encode("utf-8", "replace").decode() for name, value in asked.items()}
    assert ask(app, method, f"/act/{action}", params=asked).status_code in (403, 404)


@pytest.mark.parametrize("number", ["0", "-1", "x", "9" * 30, "1/2"])
def test_a_silence_that_cannot_be(app: Starlette, number: str) -> None:
    """Any number and none: there is no such silence."""
    assert ask(app, "DELETE", f"/api/v1/silences/{number}").status_code == 404


@pytest.mark.parametrize("until", ["²", "١٢٣", "-1", "1e9", "9" * 5000, ""])
def test_a_signed_link_with_an_odd_time(app: Starlette, until: str) -> None:
    """Not even with our own signature."""
    links = Links("http://monitor.test", bytes(32))
    asked = {"of": FIRES.fingerprint, "until": until, "sign": links._sign("ack", FIRES.fingerprint, until)}
    assert ask(app, "GET", "/act/ack", params=asked).status_code == 403
