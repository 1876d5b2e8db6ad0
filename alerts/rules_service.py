"""The rules of a service as a whole: does it answer, does it fail, does it hang, do its processes live."""

from __future__ import annotations

from typing import Final

from anvil_monitor.exporter import names
from anvil_monitor.targets import Configuration, Percentile, Service, format_duration

from .rulefile import Alerting, Group, Recording, Rule
from .ruleparts import (
    CRASHING,
    DOWN,
    ERRORS,
    FAILED,
    REQUESTS,
    STUCK,
    VERSION_SINCE,
    Links,
    costliest,
    duration,
    literal,
    number,
    quoted,
    since_deploy,
)

# A scrape that fails once is a hiccup, three in a row are a fact; below 15 s a plain restart would page.
DOWN_SCRAPES: Final = 3
DOWN_LEAST: Final = 15.0

# A p95 promise lets one request in twenty be slow; no more than that may fail.
FAILED_SHARE: Final = 0.05
# Fewer failures than this are told to nobody, whatever their share: one error at night is an error, not an outage.
FAILED_LEAST: Final = 5
# Window and recent part of it, in multiples of the shortest window; both must fail, so that an outage that is over is
# over here, too. The long pair is for little traffic: five failures in an hour are found from five requests an hour on.
# The idea, and the twelfth: Google, The Site Reliability Workbook, chapter 5, "Multiwindow, multi-burn-rate alerts".
WINDOWS: Final = ((5, 1), (60, 5))
# Requests in the shorter window from which on it decides alone: so many that the fewest failures are the share.
ENOUGH: Final = FAILED_LEAST / FAILED_SHARE
SHORTEST: Final = 60.0

# Seconds. A proxy has given up by then (nginx's proxy_read_timeout is 60 s): nobody waits for the answer any more.
STUCK_AGE: Final = 60.0
STUCK_LIMITS: Final = 10  # … and never less than this many times the slowest promise

# Of the last ten minutes those in which a process was replaced. A deploy or a reload takes one or two, what crashes and
# is started again goes on.
CRASH_MINUTES: Final = 10
CRASH_LEAST: Final = 4
# While so large a share of what was replaced lately had ended in an orderly way, it is recycled: half, less what a
# scrape may miss of a few. A deploy before a loop of crashes is out of sight a minute after the loop could be told.
ORDERLY_MINUTES: Final = 5
ORDERLY_SHARE: Final = 0.4

# Seconds without any version after which the one that comes is new: a restart or a short outage is no deploy.
FORGOTTEN: Final = 3600.0


def service_group(configuration: Configuration, service: Service, links: Links) -> Group:
    """What is told of ``service`` itself, after what is recorded of its requests."""
    rules: list[Rule] = [*_requests(configuration, service), _version(configuration, service)]
    rules.append(_down(configuration, service, links))
    rules.append(_errors(configuration, service, links))
    if not service.pushes:  # what is measured from its end, as OpenTelemetry does, knows no request that has none
        rules.append(_stuck(configuration, service, links))
    rules.append(_crashing(configuration, service, links))
    return Group(f"service {service.name}", configuration.monitor.evaluation_interval, tuple(rules))


def _version(configuration: Configuration, service: Service) -> Recording:
    """When each version that runs was first seen (Unix seconds); it reads itself.

    What went on, beside a newer one or not, is the same still; so is the newest one after a restart. What comes back
    after a newer one is a deploy, too.
    """
    own = f"{{service={quoted(service.name)}}}"
    running = f"max by (service, service_version) ({names.SERVICE_VERSION.name}{own})"
    known = f"last_over_time({VERSION_SINCE}{own}[{duration(FORGOTTEN)}])"
    expr = (
        f"(\n  last_over_time({VERSION_SINCE}{own}[{duration(2 * shortest(configuration))}])\n"
        f"  or\n  {known} == on (service) group_left () max by (service) ({known})\n)\n"
        f"and on (service, service_version)\n{running}\n"
        f"or on (service, service_version)\n{running} * 0 + time()"
    )
    return Recording(VERSION_SINCE, expr, {"service": service.name})  # as it is, but so that no two seem to be the same


def shortest(configuration: Configuration) -> float:
    """Seconds of the shortest window: a rate needs two scrapes, four leave room for a lost one."""
    return max(SHORTEST, 4 * configuration.monitor.scrape_interval)


def windows(configuration: Configuration) -> tuple[float, ...]:
    """Seconds of every window in which requests are counted, the shortest first."""
    return tuple(sorted({shortest(configuration) * each for pair in WINDOWS for each in pair}))


def down_hold(configuration: Configuration) -> float:
    """Seconds of failed scrapes before ``ServiceDown``."""
    return max(DOWN_LEAST, DOWN_SCRAPES * configuration.monitor.scrape_interval)


def stuck_age(configuration: Configuration, service: Service) -> float:
    """Seconds without an answer after which a request counts as stuck."""
    limits = [
        target.limit
        for target in configuration.targets_of(service.name)
        if isinstance(target.indicator, Percentile) and target.indicator.metric == names.HTTP_DURATION.name
    ]
    return max([STUCK_AGE, *(STUCK_LIMITS * limit for limit in limits)])


def _requests(configuration: Configuration, service: Service) -> list[Rule]:
    """How many requests were answered, and how many failed, over each window."""
    name = f"service={quoted(service.name)}"
    rules: list[Rule] = []
    for window in windows(configuration):
        labels, over = {"service": service.name, "window": duration(window)}, f"[{duration(window)}]"
        # Two selectors that never match the same series: there is no "or" between labels.
        parts = [f"(sum(increase({names.HTTP_DURATION.count}{{{name},{each}}}{over})) or vector(0))" for each in BROKEN]
        rules.append(Recording(REQUESTS, f"sum(increase({names.HTTP_DURATION.count}{{{name}}}{over}))", labels))
        rules.append(Recording(FAILED, "\n+\n".join(parts), labels))
    return rules


# What failed: the server said so (5xx), or it gave no answer. Not what was refused (4xx), and not a client that left.
BROKEN: Final = (
    'http_response_status_code=~"5.."',
    'http_response_status_code!~"[45]..",error_type!~"|client_disconnected"',
)


def _errors(configuration: Configuration, service: Service, links: Links) -> Alerting:
    short = shortest(configuration)
    pairs = [(short * window, short * recent) for window, recent in WINDOWS]
    pieces = [
        f"  {_share(service, window)} > {number(FAILED_SHARE)}\n"
        f"  and on (service)\n  {_counted(FAILED, service, window)} > {number(FAILED_LEAST - 0.5)}\n"
        f"  and on (service)\n  {_share(service, recent)} > {number(FAILED_SHARE)}"
        for window, recent in pairs
    ]
    pieces[1] += f"\n  and on (service)\n  {_counted(REQUESTS, service, pairs[0][0])} < {number(ENOUGH)}"
    expr = "\nor\n".join(f"(\n{piece}\n)" for piece in pieces)
    failing = [
        f"sum by (http_request_method, http_route) (increase({names.HTTP_DURATION.count}"
        f'{{service={quoted(service.name)},http_route!="",{each}}}[{duration(pairs[0][0])}]))'
        for each in BROKEN
    ]
    annotations = {
        "summary": f"{{{{ $value | humanizePercentage }}}} of the requests to {service.name} fail",
        "description": f"More than {number(FAILED_SHARE * 100)} % of the requests fail, {FAILED_LEAST} of them at "
        f"least: over {format_duration(pairs[0][0])}, or with little traffic over {format_duration(pairs[1][0])}.",
        "routes": costliest(" or ".join(failing), "failed"),
        "title": service.name,
        **since_deploy(service.name),
        **links.of(service.name, "", ERRORS),
    }
    return Alerting(ERRORS, expr, down_hold(configuration), short, _labels(service), annotations)


def _share(service: Service, window: float) -> str:
    return f"({_counted(FAILED, service, window)} / on (service) {_counted(REQUESTS, service, window)})"


def _counted(series: str, service: Service, window: float) -> str:
    return f"{series}{{service={quoted(service.name)},window={quoted(duration(window))}}}"


def _stuck(configuration: Configuration, service: Service, links: Links) -> Alerting:
    age = stuck_age(configuration, service)
    expr = f"max by (service) ({names.HTTP_OLDEST.name}{{service={quoted(service.name)}}}) > {number(age)}"
    annotations = {
        "summary": f"A request to {service.name} has had no answer for {{{{ $value | humanizeDuration }}}}",
        "description": f"Its oldest request has waited for more than {format_duration(age)}: whoever asked has gone "
        "by now. A worker or a thread hangs, and no duration tells of it, because the request has not ended.",
        "title": service.name,
        **since_deploy(service.name),
        **links.of(service.name, "", STUCK),
    }
    # It has waited already; kept, because the next stuck one follows the one that a restart has ended.
    return Alerting(STUCK, expr, 0.0, shortest(configuration), _labels(service), annotations)


def _crashing(configuration: Configuration, service: Service, links: Links) -> Alerting:
    minute = shortest(configuration)
    step = duration(minute)
    replaced = f"increase({names.PROCESS_RESTARTS.name}{{service={quoted(service.name)}}}[{step}])"
    span = duration(CRASH_MINUTES * minute)
    # Those that are recycled by design count themselves as they end. The two counters come by different scrapes.
    lately = f"{{service={quoted(service.name)}}}[{duration(ORDERLY_MINUTES * minute)}]"
    orderly = f"sum by (service) (increase({names.WORKERS_ENDED.name}{lately}))"
    replaced_lately = f"sum by (service) (increase({names.PROCESS_RESTARTS.name}{lately}))"
    expr = (
        f"sum_over_time((sum by (service) ({replaced}) > bool 0)[{span}:{step}]) >= {CRASH_LEAST}\n"
        f"unless on (service)\n({orderly} > {number(ORDERLY_SHARE)} * {replaced_lately})"
    )
    annotations = {
        "summary": f"Processes of {service.name} crash and are started again",
        "description": f"In {{{{ $value }}}} of the last {CRASH_MINUTES} spans of {format_duration(minute)} a process "
        "of it was replaced by a new one: that is no deploy. What its requests waited for is lost each time.",
        "title": service.name,
        **since_deploy(service.name),
        **links.of(service.name, "", CRASHING),
    }
    return Alerting(CRASHING, expr, 0.0, 5 * minute, _labels(service), annotations)


def _down(configuration: Configuration, service: Service, links: Links) -> Alerting:
    # Of several instances one that answers keeps the service up; the label `instance` would page once for each.
    expr = f'max by (service) (up{{job="server",service={quoted(service.name)}}}) == 0'
    hold = down_hold(configuration)
    what = f"{literal(service.metrics_url.partition('?')[0])} has not answered a scrape"
    if service.pushes:
        # What pushes has no scrape that fails: the probes see whether it answers.
        expr = f"max by (service) ({names.PROBE_SUCCESS.name}{{service={quoted(service.name)}}}) == 0"
        what = "None of its probes has been answered"
    annotations = {
        "summary": f"{service.name} does not answer",
        "description": f"{what} for {format_duration(hold)}: {service.name} is stopped, hangs, or cannot be reached.",
        "title": service.name,
        **since_deploy(service.name),
        **links.of(service.name, "", DOWN),
    }
    # Kept as long as it was waited for: a server that dies again after one good scrape is still one outage.
    return Alerting(DOWN, expr, hold, hold, _labels(service), annotations)


def _labels(service: Service) -> dict[str, str]:
    return {"service": service.name, "severity": "critical"}
