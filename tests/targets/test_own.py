"""Targets that users write themselves: what may be said, what it becomes, and every mistake with its line."""

from __future__ import annotations

import pytest

from anvil_monitor.targets import ConfigurationError, Direction, Formula, Level, Mean, Percentile, Target, Unit
from anvil_monitor.targets.load import parse

OWN = """
[targets.checkout]
kind = "percentile"
metric = 'http_server_request_duration_seconds{http_route="/checkout/{id}"}'
percentile = 99
at_most = "500ms"
[targets.job_time]
kind = "mean"
metric = "job_duration_seconds"
at_most = "30s"
[targets.queue]
kind = "gauge"
title = "Mail queue"
metric = 'jobs_waiting{queue="mail"}'
at_most = 100
[targets.free]
kind = "gauge"
metric = "cache_free_bytes"
at_least = "1GB"
[targets.good_orders]
kind = "ratio"
good = 'orders_total{result="ok"}'
total = "orders_total"
at_least = "99.5%"
floor = 50
[targets.signups]
kind = "rate"
metric = "signups_total"
at_least = 0.1
[targets.backlog]
kind = "expression"
expr = 'sum by (queue) (jobs_waiting{service="$service"}) / 10'
at_most = 5
window = "10m"
for = "2m"
"""


def own(text: str = OWN) -> dict[str, Target]:
    return {target.name: target for target in parse(text).targets}


def test_each_kind_becomes_its_indicator() -> None:
    """Percentile, mean and gauge with their matchers; ratio, rate and expression as formulas of service and window."""
    found = own()
    route = 'http_route="/checkout/{id}"'
    assert found["checkout"].indicator == Percentile("http_server_request_duration_seconds", 0.99, route)
    assert found["job_time"].indicator == Mean("job_duration_seconds")
    assert found["queue"].indicator == Level("jobs_waiting", 'queue="mail"')
    for name in ("good_orders", "signups", "backlog"):
        assert isinstance(found[name].indicator, Formula)
    assert found["good_orders"].floor == 50
    assert (found["backlog"].window, found["backlog"].hold) == (600, 120)
    assert found["api_response_time"].limit == 0.2  # the shipped ones stay


def test_limits_have_the_unit_of_what_is_measured() -> None:
    """The unit comes from the metric's name, or is said; a share is written in percent."""
    promises = {name: (target.promise, target.unit, target.direction) for name, target in own().items()}
    assert promises["checkout"] == ("< 500 ms", Unit.SECONDS, Direction.BELOW)
    assert promises["queue"] == ("< 100", Unit.NUMBER, Direction.BELOW)
    assert promises["free"] == ("> 1 GB", Unit.BYTES, Direction.ABOVE)
    assert promises["good_orders"] == ("> 99.5 %", Unit.PERCENT, Direction.ABOVE)
    said = own('[targets.load]\nkind = "expression"\nexpr = "load"\nunit = "percent"\nat_most = "80%"')["load"]
    assert (said.limit, said.promise) == (0.8, "< 80 %")


def test_a_target_of_ones_own_is_watched_where_it_says() -> None:
    """By default of every service; ``services`` chooses, ``enabled = false`` switches off."""
    two = '[[service]]\nname = "a"\n[[service]]\nname = "b"\n[targets.q]\nkind = "gauge"\nmetric = "q"\nat_most = 1\n'
    assert [target.service for target in parse(two).targets if target.name == "q"] == ["a", "b"]
    assert [target.service for target in parse(f'{two}services = ["b"]').targets if target.name == "q"] == ["b"]
    assert "q" not in own(f"{two}enabled = false")


MISTAKES = {
    "no kind": ("[targets.x]\nlimit = 3", 1, "unknown target 'x'"),
    "another kind": ('[targets.x]\nkind = "gage"', 2, "did you mean 'gauge'?"),
    "a kind that is no text": ("[targets.x]\nkind = 3", 2, "must be text"),
    "a kind for a shipped target": ('[targets.memory]\nkind = "gauge"', 2, "unknown key 'kind'"),
    "no bound": ('[targets.x]\nkind = "gauge"\nmetric = "a"', 1, "exactly one of at_most or at_least"),
    "both bounds": ('[targets.x]\nkind = "gauge"\nmetric = "a"\nat_most = 1\nat_least = 2', 5, "exactly one of"),
    "a slow promise": ('[targets.x]\nkind = "mean"\nmetric = "a"\nat_least = 1', 4, "unknown key 'at_least'"),
    "a limit of nothing": ('[targets.x]\nkind = "gauge"\nmetric = "a"\nat_most = 0', 4, "must be a number more than 0"),
    "a time without a unit": ('[targets.x]\nkind = "mean"\nmetric = "a_seconds"\nat_most = "1"', 4, "needs a unit"),
    "a share that is no share": ('[targets.x]\nkind = "ratio"\ngood = "a"\ntotal = "b"\nat_least = 3', 5, '"99.5%"'),
    "more than all": ('[targets.x]\nkind = "ratio"\ngood = "a"\ntotal = "b"\nat_least = "101%"', 5, '"99.5%"'),
    "no metric": ('[targets.x]\nkind = "gauge"\nmetric = "a b"\nat_most = 1', 3, "must be a metric"),
    "a matcher without quotes": ('[targets.x]\nkind = "gauge"\nmetric = "a{b=c}"\nat_most = 1', 3, "must be a metric"),
    "an attempt on the message": (
        "[targets.x]\nkind = \"gauge\"\nmetric = 'a{b=\"`}}\"}'\nat_most = 1", 3, "must be a metric"),
    "a service of its own": (
        "[targets.x]\nkind = \"gauge\"\nmetric = 'a{b=\"c\", service=\"d\"}'\nat_most = 1", 3, "it is added by itself"),
    "a part of a histogram": ('[targets.x]\nkind = "mean"\nmetric = "a_sum"\nat_most = 1', 3, "without _sum"),
    "no PromQL": ('[targets.x]\nkind = "expression"\nexpr = "sum(("\nat_most = 1', 3, "gives no series"),
    "a number": ('[targets.x]\nkind = "expression"\nexpr = "1"\nat_most = 1', 3, "got scalar"),
    "nothing": ('[targets.x]\nkind = "expression"\nat_most = 1', 1, "it is empty"),
    "a short window": ('[targets.x]\nkind = "gauge"\nmetric = "a"\nat_most = 1\nwindow = "1s"', 5, "four scrapes"),
    "another unit": ('[targets.x]\nkind = "gauge"\nmetric = "a"\nat_most = 1\nunit = "second"', 5, "one of seconds"),
    "a template as title": ('[targets.x]\nkind = "gauge"\nmetric = "a"\nat_most = 1\ntitle = "{{ 1 }}"', 5, "no title"),
    "a name with a space": ('[targets."a b"]\nkind = "gauge"\nmetric = "a"\nat_most = 1', 1, "is not allowed"),
    "another service": (
        '[targets.x]\nkind = "gauge"\nmetric = "a"\nat_most = 1\nservices = ["b"]', 5, "unknown service"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(text: str, line: int, says: str) -> None:
    """Each is refused, with the line on which it stands and what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert [problem.line for problem in caught.value.problems if says in str(problem)] == [line], caught.value
