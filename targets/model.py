"""What is promised: the one frozen model that everything downstream is made from.

A :class:`Target` is a number that a service promises (``api_response_time < 200 ms``). It is written once, in
``monitor.toml``, and becomes the histogram edge in the instrumented server (:func:`histogram_limits`), the recording
and alerting rules, their tests, the lines on the dashboards and the words of a message. Nothing in here knows any of
those: formats live at the edges (``alerts/rules.py``, ``dashboards/``, ``exporter/``).

All numbers are in base units: seconds, bytes, plain counts. Text in human units comes from :mod:`.units`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from .units import Unit, format_duration, format_value
from .windows import Hours, Maintenance


class Direction(enum.StrEnum):
    """Which side of the limit keeps the promise."""

    BELOW = "below"
    ABOVE = "above"


@dataclass(frozen=True, slots=True)
class Percentile:
    """The ``quantile`` (0 to 1) of a histogram over the target's window, e.g. the p95 of request durations."""

    metric: str
    quantile: float
    match: str = ""  # more label matchers, as in PromQL: ``http_route="/orders"``

    @property
    def label(self) -> str:
        return f"p{self.quantile * 100:g}"


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean (sum over count) of a histogram over the target's window."""

    metric: str
    match: str = ""

    @property
    def label(self) -> str:
        return "mean"


@dataclass(frozen=True, slots=True)
class Level:
    """A gauge, summed over the service's instances, averaged over the target's window."""

    metric: str
    match: str = ""

    @property
    def label(self) -> str:
        return "mean"


@dataclass(frozen=True, slots=True)
class Capacity:
    """Users served at once while another target still holds.

    The promise "100+ users" is not broken by a quiet night: it is broken when target ``while_holds`` is missed
    although fewer users than the limit are on. ``metric`` is the gauge of active users.
    """

    metric: str
    while_holds: str

    @property
    def label(self) -> str:
        return "most"


@dataclass(frozen=True, slots=True)
class Formula:
    """A PromQL expression that gives one number: a ratio of good events, a rate, or whatever the user wrote.

    ``metric`` is what it is about, in words. In ``expr`` and ``counted`` (how many samples stand behind it; empty: it
    is no matter of samples) ``$service`` stands for the name of the service and ``$window`` for the target's window.
    """

    metric: str
    expr: str
    counted: str
    label: str


Indicator: TypeAlias = Percentile | Mean | Level | Capacity | Formula


@dataclass(frozen=True, slots=True)
class Target:
    """One promise of one service.

    ``limit`` is in base units. ``window`` (seconds) is what one value looks back over; ``hold`` (seconds) is how long
    a miss must last before anybody is told; ``keep`` (seconds) how long an alert goes on after the last miss, so that
    it does not flap; ``floor`` the number of samples (requests, queries, page loads) in the window below which a
    miss is not believed (0 for gauges); ``silence`` (seconds) how long an instrument may say nothing before
    ``TargetNoData``.
    """

    service: str
    name: str
    title: str
    unit: Unit
    limit: float
    direction: Direction
    indicator: Indicator
    window: float
    hold: float
    keep: float
    floor: int
    silence: float

    @property
    def measure(self) -> str:
        """How the value is read, e.g. ``p95 over 1 min``; an expression may say by itself what it looks back over."""
        if isinstance(self.indicator, Formula) and "$window" not in self.indicator.expr:
            return self.indicator.label
        return f"{self.indicator.label} over {format_duration(self.window)}"

    @property
    def promise(self) -> str:
        """The promise in human units, e.g. ``< 200 ms`` or ``100+ users``."""
        if self.direction is Direction.ABOVE:
            return f"{self.limit:g}+ {self.unit.value}" if self.unit.is_count else f"> {self.text(self.limit)}"
        return f"< {self.text(self.limit)}"

    def text(self, value: float) -> str:
        """``value`` (base units) as a person would write it, e.g. ``312 ms``."""
        return format_value(value, self.unit)


class ProcessFinder(enum.StrEnum):
    """How a server's processes are found on its host."""

    PORT = "port"
    PID_FILE = "pid_file"
    COMMAND = "command"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True)
class Service:
    """A server that is watched: where it answers, where its metrics are and how its processes are found.

    ``probes``: the URLs that are asked whether they answer. ``pages``: templates of the paths that browsers report, for
    a client-side router whose routes the server does not know (``/products/{id}``). ``origins``: other origins whose
    pages may report (``https://www.example.com``).
    """

    name: str
    url: str
    metrics_url: str
    find_by: ProcessFinder
    find: str  # the port, the path of the pid file, a part of the command line, the name or id of the container
    metrics_token: Secret | None = None
    probes: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def pushes(self) -> bool:
        """Whether its metrics come over OTLP instead of being fetched."""
        return not self.metrics_url


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must never be shown. ``str`` and ``repr`` give its origin; :meth:`reveal` reads it.

    ``origin`` is ``env:NAME`` or ``file:PATH``. ``literal`` is for code that has the value already (tests, a program
    of the user's own): ``monitor.toml`` cannot hold one.
    """

    origin: str
    literal: str | None = field(default=None, repr=False)

    def reveal(self, environ: dict[str, str]) -> str:
        """The value itself. Raises ``LookupError`` (naming the origin only) when it cannot be read."""
        if self.literal is not None:
            return self.literal
        kind, _, where = self.origin.partition(":")
        if kind == "env":
            if not environ.get(where):
                raise LookupError(f"the environment variable {where} is not set")
            return environ[where].strip()
        try:
            text = Path(where).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise LookupError(f"the file {where} cannot be read: {reason}") from None
        if not text:
            raise LookupError(f"the file {where} is empty")
        return text

    def __str__(self) -> str:
        return f"<secret from {self.origin}>"


@dataclass(frozen=True, slots=True)
class Channel:
    """Where people are told: an Apprise URL under a name, for some severities, services and targets (empty: all).

    ``labels``: what else an alert has to bear, by name the values of which it has one.

    ``format``: the form of its messages (empty: by what the service can show); ``template``: a file for it instead of
    ours; ``signing_key``: what a plain webhook's body is signed with.
    """

    name: str
    url: Secret
    severities: tuple[str, ...] = ("critical", "warning")
    services: tuple[str, ...] = ()
    # When it is told (None: always); how long it waits for an acknowledgement of what others were told, and how long
    # before it is told again (None: as [monitor] says), in seconds.
    hours: Hours | None = field(default=None, kw_only=True)
    escalate_after: float = field(default=0.0, kw_only=True)
    repeat_interval: float | None = field(default=None, kw_only=True)
    repeat_by_severity: tuple[tuple[str, float], ...] = field(default=(), kw_only=True)
    tell_acks: bool = field(default=True, kw_only=True)  # whether it hears that somebody looks after an alert
    format: str = ""
    template: Path | None = None
    signing_key: Secret | None = None
    targets: tuple[str, ...] = field(default=(), kw_only=True)
    labels: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), kw_only=True)


# Addresses that only this machine reaches: whatever listens elsewhere needs a token.
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Monitor:
    """How the monitor itself runs. Times in seconds; ``data`` is its own folder (outbox, ledger, history).

    History is kept for ``retention``, and at most ``retention_size`` bytes of it.

    ``otlp``: where it takes metrics over OTLP/HTTP, besides its own address; ``None``: nowhere else.
    ``rules``: patterns of the user's own rule files. ``templates``: a folder of message templates of the user's own.
    """

    host: str
    port: int
    data: Path
    scrape_interval: float
    scrape_timeout: float
    evaluation_interval: float
    retention: float
    group_wait: float
    group_interval: float
    repeat_interval: float
    token: Secret | None = None
    otlp: tuple[str, int] | None = None
    rules: tuple[str, ...] = ()
    retention_size: float = 5e9
    # An alert that fires more often than flap_limit (0: no limit) within flap_window is told once, as flapping.
    flap_limit: int = field(default=5, kw_only=True)
    flap_window: float = field(default=3600.0, kw_only=True)
    external_url: str = field(default="", kw_only=True)  # where people reach the page, if not at its address
    prometheus: str = field(default="", kw_only=True)  # what the notifier of the bundle asks for what it tells
    templates: Path | None = None
    # Where the user's own runbooks are, with {alert}, {service} and {target} in it; empty: the monitor's, on its page.
    runbooks: str = field(default="", kw_only=True)

    # The dead man's switch: a URL that is called every so many seconds while the monitor lives.
    heartbeat: Secret | None = field(default=None, kw_only=True)
    heartbeat_interval: float = field(default=60.0, kw_only=True)

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def reached_at(self) -> str:
        """The address for links in messages, without a slash at its end."""
        return self.external_url or self.address


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that ``monitor.toml`` says, validated, with the defaults filled in."""

    services: tuple[Service, ...]
    targets: tuple[Target, ...]
    channels: tuple[Channel, ...]
    monitor: Monitor
    path: Path | None = None
    maintenance: tuple[Maintenance, ...] = ()

    def targets_of(self, service: str) -> tuple[Target, ...]:
        return tuple(target for target in self.targets if target.service == service)


def histogram_limits(targets: tuple[Target, ...], metric: str) -> tuple[float, ...]:
    """The limits, in base units and sorted, at which histogram ``metric`` must have an edge.

    With an edge at the limit, ``histogram_quantile(q, …) > limit`` is exact: it is true if and only if more than
    ``1 - q`` of the samples were over the limit, whatever the interpolation inside a bucket says.
    """
    return tuple(
        sorted(
            {
                target.limit
                for target in targets
                if isinstance(target.indicator, Percentile | Mean) and target.indicator.metric == metric
            }
        )
    )
