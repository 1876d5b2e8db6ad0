"""The runbooks: there for each alert, filled in for whoever reads them, and no more than text."""

from __future__ import annotations

import re

import pytest

from anvil_monitor.alerts import runbooks
from anvil_monitor.alerts.rulefile import Alerting
from anvil_monitor.alerts.ruleparts import Links
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.targets.load import parse

CHANNEL = '[channels.team]\nurl = "env:TEAM_URL"\n'


def url_of(text: str, alert: str, **labels: str) -> str:
    for group in rule_groups(parse(CHANNEL + text)):
        for rule in group.rules:
            if isinstance(rule, Alerting) and rule.alert == alert and labels.items() <= rule.labels.items():
                return rule.annotations["runbook_url"]
    raise AssertionError(f"no {alert}")


@pytest.mark.parametrize(
    ("text", "alert", "url"),
    [
        ("", "TargetMissed", "http://127.0.0.1:9109/runbooks/TargetMissed/app/memory"),
        ("", "ServiceDown", "http://127.0.0.1:9109/runbooks/ServiceDown/app"),
        ("", "HostDiskFilling", "http://127.0.0.1:9109/runbooks/HostDiskFilling"),
        (
            '[monitor]\nexternal_url = "https://m.example.com/anvil/"\n',
            "TargetMissed",
            "https://m.example.com/anvil/runbooks/TargetMissed/app/memory",
        ),
        (
            '[monitor]\nrunbooks = "https://wiki.example.com/{service}/{alert}#{target}"\n',
            "TargetMissed",
            "https://wiki.example.com/app/TargetMissed#memory",
        ),
        (
            '[monitor]\nrunbooks = "https://wiki.example.com/{service}/{alert}#{target}"\n',
            "HostDiskFilling",
            "https://wiki.example.com/HostDiskFilling",
        ),
    ],
)
def test_where_a_message_leads(text: str, alert: str, url: str) -> None:
    """To the page at its external address, or to the user's wiki; what an alert has no name for is left out."""
    labels = {"target": "memory"} if alert == "TargetMissed" else {}
    assert url_of(text, alert, **labels) == url


def test_the_dashboard_link_leads_to_the_card() -> None:
    """The page's address ends with service and target, as far as there are any."""
    links = Links.to_page(parse("").monitor)
    assert links.of("shop", "memory", "TargetMissed")["dashboard"] == "http://127.0.0.1:9109/#shop/memory"
    assert links.of("shop", "", "ServiceDown")["dashboard"] == "http://127.0.0.1:9109/#shop"
    assert links.of("", "", "HostMemoryLow")["dashboard"] == "http://127.0.0.1:9109/"


def test_commands_are_filled_in() -> None:
    """Address, service and target of who reads stand in every command; the other pages keep their addresses."""
    for name in runbooks.names():
        text = runbooks.text(name, lambda other: f"there/{other}", "https://m.example.com", "shop-1", "page_time")
        assert text is not None
        assert "127.0.0.1:9109" not in text
        assert not re.search(r'service=~?"?app\b', text), name
        assert " target=memory" not in text
        for other in re.findall(r"\]\(([^)]+)\)", text):
            assert other.removeprefix("there/") in runbooks.names()
    missed = runbooks.text("TargetMissed", None, "", "shop-1", "page_time") or ""
    assert 'service="shop-1"}' in missed
    assert "service=shop-1 target=page_time --for 2h" in missed


@pytest.mark.parametrize(
    "hostile", ["$(reboot)", 'a";reboot;"', "a b", "<script>", "x" * 100, "../../etc/passwd", "`x`"]
)
def test_what_is_no_name_is_not_filled_in(hostile: str) -> None:
    """Nothing gets into a command that a shell could read as more than a name."""
    assert runbooks.text("TargetMissed", service=hostile, target=hostile) == runbooks.text("TargetMissed")
    assert runbooks.text(hostile) is None


def test_a_command_asks_for_a_token_without_holding_it() -> None:
    """With a token the commands send $TOKEN; where it is from is not told."""
    asked = runbooks.asked_at(parse('[monitor]\ntoken = "env:THE_SECRET"\n').monitor)
    assert asked == '-H "Authorization: Bearer $TOKEN" http://127.0.0.1:9109'


def test_html_is_only_markdown() -> None:
    """Markup is shown, not made; a link that would run something is none; what is wide scrolls by itself."""
    made = runbooks.body(
        "# A\n\n<script>x()</script> [a](javascript:x()) [b](Other)\n\n```sh\necho '<b>'\n```\n\n| a |\n|---|\n| b |\n"
    )
    assert "<script" not in made
    assert "javascript:x" not in made.replace("(javascript:x())", "")
    assert '<a href="Other">b</a>' in made
    assert '<pre tabindex="0"><code>echo &#x27;&lt;b&gt;&#x27;\n</code></pre>' in made
    assert '<div class="wide" tabindex="0"><table>' in made
