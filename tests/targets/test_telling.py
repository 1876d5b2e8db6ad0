"""Maintenance and quiet hours: what may be written, what is told, and what a clock on the wall does."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anvil_monitor.targets import ConfigurationError, Hours, Once, Weekly
from anvil_monitor.targets.load import parse
from anvil_monitor.targets.windows import DAY

WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES = sorted(available_timezones())
# Half an hour of daylight saving, a change at midnight, a day left out, quarters of an hour, changes of the state.
ODD_ZONES = ("Australia/Lord_Howe", "America/Havana", "Pacific/Apia", "Asia/Kathmandu", "Africa/Casablanca",
             "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Beirut", "Atlantic/Azores")  # fmt: skip


def at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def window(text: str) -> object:
    return parse(f"[[maintenance]]\n{text}").maintenance[0].when


def test_a_window_that_comes_once() -> None:
    """With an offset of its own or on the clock of a time zone, as text or as TOML's own date and time."""
    expected = Once(at("2026-12-01T22:00", "Europe/Berlin"), at("2026-12-02T01:30", "Europe/Berlin"))
    zone = 'timezone = "Europe/Berlin"'
    assert window("from = 2026-12-01T22:00:00+01:00\nto = 2026-12-02T01:30:00+01:00") == expected
    assert window(f"from = 2026-12-01T22:00:00\nto = 2026-12-02T01:30:00\n{zone}") == expected
    assert window(f'from = "2026-12-01T22:00"\nto = "2026-12-02 01:30"\n{zone}') == expected
    days = window(f"from = 2026-12-01\nto = 2026-12-03\n{zone}")
    assert days == Once(at("2026-12-01", "Europe/Berlin"), at("2026-12-03", "Europe/Berlin"))
    assert expected.span(expected.starts) == (expected.starts, expected.ends)
    assert expected.span(expected.starts - 1) is expected.span(expected.ends) is None


def test_a_weekly_window_and_hours() -> None:
    """Days by name, times as text or TOML's own; hours without days are of every day."""
    text = 'days = ["sat", "mon"]\nfrom = 22:00:00\nto = "02:00"\ntimezone = "Europe/Berlin"'
    weekly = Weekly((5, 0), 22 * 3600, 2 * 3600, "Europe/Berlin")
    assert window(text) == weekly
    hours = 'hours = { from = "08:00", to = "24:00", timezone = "UTC", outside = ["critical"] }'
    (channel,) = parse(f'[channels.team]\nurl = "env:X"\n{hours}').channels
    assert channel.hours == Hours(Weekly(tuple(range(7)), 8 * 3600, DAY, "UTC"), ("critical",))
    assert channel.hours.when.span(at("2026-12-01T03:00", "UTC")) is None
    assert channel.hours.when.span(at("2026-12-01T23:59", "UTC")) == (
        at("2026-12-01T08:00", "UTC"), at("2026-12-02T00:00", "UTC"))  # fmt: skip


def test_which_alerts_a_channel_is_for() -> None:
    """Targets by name; labels with one value or several."""
    more = 'targets = ["memory"]\nlabels = { team = "shop", tier = ["gold", "silver"] }'
    (channel,) = parse(f'[channels.team]\nurl = "env:X"\n{more}').channels
    assert channel.targets == ("memory",)
    assert channel.labels == (("team", ("shop",)), ("tier", ("gold", "silver")))


def test_whom_maintenance_concerns() -> None:
    """Services and targets that are named; all of them where none is."""
    text = 'from = 2026-12-01T22:00:00Z\nto = 2026-12-02T01:30:00Z\nname = "move"\n'
    (all_,) = parse(f"[[maintenance]]\n{text}").maintenance
    assert all_.concerns("app", "memory")
    assert all_.concerns("", "")
    (one,) = parse(f'[[maintenance]]\n{text}services = ["app"]\ntargets = ["memory"]').maintenance
    assert one.concerns("app", "memory")
    assert not one.concerns("app", "")
    assert not one.concerns("shop", "memory")


ONCE = "from = 2026-12-01T22:00:00Z\nto = 2026-12-02T01:30:00Z"
WEEKLY = 'days = ["sat"]\nfrom = "22:00"\nto = "02:00"\ntimezone = "UTC"'


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"[maintenance]\n{ONCE}", 1, r"write \[\[maintenance\]\]"),
        ("[[maintenance]]\nname = 'x'", 1, "has no from"),
        (f"[[maintenance]]\n{ONCE}\nfro = 3", 4, "unknown key 'fro'.*did you mean 'from'"),
        (f"[[maintenance]]\n{ONCE}\nservices = ['shop']", 4, "unknown service 'shop'.*allowed: app"),
        (f"[[maintenance]]\n{ONCE}\ntargets = ['memry']", 4, "unknown target 'memry'.*did you mean 'memory'"),
        (f"[[maintenance]]\n{ONCE}\nname = 'a b'", 4, "is no name"),
        ("[[maintenance]]\nfrom = 2026-12-01T22:00:00Z\nto = 2026-12-01T22:00:00Z", 3, "is not after from"),
        ("[[maintenance]]\nfrom = 2026-12-01T22:00:00\nto = 2026-12-02T22:00:00", 1, "no timezone.*Europe/Berlin"),
        ("[[maintenance]]\nfrom = 'soon'\nto = 2026-12-02T22:00:00Z", 2, 'from = "soon".*as in "2026-12-01T22:00"'),
        ("[[maintenance]]\nfrom = '22:00'\nto = '23:00'", 2, "has no date.*add days"),
        ("[[maintenance]]\nfrom = 0001-01-01T00:00:00+14:00\nto = 2026-12-02T22:00:00Z", 2, "from = .0001-01-01"),
        ("[[maintenance]]\nfrom = 2026-12-02T22:00:00Z\nto = 9999-12-31T23:59:59-12:00", 3, "to = .9999-12-31"),
        ("[[maintenance]]\nfrom = 5\nto = true", 2, 'from = 5.*as in "2026-12-01T22:00"'),
        (f"[[maintenance]]\n{WEEKLY}".replace("sat", "sta"), 2, "unknown day 'sta'.*did you mean 'sat'"),
        (f"[[maintenance]]\n{WEEKLY}".replace('"sat"', ""), 2, "names no day"),
        (f"[[maintenance]]\n{WEEKLY}".replace("22:00", "25:00"), 3, 'from = "25:00".*as in "22:00"'),
        (f"[[maintenance]]\n{WEEKLY}".replace("22:00", "24:00"), 3, "end of a day"),
        (f"[[maintenance]]\n{WEEKLY}".replace("02:00", "22:00"), 4, "same time as from.*24:00"),
        (f"[[maintenance]]\n{WEEKLY}".replace("UTC", "Europe/Belrin"), 5, "unknown time zone.*'Europe/Berlin'"),
        (f"[[maintenance]]\n{WEEKLY}".replace("UTC", "../etc/passwd"), 5, "unknown time zone"),
        (f"[[maintenance]]\n{WEEKLY}".replace("UTC", "Europe"), 5, "unknown time zone"),
        ("[channels.x]\nurl = 'env:X'\nhours = { from = '08:00', to = '18:00' }", 3, "no timezone"),
        ("[channels.x]\nurl = 'env:X'\nhours = { from = '08:00', timezone = 'UTC' }", 3, "has no to"),
        ("[channels.x]\nurl = 'env:X'\nhours = 8", 3, "must be a table"),
        ("[channels.x]\nurl = 'env:X'\ntargets = ['memry']", 3, "unknown target 'memry'.*did you mean 'memory'"),
        ("[channels.x]\nurl = 'env:X'\nlabels = 'a'", 3, "must be a table"),
        ("[channels.x]\nurl = 'env:X'\nlabels = { team = 5 }", 3, "labels.team = 5 names no label.*a list of values"),
        ("[channels.x]\nurl = 'env:X'\nlabels = { 'a b' = 'c' }", 3, "names no label"),
        ("[channels.x]\nurl = 'env:X'\n[channels.x.hours]\nfrom = '08:00'\nto = '18:00'\ntimezone = 'UTC'\n"
         "outside = ['critcal']", 7, "unknown severity 'critcal'.*did you mean 'critical'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(text: str, line: int, said: str) -> None:
    """What was given, what is allowed, what to do."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    told = "\n".join(map(str, caught.value.problems))
    assert re.search(said, told), told
    assert f"monitor.toml:{line}: " in told


@pytest.mark.parametrize(
    ("starts", "ends", "lasts"),
    [
        # Berlin goes from 2:00 to 3:00 on 29 March, and from 3:00 back to 2:00 on 25 October 2026.
        ("01:00", "04:00", {"2026-03-29": 2, "2026-10-25": 4, "2026-06-07": 3}),
        ("02:30", "04:00", {"2026-03-29": 1, "2026-10-25": 2.5, "2026-06-07": 1.5}),
        ("01:00", "02:30", {"2026-03-29": 1, "2026-10-25": 2.5, "2026-06-07": 1.5}),
        ("02:15", "02:45", {"2026-03-29": 0, "2026-10-25": 1.5, "2026-06-07": 0.5}),
    ],
)
def test_a_night_on_which_the_clock_jumps(starts: str, ends: str, lasts: dict[str, float]) -> None:
    """What the clock skips is not there; what it shows twice holds from the first to the last time."""
    weekly = window(f'days = ["sun"]\nfrom = "{starts}"\nto = "{ends}"\ntimezone = "Europe/Berlin"')
    assert isinstance(weekly, Weekly)
    for day, hours in lasts.items():
        midnight = at(f"{day}T00:00", "Europe/Berlin")
        minutes = [midnight + 60 * minute for minute in range(8 * 60)]
        assert sum(weekly.span(minute) is not None for minute in minutes) == hours * 60, day


weeklies = st.builds(
    Weekly,
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    st.integers(0, 287).map(lambda five: five * 300),
    st.integers(0, 288).map(lambda five: five * 300),
    st.one_of(st.sampled_from(ODD_ZONES), st.sampled_from(ZONES)),
).filter(lambda weekly: weekly.start != weekly.end)
moments = st.integers(
    int(datetime(1995, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2040, 1, 1, tzinfo=UTC).timestamp())
)


def near_a_jump(moment: int, zone: str) -> int:
    """``moment``, moved to the next change of the zone's clock within half a year, if there is one."""
    clock = ZoneInfo(zone)
    for day in range(183):
        before, after = (datetime.fromtimestamp(moment + (day + more) * DAY, clock).utcoffset() for more in (0, 1))
        if before != after:
            return moment + day * DAY
    return moment


def shown_in(weekly: Weekly, moment: float) -> bool:
    """By the clock on the wall alone: is what it shows within the window?"""
    shown = datetime.fromtimestamp(moment, ZoneInfo(weekly.zone))
    seconds = shown.hour * 3600 + shown.minute * 60 + shown.second
    today, yesterday = shown.weekday() in weekly.days, (shown.date() - timedelta(1)).weekday() in weekly.days
    if weekly.end > weekly.start:
        return today and weekly.start <= seconds < weekly.end
    return (today and seconds >= weekly.start) or (yesterday and seconds < weekly.end)


@settings(max_examples=300, deadline=None)
@given(weeklies, moments, st.integers(-2 * DAY, 2 * DAY), st.booleans())
def test_a_window_holds_whenever_the_clock_shows_its_time(weekly: Weekly, moment: int, shift: int, jumps: bool) -> None:
    """In any zone, at any jump; where it holds otherwise, the clock has gone back within it."""
    now = float((near_a_jump(moment, weekly.zone) if jumps else moment) + shift)
    span = weekly.span(now)
    if shown_in(weekly, now):
        # A zone that leaves a day out (Samoa, 2011) shows Saturday after Thursday: of Friday nothing is left.
        clock = ZoneInfo(weekly.zone)
        yesterday = datetime.fromtimestamp(now, clock).date() - timedelta(1)
        noon = datetime(yesterday.year, yesterday.month, yesterday.day, 12, tzinfo=clock)
        assume(span is not None or datetime.fromtimestamp(noon.timestamp(), clock).date() == yesterday)
        assert span is not None
    elif span is not None:
        offsets = {datetime.fromtimestamp(span[0] + part, ZoneInfo(weekly.zone)).utcoffset()
                   for part in range(0, int(span[1] - span[0]) + 3600, 900)}  # fmt: skip
        assert len(offsets) > 1
    if span is not None:
        assert span[0] <= now < span[1]
        assert weekly.span(span[0]) is not None
        assert weekly.span(span[1] - 1) is not None


@settings(max_examples=100, deadline=None)
@given(weeklies, moments)
def test_without_jumps_a_week_holds_its_hours(weekly: Weekly, moment: int) -> None:
    """In a week in which the clock does not change, every window lasts what its times say."""
    clock = ZoneInfo(weekly.zone)
    start = float(moment - moment % 300)
    offsets = {datetime.fromtimestamp(start + day * DAY / 2, clock).utcoffset() for day in range(-4, 19)}
    assume(len(offsets) == 1)
    assume(next(iter(offsets)).total_seconds() % 300 == 0)  # type: ignore[union-attr]
    held = sum(weekly.span(start + five * 300) is not None for five in range(7 * 288))
    assert held * 300 == len(weekly.days) * ((weekly.end - weekly.start) % DAY or DAY)


def test_escalation_and_repeats_of_a_channel() -> None:
    """Both are times; without them a channel is told at once, and again as [monitor] says."""
    text = '[channels.a]\nurl = "env:A"\n[channels.b]\nurl = "env:B"\nescalate_after = "15m"\nrepeat_interval = "1h"'
    first, second = parse(text).channels
    assert (first.escalate_after, first.repeat_interval) == (0.0, None)
    assert (second.escalate_after, second.repeat_interval) == (900.0, 3600.0)
    assert (first.tell_acks, first.repeat_by_severity) == (True, ())
    with pytest.raises(ConfigurationError, match=r":3: every channel has escalate_after: nobody is told at first"):
        parse('[channels.b]\nurl = "env:B"\nescalate_after = "15m"')
    with pytest.raises(ConfigurationError, match=r':3: escalate_after = 15 .*as in "15ms"'):
        parse('[channels.b]\nurl = "env:B"\nescalate_after = 15\n[channels.a]\nurl = "env:A"')


def test_the_flap_limit() -> None:
    """A whole number of firings within a time; 0 is no limit."""
    assert (parse("").monitor.flap_limit, parse("").monitor.flap_window) == (5, 3600.0)
    monitor = parse('[monitor]\nflap_limit = 0\nflap_window = "10m"').monitor
    assert (monitor.flap_limit, monitor.flap_window) == (0, 600.0)
    with pytest.raises(ConfigurationError, match=r":2: flap_limit = -1 .*whole number from 0 to 1000"):
        parse("[monitor]\nflap_limit = -1")


def test_where_people_reach_the_page() -> None:
    """Links lead to external_url, without a slash at its end, or else to the address of the page."""
    assert parse("").monitor.reached_at == "http://127.0.0.1:9109"
    monitor = parse('[monitor]\nexternal_url = "https://monitor.example.com/anvil/"').monitor
    assert (monitor.external_url, monitor.reached_at) == ("https://monitor.example.com/anvil",) * 2
    for wrong, said in (
        ("monitor.example.com", "must be a URL with a host"),
        ("https://me:secret@example.com", "holds a user name or password"),
        ("https://example.com/?a=b", "has a query"),
        ("https://example.com/#a", "has a query"),
    ):
        with pytest.raises(ConfigurationError, match=":2: external_url") as caught:
            parse(f'[monitor]\nexternal_url = "{wrong}"')
        assert said in str(caught.value)
        assert "secret" not in str(caught.value)


def test_what_was_read_is_said_again() -> None:
    """As ``check`` shows it: days, times and whose clock."""
    weekly = Weekly((5, 6), 22 * 3600, 2 * 3600 + 30 * 60, "Europe/Berlin")
    assert str(weekly) == "sat, sun 22:00 to 02:30 Europe/Berlin"
    assert str(Hours(Weekly(tuple(range(7)), 0, DAY, "UTC"), ("critical",))) == (
        "every day 00:00 to 24:00 UTC, critical at any hour"
    )
    starts = datetime.fromtimestamp(at("2026-12-01T22:00", "UTC")).astimezone()
    assert str(Once(starts.timestamp(), starts.timestamp() + 60)).startswith(f"{starts:%Y-%m-%d %H:%M} ")


def test_a_mistake_of_a_channel_is_told_once() -> None:
    """What is no table is no table once, though the hours are read after the rest; what is too long a time, too."""
    with pytest.raises(ConfigurationError) as caught:
        parse("[channels]\nx = 5")
    assert len([one for one in caught.value.problems if "must be a table" in one.what]) == 1
    with pytest.raises(ConfigurationError, match="is too large"):
        parse('[channels.x]\nurl = "env:X"\nrepeat_interval = "' + "9" * 400 + 'w"')


def test_how_often_a_severity_is_repeated() -> None:
    """A table of durations by severity, in part; a severity that there is none of is told with its line."""
    head = '[channels.a]\nurl = "env:A"\ntell_acks = false\n'
    (channel,) = parse(f'{head}repeat_interval = {{ critical = "1h" }}').channels
    assert (channel.tell_acks, channel.repeat_interval) == (False, None)
    assert channel.repeat_by_severity == (("critical", 3600.0),)
    with pytest.raises(ConfigurationError, match=r":4: unknown severity 'critcal' .*did you mean 'critical'"):
        parse(f'{head}repeat_interval = {{ critcal = "1h" }}')
    with pytest.raises(ConfigurationError, match=r":4: warning = 5 .*a time needs a unit"):
        parse(f"{head}repeat_interval = {{ warning = 5 }}")
    with pytest.raises(ConfigurationError, match=r":3: tell_acks = 1 .*must be true or false"):
        parse('[channels.a]\nurl = "env:A"\ntell_acks = 1')
