"""What the commands do, apart from ``up``: init, check, generate, and serving one ASGI application until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from anvil_monitor.alerts.driftkinds import kind
from anvil_monitor.alerts.learning import needed
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.targets import Configuration, ConfigurationError, Problem, format_duration, load

from . import deadrules, preflight, serving, userrules


def init(path: Path) -> int:
    """Write the commented template to ``path``; refuses to replace a file."""
    text = (resources.files("anvil_monitor.targets") / "template.toml").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(
            [Problem("exists already", path, todo="edit it, or name another with --config")]
        ) from None
    except OSError as error:
        raise ConfigurationError([Problem(f"cannot be written: {error.strerror}", path)]) from None
    print(f"wrote {path}. Next: set url and a channel in it, then anvil-monitor check")
    return 0


def check(configuration: Configuration, *, offline: bool, environ: dict[str, str]) -> int:
    """Print what the configuration promises and every problem with what it points at; 2 if one is an error."""
    print(f"{configuration.path or 'no monitor.toml: the shipped defaults'}")
    for target in configuration.targets:
        print(f"  {target.service}: {target.title.lower()} {target.promise} ({target.measure})")
    for line in ([] if offline else preflight.learning(configuration, environ)) or _history_needed(configuration):
        print(f"  drift: {line}")
    for channel in configuration.channels:
        chosen = [*channel.severities, *channel.services, *channel.targets]
        chosen += [f"{name}={'|'.join(values)}" for name, values in channel.labels]
        when = f", {channel.hours}" if channel.hours else ""
        if channel.escalate_after:
            when += f", {format_duration(channel.escalate_after)} after another one if nobody acknowledges"
        print(f"  channel {channel.name}: {', '.join(chosen)}, {channel.url}{when}")
    for window in configuration.maintenance:
        about = ", ".join((*window.services, *window.targets)) or "everything"
        print(f"  maintenance {window.name}: {about}, {window.when}")
    if heartbeat := configuration.monitor.heartbeat:
        print(f"  heartbeat: every {format_duration(configuration.monitor.heartbeat_interval)}, {heartbeat}")
    problems = preflight.local(configuration, environ) + userrules.problems(configuration)
    if not offline:
        problems += preflight.remote(configuration, environ)
    groups = [*rule_groups(configuration), *userrules.readable(configuration)]
    problems += deadrules.problems(groups, None if offline else preflight.seen(configuration, environ))
    for problem in problems:
        print(f"{problem.severity}: {problem}", file=sys.stderr)
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    print(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return 2 if errors else 0


def _history_needed(configuration: Configuration) -> list[str]:
    """How much of a past the warnings of drift need, the targets that need alike in a line."""
    found: dict[str, list[str]] = {}
    for target in configuration.targets:
        found.setdefault(format_duration(needed(kind(target))), []).append(f"{target.service} {target.name}")
    return [f"told after {need} of history: {', '.join(names)}" for need, names in found.items()]


def generate(config: Path | None, into: Path, *, check: bool) -> int:
    """Write every generated file below ``into``, or with ``check`` name those that are not fresh (exit 1)."""
    from . import generate as generator

    configuration = load(config) if config else generator.bundle_configuration()
    if check:
        stale = generator.check(into, configuration)
        for path in stale:
            print(f"not fresh: {path}")
        every = len(generator.files(configuration))
        if stale:
            print(f"{len(stale)} of {every} generated files are not fresh: run anvil-monitor generate")
        else:
            print(f"all {every} generated files are fresh")
        return 1 if stale else 0
    for path in generator.write(into, configuration):
        print(path)
    return 0


def serve(app: Any, configuration: Configuration, what: str, otlp: Any = None) -> int:
    """Serve ``app``, and ``otlp`` on an address of its own, until SIGINT or SIGTERM."""

    async def run(stop: asyncio.Event) -> None:
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(serving.bind(configuration))
            await stack.enter_async_context(serving.served(app, listener, grace=3))
            print(f"anvil-monitor {what} on {serving.url(listener)}", flush=True)
            pushed, problem = serving.bind_otlp(configuration) if otlp is not None else (None, "")
            if pushed is not None:
                await stack.enter_async_context(serving.served(otlp, stack.enter_context(pushed), grace=3))
                print(f"OpenTelemetry metrics are taken on {serving.url(pushed)}", flush=True)
            elif problem:
                print(f"warning: {problem}", file=sys.stderr, flush=True)
            await stop.wait()

    return asyncio.run(serving.until_signalled(run))
