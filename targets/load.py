"""``monitor.toml`` to a :class:`~.model.Configuration`: every mistake at once, each with its line and what to do.

An absent or empty file is a complete configuration: it watches the five Phase 2 targets (``phase2.toml``) of a server
on ``http://127.0.0.1:8000``. What a file may say is the data in :mod:`.settings`; this module walks it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from . import own, settings, telling
from .lines import Lines
from .model import (
    LOOPBACK,
    Channel,
    Configuration,
    Direction,
    Monitor,
    ProcessFinder,
    Secret,
    Service,
    Target,
)
from .problems import ConfigurationError, Problem
from .reader import Table
from .units import Unit

FILE_NAME = "monitor.toml"
ENVIRONMENT_VARIABLE = "ANVIL_MONITOR_CONFIG"


def find_configuration(environ: Mapping[str, str] | None = None) -> Path | None:
    """The file that ``ANVIL_MONITOR_CONFIG`` names, else ``monitor.toml`` here, else ``None`` (the defaults)."""
    named = (os.environ if environ is None else environ).get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def load(path: Path | None, environ: Mapping[str, str] | None = None) -> Configuration:
    """Read and validate ``path`` (``None``: the shipped defaults).

    Secrets are not read here, only their origin. Raises :class:`ConfigurationError` with every problem found.
    """
    if path is None:
        return parse("", None, environ)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        todo = f"make one with: anvil-monitor init --config {path}" if isinstance(error, FileNotFoundError) else ""
        raise ConfigurationError([Problem(f"cannot be read: {error.strerror}", path, todo=todo)]) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError([Problem(f"is not UTF-8 text: {error.reason} at byte {error.start}", path)]) from None
    return parse(text, path, environ)


def parse(text: str, path: Path | None = None, environ: Mapping[str, str] | None = None) -> Configuration:
    """The configuration that ``text`` describes; ``path`` is only named in problems and resolves relative paths."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+)", str(error))
        what = re.sub(r" \(at .*\)$", "", str(error))
        line = int(place.group(1)) if place else text.count("\n") + 1
        raise ConfigurationError([Problem(f"is not valid TOML: {what}", path, line)]) from None
    except ValueError:  # Python reads no whole number with more digits than this
        raise ConfigurationError([Problem("has a number of more than 4,300 digits", path)]) from None
    except RecursionError:
        raise ConfigurationError([Problem("is nested too deeply to be read", path)]) from None
    defaults = tomllib.loads((resources.files(__package__) / "phase2.toml").read_text(encoding="utf-8"))["targets"]
    problems: list[Problem] = []
    root = Table("", document, Lines(text), path, problems)
    root.allow(("service", "targets", "channels", "maintenance", "monitor"))

    services = _services(root)
    monitor = _monitor(root.table("monitor"), path, os.environ if environ is None else environ)
    names = tuple(service.name for service in services)
    targets = _targets(root.table("targets"), defaults, names, monitor)
    table = root.table("channels")
    known = tuple(dict.fromkeys(target.name for target in targets))
    channels = telling.channels(table, _channels(table, names), known)
    maintenance = telling.maintenance(root, names, known)
    if any(problem.severity == "error" for problem in problems):
        raise ConfigurationError(sorted(problems, key=lambda problem: problem.line))
    return Configuration(services, targets, channels, monitor, path, maintenance)


def _services(root: Table) -> tuple[Service, ...]:
    services: list[Service] = []
    for table in root.tables("service") or [root.table("service")]:
        table.allow(("name", "url", "metrics", "metrics_token", "probes", "pages", "origins", *ProcessFinder))
        name = table.name_of("name", default="app")
        url = table.url("url", default="http://127.0.0.1:8000")
        # A server that sends its metrics itself has none to be fetched.
        pushed = table.values.get("metrics") == settings.OTLP
        metrics = "" if pushed else table.url("metrics", default=f"{url.rstrip('/')}/metrics")
        if any(service.name == name for service in services):
            table.problem("name", f"the name {name!r} is taken by another service", "give each service its own name")
        given = [finder for finder in ProcessFinder if finder in table.values]
        if len(given) > 1:
            table.problem(given[1], f"only one of {', '.join(ProcessFinder)} can find the processes", "keep one")
        find_by = given[0] if given else ProcessFinder.PORT
        if find_by is ProcessFinder.PORT:
            parts = urlsplit(url)
            find = str(table.integer("port", default=parts.port or (443 if parts.scheme == "https" else 80),
                                     least=1, most=65535))  # fmt: skip
        else:
            find = table.text(find_by, default="")
            if not find:
                table.problem(find_by, f"{find_by} is empty", "say what to look for, or leave it out to find by port")
        token = table.secret("metrics_token")
        if pushed and token is not None:
            table.problem("metrics_token", 'metrics = "otlp" is pushed, not fetched: it has no metrics_token',
                          "take metrics_token out; [monitor] token guards what is pushed")  # fmt: skip
        probes = table.urls("probes") or (url,)
        pages = table.matching("pages", settings.PAGE, settings.PAGE_RULE)
        origins = table.matching("origins", settings.ORIGIN, settings.ORIGIN_RULE)
        services.append(Service(name, url, metrics, find_by, find, token, probes, pages, origins))
    return tuple(services)


# What to do about a target that is neither shipped nor says what it is.
OWN: Final = f'; or, for one of your own, say its kind = "…": {", ".join(own.KINDS)}'


def _targets(
    tables: Table, defaults: dict[str, dict[str, Any]], services: tuple[str, ...], monitor: Monitor
) -> tuple[Target, ...]:
    tables.allow((*settings.KINDS, *own.names_of(tables)), kind="target", todo=OWN)
    targets: list[Target] = []
    for name, kind in settings.KINDS.items():
        table = tables.table(name, defaults=defaults[name])
        keys: tuple[str, ...] = ("limit", "window", "for", "keep_firing_for", "silence", "services", "enabled")
        keys += ("floor",) if kind.counted else ()
        keys += ("percentile",) if kind.percentile else ()
        table.allow(keys)
        limit = table.quantity("limit", kind.unit)
        window = table.window("window", monitor.scrape_interval)
        percentile = table.number("percentile", least=1, most=99.99) if kind.percentile else 0.0
        hold, keep = table.duration("for", zero=True), table.duration("keep_firing_for", zero=True)
        floor = table.integer("floor", least=0) if kind.counted else 0
        silence = table.duration("silence", default=settings.SILENCE)
        chosen = table.names("services", among=services, kind="service") or services
        if not table.boolean("enabled", default=True):
            continue
        indicator = kind.indicator(percentile / 100)
        direction = Direction.ABOVE if kind.unit.is_count else Direction.BELOW
        targets += [
            Target(
                service,
                name,
                kind.title,
                kind.unit,
                limit,
                direction,
                indicator,
                window,
                hold,
                keep,
                floor,
                silence,
            )
            for service in services
            if service in chosen
        ]
    return _with_what_they_rest_on([*targets, *own.targets(tables, services, monitor)], tables)


def _with_what_they_rest_on(targets: list[Target], tables: Table) -> tuple[Target, ...]:
    """Refuse a capacity target whose other target is not watched: it could never be missed."""
    for target in targets:
        other = getattr(target.indicator, "while_holds", None)
        if other and not any(each.name == other and each.service == target.service for each in targets):
            todo = f"watch {other} of {target.service!r} too, or set enabled = false on {target.name}"
            tables.problem(target.name, f"{target.name} asks whether {other} still holds, which is not watched", todo)
    return tuple(sorted(targets, key=lambda target: target.service))


def _channels(tables: Table, services: tuple[str, ...]) -> tuple[Channel, ...]:
    channels: list[Channel] = []
    for name in tables.values:
        if not settings.NAME.fullmatch(name):
            tables.problem(name, f"channel name {name!r} is not allowed", settings.NAME_RULE)
        table = tables.table(name)
        table.allow((*telling.CHANNEL_KEYS, "url", "severities", "services", "format", "template", "signing_key"))
        if "url" not in table.values:
            table.problem("", f"channel {name!r} has no url", f'add url = "env:{name.upper().replace("-", "_")}_URL"')
        url = table.secret("url") or Secret("env:MISSING")
        severities = table.names("severities", among=(*settings.SEVERITIES, settings.INFO), kind="severity")
        chosen = table.names("services", among=services, kind="service")
        form, template = table.one_of("format", settings.FORMATS), table.file("template")
        if template is not None and not form:
            todo = f'add format = "…", one of {", ".join(settings.FORMATS)}'
            table.problem("template", f"the template of channel {name!r} is for no format", todo)
        channels.append(
            Channel(
                name,
                url,
                severities or settings.SEVERITIES,
                chosen,
                form,
                template,
                table.secret("signing_key"),
            )
        )
    return tuple(channels)


def _monitor(table: Table, path: Path | None, environ: Mapping[str, str]) -> Monitor:
    more = ("listen", "otlp", *telling.MONITOR_KEYS)
    table.allow((*more, "data", "token", "rules", "heartbeat", "retention_size", "templates", *settings.MONITOR_TIMES))
    host, port = table.address("listen", default=settings.LISTEN)
    otlp = None if table.values.get("otlp") == settings.OFF else table.address("otlp", default=settings.LISTEN_OTLP)
    times = {name: table.duration(name, default=default) for name, default in settings.MONITOR_TIMES.items()}
    if "scrape_timeout" not in table.values:
        times["scrape_timeout"] = min(times["scrape_timeout"], times["scrape_interval"])
    if times["scrape_timeout"] > times["scrape_interval"]:
        table.problem("scrape_timeout", "scrape_timeout is longer than scrape_interval", "lower it, or leave it out")
    token = table.secret("token")
    for key, place in (("listen", host), ("otlp", otlp[0] if otlp else LOOPBACK[0])):
        if place not in LOOPBACK and token is None:
            table.problem(key, f"{key} = {table.shown(key)} is open to other machines and has no token",
                          f'add token = "env:ANVIL_MONITOR_TOKEN", or listen on {LOOPBACK[0]}')  # fmt: skip
    data = table.path("data", table.text("data", default="")) if "data" in table.values else _state_home(environ)
    if not data.is_absolute() and path is not None:
        data = path.parent / data
    base = path.parent if path is not None else Path()
    given = table.matching("rules", settings.RULE_FILE, settings.RULE_FILE_RULE)
    rules = tuple(str(base / table.path("rules", each)) for each in given)
    size = table.quantity("retention_size", Unit.BYTES, default=settings.RETENTION_SIZE)
    templates = table.file("templates")
    return Monitor(heartbeat=table.secret("heartbeat"),
                   host=host, port=port, data=data, token=token, otlp=otlp, rules=rules, retention_size=size,
                   templates=templates, flap_limit=telling.flap_limit(table),
                   external_url=telling.base_url(table, "external_url"),
                   prometheus=telling.base_url(table, "prometheus"),
                   runbooks=telling.runbooks(table),
                   **times)  # fmt: skip


def _state_home(environ: Mapping[str, str]) -> Path:
    """The XDG state folder: where a program keeps what must survive a restart but is no one's document."""
    base = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return Path(base) / "anvil-monitor"
