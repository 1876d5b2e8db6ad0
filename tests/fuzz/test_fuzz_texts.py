"""Parsers of texts that come from elsewhere: a scraped server's metrics, monitor.toml, rule files."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from hostile import bounded, mutations
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil_monitor.alerts import rulefile
from anvil_monitor.monitoring.parse import ExpositionError, Parser
from anvil_monitor.targets import ConfigurationError
from anvil_monitor.targets.load import parse

METRICS = b"""# HELP http_requests_total The total.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400",} 3 # {trace_id="abc"} 1.0
msdos_file_access_time_seconds{path="C:\\\\DIR\\\\FILE.TXT",error="Cannot find file:\\n\\"FILE.TXT\\""} 1.458255915e9
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by zero"} +Inf -3982045
request_seconds_bucket{le="0.05"} 24054
request_seconds_sum 53423
# EOF
"""
TOML = (resources.files("anvil_monitor.targets") / "template.toml").read_bytes()
MORE_TOML = b"""[[service]]
name = "shop"
url = "http://127.0.0.1:8000"
probes = ["http://127.0.0.1:8000/a"]
pages = ["/products/{id}", "/docs/{rest:path}"]
origins = ["https://www.example.com"]
metrics_token = "env:TOKEN"
[targets.api_response_time]
limit = "200ms"
percentile = 95
for = "1m"
services = ["shop"]
[channels.team]
url = "env:TEAM"
severities = ["critical"]
[monitor]
listen = "127.0.0.1:9109"
scrape_interval = "5s"
"""
RULES = b"""groups:
- name: shop
  interval: 5s
  labels: {team: a}
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: TargetMissed
    expr: 'histogram_quantile(0.95, sum by (le) (rate(x_bucket{job=~"a|b"}[5m]))) > 0.2'
    for: 1m
    keep_firing_for: 30s
    labels: {severity: critical}
    annotations:
      summary: "{{ $labels.job }} is at {{ $value | humanize }}"
"""
DEEP = 6_000


def exposition(body: bytes) -> object:
    return Parser({"job": "a"}).parse(body.decode("utf-8", "replace"))


def configuration(body: bytes) -> object:
    return parse(body.decode("utf-8", "replace"), Path("monitor.toml"), {})


def rules(body: bytes) -> object:
    return rulefile.load(body.decode("utf-8", "replace"), Path("rules.yml"))


READERS: dict[str, tuple[Callable[[bytes], object], type[Exception], list[bytes], list[bytes], int]] = {
    "metrics of a server": (
        exposition, ExpositionError, [METRICS],
        [b"{", b'="', b"} ", b"# TYPE ", b" # {", b"\t", b"nan", b"1e400", b"\\n"], 10_000),
    "monitor.toml": (
        configuration, ConfigurationError, [TOML, MORE_TOML],
        [b"[monitor]\n", b"[[service]]\n", b"1979-05-27T07:32:00Z", b'"""', b"name", b"0x", b"a.b = 1\n"], 1_500),
    "rule file": (
        rules, ConfigurationError, [RULES],
        [b"&a ", b"*a", b"<<: ", b"!!python/object:os.system ", b"? ", b"\t", b"- ", b"{{ ", b"}}", b"[5m]"], 1_000),
}  # fmt: skip


@pytest.mark.parametrize("what", READERS)
def test_changed_texts(what: str) -> None:
    """Each is read, or refused with the reader's own error, on one line a problem; memory does not grow."""
    read, error, seeds, pieces, count = READERS[what]

    def work(body: bytes) -> None:
        try:
            read(body)
        except error as problem:
            assert str(problem)

    for seed in seeds:
        read(seed)
    bounded(work, mutations(seeds, count, 3, pieces), 20_000_000)


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize(
    "body",
    [
        b"a = " + b"[" * DEEP,
        b"a = " + b"{b=" * DEEP,
        b"[" + b"a." * 3000 + b"a]",
        b"a" + b".a" * 3000 + b" = 1",
        b"- " * DEEP,
        b"[" * DEEP,
        b"{a: " * DEEP,
        b"".join(b"%sa:\n" % (b" " * depth) for depth in range(2000)),
        b"\0" * DEEP,
        b'a{b="' + b"\\" * DEEP,
        b"a{" + b'b="c",' * DEEP + b"} 1",
        b"#" * DEEP,
        b" " * DEEP,
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("k"))),
        b"groups: &g\n- name: a\n  rules: *g\n",
        b"groups:\n- name: a\n  rules:\n  - record: a\n    expr: '" + b"(" * DEEP + b"'\n",
        b"groups:\n- name: a\n  rules:\n  - record: a\n    expr: '" + b"-" * DEEP + b"1'\n",
        b"groups:\n- name: a\n  rules:\n  - record: a\n    expr: '" + b"a+" * DEEP + b"a'\n",
        b"groups:\n- name: a\n  rules:\n  - alert: a\n    expr: a\n    annotations: {b: '" + b"{{" * DEEP + b"'}\n",
        b"groups:\n- name: a\n  rules:\n  - alert: a\n    expr: a\n    annotations: {b: '{{" + b'""' * 40 + b"'}\n",
    ],
    ids=range(20),
)
def test_shapes_that_exhaust(what: str, body: bytes) -> None:
    """Depth, references and repetition end in a refusal, or in nothing, soon: never in a crash of the interpreter."""
    read, error, *_ = READERS[what]
    try:
        read(body)
    except error as problem:
        assert str(problem)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from('ab_:{}="\\\n\t ,#1.eE+-0NnIif\u00e9\r'), max_size=80))
def test_any_exposition(text: str) -> None:
    """What is read has a name and labels of text, and as many values as series."""
    try:
        series, values = Parser({}).parse(text)
    except ExpositionError:
        return
    assert len(series) == len(values)
    assert all(dict(labels)["__name__"] for labels in series)
    assert all(isinstance(value, float) or math.isnan(value) for value in values)


def test_a_parser_forgets_what_a_target_no_longer_says() -> None:
    """A server that invents series at every scrape fills no memory of the monitor's."""
    parser, scrape = Parser({}), 0

    def work(_: bytes) -> None:
        nonlocal scrape
        scrape += 1
        parser.parse("".join(f'a{{id="{scrape}-{n}-{"x" * 50}"}} 1\n' for n in range(50)))

    bounded(work, [b""] * 2_000)
