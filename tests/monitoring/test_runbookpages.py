"""The runbooks where people read them: on the monitor's page, and in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from anvil_monitor.alerts import runbooks
from anvil_monitor.alerts.rulefile import Alerting
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring import cli
from anvil_monitor.targets import Configuration, Secret

TOKEN = Secret("env:MONITOR_TOKEN")


@pytest.fixture
def running(configuration: Configuration, start: Callable[..., Any]) -> Any:
    """A monitor that asks for a token, known to people under an address of its own."""
    monitor = replace(configuration.monitor, token=TOKEN, external_url="https://monitor.test")
    return start(replace(configuration, monitor=monitor), MONITOR_TOKEN="hush-hush")


def test_the_link_of_every_alert_opens(running: Any, configuration: Configuration) -> None:
    """Each rule's runbook address, as a message has it, answers with its page, from a phone without the token."""
    monitor = replace(configuration.monitor, external_url="https://monitor.test")
    rules = [rule for group in rule_groups(replace(configuration, monitor=monitor)) for rule in group.rules]
    urls = {rule.annotations["runbook_url"]: rule.alert for rule in rules if isinstance(rule, Alerting)}
    assert set(urls.values()) == set(runbooks.names())
    with httpx.Client(base_url=running.url, headers={"Host": "monitor.test"}) as phone:
        for url, alert in urls.items():
            page = phone.get(url.removeprefix("https://monitor.test"))
            assert page.status_code == 200, url
            assert f"<h1>{alert}</h1>" in page.text
            assert "script" not in page.headers["content-security-policy"]
            assert "127.0.0.1:9109" not in page.text
        assert phone.get("/").status_code == 401


def test_a_runbook_leads_on(running: Any) -> None:
    """Its links keep service and target; the list, the style and the way back are where the page says."""
    with httpx.Client(base_url=running.url) as phone:
        page = phone.get("/runbooks/TargetMissed/shop/memory")
        assert '<a href="../../CapacityShort/shop/memory">' in page.text
        assert "service=shop target=memory" in page.text
        base = httpx.URL(f"{running.url}/runbooks/TargetMissed/shop/memory")
        assert base.join("../../CapacityShort/shop/memory").path == "/runbooks/CapacityShort/shop/memory"
        assert 'href="../../page.css"' in page.text
        assert phone.get(base.join("../../page.css")).headers["content-type"].startswith("text/css")
        listed = phone.get("/runbooks/")
        assert all(f'<a href="{name}">' in listed.text for name in runbooks.names())


@pytest.mark.parametrize("path", ["Nothing", "..%2f..%2fpyproject", "<script>alert(1)</script>", "page", "__init__"])
def test_what_is_no_runbook_is_not_there(running: Any, path: str) -> None:
    """404, and nothing of the address becomes markup."""
    answer = httpx.get(f"{running.url}/runbooks/{path}")
    assert answer.status_code in (401, 404)  # what a slash makes another address of asks for the token
    assert "<script>" not in answer.text


def test_in_the_terminal(configuration_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name a list; with one the text for this service; a misspelt one with a guess."""
    assert cli.main(["runbook"]) == 0
    assert capsys.readouterr().out.split() == list(runbooks.names())
    config = ["--config", str(configuration_file)]
    assert cli.main(["runbook", "targetmissed", "service=shop", "target=memory", *config]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# TargetMissed")
    assert "service=shop target=memory --for 2h" in out
    assert cli.main(["runbook", "TargetMised", *config]) == 2
    assert "did you mean TargetMissed" in capsys.readouterr().err
