"""``monitor.toml``: defaults, values, and every mistake at once with its line and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anvil_monitor.targets import ConfigurationError, Percentile, ProcessFinder, find_configuration, load
from anvil_monitor.targets.load import parse

PROMISES = {
    "api_response_time": "< 200 ms",
    "frontend_load_time": "< 2 s",
    "db_query_time": "< 50 ms",
    "memory": "< 500 MB",
    "concurrent_users": "100+ users",
}


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def test_empty_file_watches_the_five_targets() -> None:
    """An empty file is a whole configuration: the five Phase 2 promises of a server on port 8000."""
    configuration = parse("")
    assert {target.name: target.promise for target in configuration.targets} == PROMISES
    assert configuration.services[0].metrics_url == "http://127.0.0.1:8000/metrics"
    assert (configuration.services[0].find_by, configuration.services[0].find) == (ProcessFinder.PORT, "8000")
    assert configuration == load(None)


def test_values_replace_defaults_one_by_one() -> None:
    """What a file says replaces that one default; the rest of the target stays as shipped."""
    configuration = parse('[targets.api_response_time]\nlimit = "150ms"\npercentile = 99\n')
    target = next(target for target in configuration.targets if target.name == "api_response_time")
    assert (target.limit, target.hold, target.measure) == (0.15, 60.0, "p99 over 1 min")
    assert isinstance(target.indicator, Percentile)
    assert target.indicator.quantile == 0.99


def test_services_share_the_targets() -> None:
    """Each service has each target, unless the target names its services."""
    configuration = parse(
        '[[service]]\nname = "shop"\n[[service]]\nname = "admin"\nurl = "http://127.0.0.1:8001"\n'
        '[targets.memory]\nservices = ["shop"]\n'
    )
    assert len(configuration.targets_of("shop")) == 5
    assert "memory" not in {target.name for target in configuration.targets_of("admin")}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (
            '[targets.api_response_time]\nlimit = "200"',
            2,
            'limit = "200".*a time needs a unit.*as in "200ms"',
        ),
        ("[targets.api_response_time]\nlimit = 200", 2, 'limit = 200.*a time needs a unit, as in "200ms"'),
        ("[targets.memory]\nlimit = 500", 2, 'a size needs a unit, as in "500MB"'),
        ('[targets.memory]\nlimit = "500 apples"', 2, "unit 'apples' is not known; allowed: B, kB"),
        ('[targets.memory]\nlimit = "0MB"', 2, "must be more than 0"),
        ('[targets.memory]\nlimit = "-5MB"', 2, "is no number with a unit"),
        ("[targets.concurrent_users]\nlimit = 0", 2, "must be a whole number from 1 up"),
        ("[targets.concurrent_users]\nlimit = true", 2, "must be a whole number"),
        ("\n[targets.memry]", 2, "unknown target 'memry'.*did you mean 'memory'"),
        ("[targets.memory]\npercentile = 5", 2, "unknown key 'percentile'"),
        ("[targets.api_response_time]\npercentile = 100", 2, "from 1 to 99.99"),
        ('[targets.api_response_time]\nwindow = "5s"', 2, "fewer than four scrapes.*at least 20s"),
        (
            "[targets.api_response_time]\nenabled = false",
            0,
            "concurrent_users asks whether api_response_time",
        ),
        ('[service]\nnmae = "x"', 2, "did you mean 'name'"),
        ('[service]\nname = "a b"', 2, "is no name: use letters"),
        ('[service]\nurl = "ftp://x"', 2, "must be a URL with a host"),
        ('[service]\nurl = "http://x:99999"', 2, "must be a URL with a host"),
        ('[service]\nport = 1\ncommand = "x"', 3, "only one of port, pid_file, command"),
        ('[[service]]\n[[service]]\nname = "app"', 3, "taken by another service"),
        ("service = 3", 1, r"must be a table.*\[service\]"),
        ('[channels.ops]\nseverities = ["critical"]', 1, "channel 'ops' has no url.*env:OPS_URL"),
        (
            '[channels.ops]\nurl = "env:A"\nseverities = ["crit"]',
            3,
            "did you mean 'critical'.*critical, warning",
        ),
        ('[channels.ops]\nurl = "env:A"\nservices = ["nope"]', 3, "unknown service 'nope'"),
        ('[monitor]\nlisten = "9109"', 2, 'must be HOST:PORT, as in "127.0.0.1:9109"'),
        ('[monitor]\nlisten = "0.0.0.0:9109"', 2, "open to other machines and has no token"),
        ('[monitor]\nscrape_interval = "2s"\nscrape_timeout = "3s"', 3, "longer than scrape_interval"),
        ("[monitor", 1, "is not valid TOML"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, said: str) -> None:
    """Each mistake names its line, what was given, and what is allowed or to be done."""
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith(f"monitor.toml:{line}: ") if line else found[0]
    assert re.search(said, found[0]), found[0]


def test_all_mistakes_come_at_once_in_order_of_lines() -> None:
    """One run shows every mistake, top to bottom."""
    found = problems('[monitor]\nlisten = "x"\n[targets.memory]\nlimit = 5\n[service]\nurl = "y"\n')
    assert [re.match(r"monitor.toml:(\d+)", text).group(1) for text in found] == ["2", "4", "6"]  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ["[channels.ops]\nurl", "[monitor]\ntoken", "[service]\nmetrics_token"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(key: str) -> None:
    """A secret written into the file is a mistake, and the error must not print it."""
    found = problems(f'{key} = "slack://hunter2/secret"')
    assert "must not stand in this file" in found[0]
    assert "hunter2" not in found[0]


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    """User name and password have no place in the service's URL."""
    found = problems('[service]\nurl = "http://user:hunter2@127.0.0.1"')
    assert "hunter2" not in "".join(found)


def test_secrets_are_read_late_and_never_shown(tmp_path: Path) -> None:
    """A channel keeps only where its URL is; reading it is a separate step; no text form shows it."""
    (tmp_path / "url").write_text("json://127.0.0.1/hunter2\n")
    (tmp_path / "monitor.toml").write_text('[channels.a]\nurl = "file:url"\n[channels.b]\nurl = "env:B_URL"\n')
    first, second = load(tmp_path / "monitor.toml").channels
    assert first.url.reveal({}) == "json://127.0.0.1/hunter2"
    assert second.url.reveal({"B_URL": "json://x"}) == "json://x"
    assert "hunter2" not in repr(first) + str(first.url)
    with pytest.raises(LookupError, match="B_URL is not set"):
        second.url.reveal({})


def test_a_missing_or_binary_file_is_a_problem(tmp_path: Path) -> None:
    """A file that is not there, or is no text, is told like any other mistake."""
    with pytest.raises(ConfigurationError, match="anvil-monitor init"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        load(tmp_path / "binary.toml")


def test_the_environment_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``ANVIL_MONITOR_CONFIG`` wins over the file here; without either the defaults serve."""
    monkeypatch.chdir(tmp_path)
    assert find_configuration({}) is None
    (tmp_path / "monitor.toml").write_text("")
    assert find_configuration({}) == Path("monitor.toml")
    assert find_configuration({"ANVIL_MONITOR_CONFIG": "/etc/other.toml"}) == Path("/etc/other.toml")


def test_a_service_that_pushes_is_not_fetched() -> None:
    """``metrics = "otlp"`` is no URL to scrape, and has no token of its own."""
    assert parse('[service]\nmetrics = "otlp"\n').services[0].metrics_url == ""
    with pytest.raises(ConfigurationError, match="it has no metrics_token"):
        parse('[service]\nmetrics = "otlp"\nmetrics_token = "env:X"\n')


def test_probes_are_the_url_unless_listed() -> None:
    """A listed probe takes the place of ``url``; each must be a URL, and a password in one is not repeated."""
    assert parse('[service]\nurl = "http://a.test:1"\n').services[0].probes == ("http://a.test:1",)
    listed = parse('[service]\nprobes = ["http://a.test/x", "https://b.test"]\n').services[0].probes
    assert listed == ("http://a.test/x", "https://b.test")
    for wrong in ('["ftp://a.test"]', "[7]", '"http://a.test"', '["http://"]'):
        with pytest.raises(ConfigurationError, match="probes = "):
            parse(f"[service]\nprobes = {wrong}\n")
    with pytest.raises(ConfigurationError) as caught:
        parse('[service]\nprobes = ["ftp://joe:hunter2@a.test"]\n')
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("good", ["/", "/products/{id}", "/docs/{rest:path}", "/{page}", "/a/", "/ä-b_c.html"])
def test_page_templates(good: str) -> None:
    """What a client-side router would call a path."""
    assert parse(f'[service]\npages = ["{good}"]\n').services[0].pages == (good,)


@pytest.mark.parametrize("wrong", ["products", "/a//b", "/a/{b", "/{a:path}/b", "/a?b", "/{}", "", "/a b"])
def test_what_is_no_page_template(wrong: str) -> None:
    """Anything else is refused with the rule."""
    with pytest.raises(ConfigurationError, match="must be page templates such as"):
        parse(f'[service]\npages = ["{wrong}"]\n')


def test_origins() -> None:
    """An origin has no path."""
    assert parse('[service]\norigins = ["https://www.example.com"]\n').services[0].origins == (
        "https://www.example.com",
    )
    for wrong in ("https://www.example.com/", "www.example.com", "*", "null"):
        with pytest.raises(ConfigurationError, match="must be origins"):
            parse(f'[service]\norigins = ["{wrong}"]\n')


def test_where_otlp_is_taken() -> None:
    """On OpenTelemetry's own port of this machine; elsewhere with a token only; or nowhere."""
    assert parse("").monitor.otlp == ("127.0.0.1", 4318)
    assert parse('[monitor]\notlp = "off"\n').monitor.otlp is None
    with pytest.raises(ConfigurationError, match=r"otlp = .* is open to other machines and has no token"):
        parse('[monitor]\notlp = "0.0.0.0:4318"\n')
    assert parse('[monitor]\notlp = "0.0.0.0:4318"\ntoken = "env:T"\n').monitor.otlp == ("0.0.0.0", 4318)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[[monitor]]\nlisten = "127.0.0.1:9"', 1, r"monitor is a list, and must be a table — write it as \[monitor\]"),
        ('[[channels]]\nurl = "env:A"', 1, "channels is a list"),
        ('[[targets.memory]]\nlimit = "1MB"', 1, r"targets.memory is a list.*\[targets.memory\], once"),
        ("[channels.a]\nurl = 'env:A'\nlabels = ['a']", 3, "channels.a.labels is a list"),
        ("[monitor]\nflap_limit = " + "9" * 5000, 0, "has a number of more than 4,300 digits"),
        ("[monitor]\nscrape_timeout = " + "9" * 400, 2, "a time needs a unit"),
        ("[targets.memory]\nlimit = " + "9" * 400, 2, "a size needs a unit"),
        ("[targets.concurrent_users]\nlimit = " + "9" * 400, 2, "whole number from 1 to 1000000000000"),
        ("[targets.api_response_time]\nfloor = " + "9" * 400, 2, "whole number from 0 to 1000000000000"),
        ('[monitor]\nretention = "99999999999999999999d"', 2, "must be from 1ms to 3650d"),
        ('[targets.memory]\nwindow = "4000d"', 2, "must be from 1ms to 3650d"),
        ('[monitor]\ngroup_wait = "1ns"', 2, "must be from 1ms to 3650d"),
        ('[monitor]\nlisten = "127.0.0.1:' + "9" * 5000 + '"', 2, "must be HOST:PORT"),
        ('[monitor]\ndata = ""', 2, "data in .monitor. is no path"),
        ('[monitor]\ndata = "a\\u0000b"', 2, "data in .monitor. is no path"),
        ('[monitor]\ndata = "~nobody-of-that-name/x"', 2, "no home folder for ~ — write the whole path"),
        ('[monitor]\nrules = ["~nobody-of-that-name/*.yml"]', 2, "no home folder for ~"),
        ('[monitor]\ntemplates = "~nobody-of-that-name"', 2, "no home folder for ~"),
        ('[channels.a]\nurl = "file:~nobody-of-that-name/url"', 2, "no home folder for ~"),
    ],
)
def test_what_nobody_can_have_meant_is_told_and_never_passed_over(text: str, line: int, said: str) -> None:
    """A table written as a list, a number beyond all bounds, a path that is none: one problem, with its line."""
    test_a_mistake_is_told_with_its_line(text, line, said)


def test_a_url_in_the_place_of_a_channel_is_not_repeated() -> None:
    """Who writes a channel's URL where its table belongs is told so, without the secret in it."""
    found = problems('[channels]\nteam = "slack://hunter2/secret"')
    assert "channels.team must be a table" in found[0]
    assert "hunter2" not in "".join(found)


def test_a_message_about_a_very_long_text_is_short() -> None:
    """What is wrong is said in a line or two, however long what was given is."""
    hours = '{ from = "08:00", to = "09:00", timezone = "' + "x" * 100_000 + '" }'
    assert len(problems(f"[channels.a]\nurl = 'env:A'\nhours = {hours}")[0]) < 700
