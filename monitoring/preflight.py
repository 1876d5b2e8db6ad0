"""What ``anvil-monitor check`` looks at beyond the file: secrets, channels, folders; the server and its metrics."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from anvil_monitor.alerts import hooks, slackbot
from anvil_monitor.alerts.driftkinds import kind
from anvil_monitor.alerts.heartbeat import refused as refused_heartbeat
from anvil_monitor.alerts.learning import needed
from anvil_monitor.alerts.letters import Writer
from anvil_monitor.exporter.names import HISTOGRAM_EDGE_MISSING, HTTP_DURATION
from anvil_monitor.targets import Configuration, Problem, Secret, Service, format_duration, histogram_limits

from . import deadrules


def local(configuration: Configuration, environ: dict[str, str]) -> list[Problem]:
    """Problems that can be found without asking any server."""
    problems = _data_folder(configuration) + _retention(configuration)
    if not configuration.channels:
        problems.append(_warning("no channel: nobody is told when a target is missed", "add a [channels.NAME] table"))
    for channel in configuration.channels:
        place = f"channel {channel.name!r}: {channel.url.origin}"
        url = _reveal(channel.url, environ, place, problems)
        if url is not None and (reason := _refused(url)):
            problems.append(
                Problem(f"{place}: {reason}", todo="see the Apprise documentation for the URL of your service")
            )
    problems += Writer(configuration).problems
    keys = (channel.signing_key for channel in configuration.channels)
    tokens = (service.metrics_token for service in configuration.services)
    if heartbeat := configuration.monitor.heartbeat:
        place = f"[monitor] heartbeat: {heartbeat.origin}"
        url = _reveal(heartbeat, environ, place, problems)
        if url is not None and (reason := refused_heartbeat(url)):
            problems.append(Problem(f"{place} {reason}", todo="mend what it holds (not shown here)"))
    for secret in [configuration.monitor.token, *tokens, *keys]:
        if secret is not None:
            _reveal(secret, environ, secret.origin, problems)
    return problems


def remote(configuration: Configuration, environ: dict[str, str]) -> list[Problem]:
    """Warnings about the watched servers as they are now: they may well be down while a file is checked."""
    problems: list[Problem] = []
    for service in configuration.services:
        problems += [] if service.pushes else _metrics(configuration, service, environ)
        problems += _processes(service)
    if any(service.pushes for service in configuration.services):
        problems += _pushed(configuration, environ)
    return problems


def seen(configuration: Configuration, environ: dict[str, str]) -> frozenset[str] | None:
    """The names of all series that the servers emit now; ``None`` where one pushes, or does not answer."""
    import httpx

    found: frozenset[str] = frozenset()
    for service in configuration.services:
        try:
            token = service.metrics_token.reveal(environ) if service.metrics_token else ""
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = httpx.get(service.metrics_url, timeout=configuration.monitor.scrape_timeout, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, LookupError):
            return None
        if service.pushes or answer.status_code != 200:
            return None
        found |= deadrules.emitted(answer.text)
    return found


def _metrics(configuration: Configuration, service: Service, environ: dict[str, str]) -> list[Problem]:
    import httpx

    headers = {}
    if service.metrics_token is not None:
        try:
            headers["Authorization"] = f"Bearer {service.metrics_token.reveal(environ)}"
        except LookupError:
            return []  # told by local()
    place = f"service {service.name!r}: {service.metrics_url}"
    try:
        answer = httpx.get(service.metrics_url, timeout=configuration.monitor.scrape_timeout, headers=headers)
    except httpx.HTTPError as error:
        return [_warning(f"{place} does not answer: {error or type(error).__name__}", "start the server, or mend url")]
    if answer.status_code != 200:
        todo = "add instrument(app) to the server, or set metrics in [service]"
        return [_warning(f"{place} answers {answer.status_code}", todo)]
    return _edges(configuration, service, answer.text, place)


def learning(configuration: Configuration, environ: dict[str, str]) -> list[str]:
    """What a running monitor says of each target's past, a line each; nothing where none runs."""
    import httpx

    monitor = configuration.monitor
    try:
        headers = {"Authorization": f"Bearer {monitor.token.reveal(environ)}"} if monitor.token else {}
        url = f"{monitor.address}/api/v1/targets-state"
        targets = httpx.get(url, timeout=monitor.scrape_timeout, headers=headers).json()["data"]["targets"]
        said = [(f"{each['service']} {each['target']}", each["usual"]["text"]) for each in targets]
        return [f"{name}: {text.removeprefix('Drift: ')}" for name, text in said if text]
    except (httpx.HTTPError, LookupError, ValueError, TypeError):  # nobody there, or another program
        return []


def _retention(configuration: Configuration) -> list[Problem]:
    """Whether history is kept for as long as the warnings of drift need to begin."""
    kept = configuration.monitor.retention
    short = [target for target in configuration.targets if needed(kind(target)) > kept]
    if not short:
        return []
    names = ", ".join(f"{target.service} {target.name}" for target in short)
    most = format_duration(max(needed(kind(target)) for target in short))
    what = f"[monitor] retention = {format_duration(kept)} is too short a past for drift to be told of {names}"
    return [_warning(what, f"keep more than {most}; 15d is what the warnings are made for")]


def _pushed(configuration: Configuration, environ: dict[str, str]) -> list[Problem]:
    """What a running monitor says of the histograms that are pushed to it; nothing where none runs."""
    import httpx

    monitor = configuration.monitor
    try:
        headers = {"Authorization": f"Bearer {monitor.token.reveal(environ)}"} if monitor.token else {}
        text = httpx.get(f"{monitor.address}/metrics", timeout=monitor.scrape_timeout, headers=headers).text
    except (httpx.HTTPError, LookupError):
        return []
    problems = []
    for line in text.splitlines():
        if line.startswith(f"{HISTOGRAM_EDGE_MISSING.name}{{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            what = f"service {labels.get('service', '')!r}: {labels.get('metric', '')} comes without an edge at "
            todo = "give its histogram that edge (docs/node.md), or live with the estimate"
            problems.append(_warning(f"{what}{labels.get('limit', '')}, so its target is an estimate", todo))
    return problems


def _edges(configuration: Configuration, service: Service, text: str, place: str) -> list[Problem]:
    """Whether each histogram that is there has an edge at its target's limit."""
    problems: list[Problem] = []
    targets = configuration.targets_of(service.name)
    todo = "instrument the server with this monitor.toml, or set its histogram edges"
    for metric in sorted({target.indicator.metric for target in targets}):
        found = re.findall(rf'^{metric}_bucket{{[^}}]*le="([^"]+)"', text, re.MULTILINE)
        edges = {float(edge) for edge in found}
        missing = [limit for limit in histogram_limits(targets, metric) if edges and limit not in edges]
        problems += [
            _warning(f"{place}: {metric} has no edge at {limit:g}, so its target is an estimate", todo)
            for limit in missing
        ]
    if f"# TYPE {HTTP_DURATION.name} " not in text:
        todo = "instrument(app) mounts them; they appear with the first request"
        problems.append(_warning(f"{place} has no {HTTP_DURATION.name} yet", todo))
    return problems


def _processes(service: Service) -> list[Problem]:
    from anvil_monitor.exporter.processes import why_not_found

    reason = why_not_found(service)
    if not reason:
        return []
    todo = "start the server, or set port, pid_file, command or container in [service]"
    return [_warning(f"service {service.name!r}: no process found by {service.find_by}: {reason}", todo)]


def _data_folder(configuration: Configuration) -> list[Problem]:
    folder = configuration.monitor.data
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return [
            Problem(
                f"[monitor] data = {str(folder)!r} cannot be written",
                todo="choose a folder that can, with data or --data",
            )
        ]
    if Path(tempfile.gettempdir()) in folder.absolute().parents:
        return [
            _warning(
                f"[monitor] data = {str(folder)!r} is temporary: undelivered messages go with it", "choose another"
            )
        ]
    return []


def _reveal(secret: Secret, environ: dict[str, str], place: str, problems: list[Problem]) -> str | None:
    try:
        return secret.reveal(environ)
    except LookupError as error:
        problems.append(Problem(f"{place}: {error.args[0]}", todo="set it, then check again"))
        return None


def _refused(url: str) -> str:
    """Why nobody can send to ``url``, without a word of it."""
    if hooks.is_hook(url):
        return hooks.refused(url)
    if slackbot.is_bot(url):
        return slackbot.refused(url)
    import apprise

    return (
        "" if apprise.Apprise.instantiate(url, suppress_exceptions=True) is not None else "is no URL that Apprise takes"
    )


def _warning(what: str, todo: str) -> Problem:
    return Problem(what, todo=todo, severity="warning")
