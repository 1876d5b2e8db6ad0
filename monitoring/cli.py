"""The command ``anvil-monitor``: a parser and, for each command, the few lines that call the room which does it.

Exit status: 0 done, 1 something that was checked is not as it should be, 2 bad input (nothing was started).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from anvil_monitor.targets import (
    LOOPBACK,
    Configuration,
    ConfigurationError,
    Monitor,
    Problem,
    find_configuration,
    load,
)
from anvil_monitor.targets.settings import OFF

from . import (
    asking,
    backtestcommand,
    commands,
    drillcommand,
    explaincommand,
    holding,
    rulecommands,
    runbookcommand,
    telling,
)

EXAMPLES = """\
examples:
  anvil-monitor init                 write a commented monitor.toml
  anvil-monitor check                validate it, and everything it points at
  anvil-monitor up                   watch the server; page on http://127.0.0.1:9109
  anvil-monitor query target:value   ask PromQL
  anvil-monitor explain TargetMissed why does it fire, or not?
  anvil-monitor runbook TargetMissed what to do about it
  anvil-monitor backtest             how often would each alert have fired last week?
  anvil-monitor drill                does an alert reach everybody, and how fast?
  anvil-monitor generate --check     are rules, dashboards and provisioning files fresh?
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever called has closed it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # a terminal that has no … shows ?
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except ConfigurationError as error:
        for problem in error.problems:
            print(f"{problem.severity}: {problem}", file=sys.stderr)
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''}; nothing was started", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _say_no_more()
        return 0
    except UnicodeEncodeError:
        print("error: what was given is no UTF-8 text", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder that is somebody else's
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        _say_no_more()
        return 1
    return status


def _say_no_more() -> None:
    """What is still to be printed goes nowhere: it cannot be written, and must not fail once more at the end."""
    with contextlib.suppress(OSError):  # no file at all, where somebody else's program calls
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """The whole command line, also read by the test of the documentation."""
    top = argparse.ArgumentParser(
        prog="anvil-monitor",
        description="Watch a server's performance targets and tell people when one is missed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"anvil-monitor {metadata.version('anvil-monitor')}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help_: str, example: str
    ) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name,
            help=help_,
            description=help_[0].upper() + help_[1:] + ".",
            epilog=f"examples:\n{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    init = command(
        "init", _init, "write a commented monitor.toml", "  anvil-monitor init --config /etc/anvil/monitor.toml"
    )
    init.add_argument("--config", type=Path, default=Path("monitor.toml"), metavar="FILE", help="the file to write")

    check = command(
        "check", _check, "validate monitor.toml and everything it points at", "  anvil-monitor check --offline"
    )
    _config(check)
    check.add_argument("--offline", action="store_true", help="ask no server, look for no process")

    up = command(
        "up",
        _up,
        "collect, store, evaluate, notify and serve the page: one process",
        "  anvil-monitor up\n  anvil-monitor up --config examples/monitor.toml --listen 127.0.0.1:9200",
    )
    _config(up)
    _listen(up, "where the page and the API answer (default: [monitor] listen)")
    up.add_argument("--data", type=Path, metavar="DIR", help="folder of outbox and ledger (default: [monitor] data)")

    generate = command(
        "generate",
        _generate,
        "write rules, rule tests, dashboards and provisioning files from the targets",
        "  anvil-monitor generate\n  anvil-monitor generate --check\n"
        "  anvil-monitor generate --config monitor.toml --into build/monitoring",
    )
    generate.add_argument("--config", type=Path, metavar="FILE", help="default: monitoring/bundle.toml")
    generate.add_argument(
        "--into", type=Path, default=Path(), metavar="DIR", help="the tree to write into (default: here)"
    )
    generate.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not fresh")

    exporter = command(
        "exporter",
        _exporter,
        "serve host, process and probe metrics, and what servers push over OTLP, for Prometheus",
        "  anvil-monitor exporter --listen 127.0.0.1:9464\n"
        "  anvil-monitor exporter --listen 0.0.0.0:9464 --otlp 0.0.0.0:4318 --trusted-network",
    )
    notifier = command(
        "notifier",
        _notifier,
        "take Alertmanager's webhook and deliver it through Apprise",
        "  ANVIL_NOTIFIER_TOKEN=… anvil-monitor notifier --listen 0.0.0.0:9095",
    )
    exporter.add_argument(
        "--otlp", metavar="HOST:PORT", help="where it takes OpenTelemetry metrics, or off (default: [monitor] otlp)"
    )
    for sub, port in ((exporter, 9464), (notifier, 9095)):
        _config(sub)
        _listen(sub, f"where it answers (default: 127.0.0.1:{port})", f"127.0.0.1:{port}")
        sub.add_argument(
            "--trusted-network",
            action="store_true",
            help="allow a bind address beyond loopback without a token, e.g. inside a private container network",
        )
    asking.add(command, _config, _load)
    holding.add(command, _config, _load)
    rulecommands.add(command)
    backtestcommand.add(command, _config, _load)
    explaincommand.add(command, _config, _load)
    runbookcommand.add(command, _config, _load)
    drillcommand.add(command, _config, _load)
    telling.add(command, _config, _load)
    return top


def _config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="default: the file that ANVIL_MONITOR_CONFIG names, else ./monitor.toml, else the five Phase 2 targets",
    )


def _listen(sub: argparse.ArgumentParser, text: str, default: str | None = None) -> None:
    sub.add_argument("--listen", metavar="HOST:PORT", default=default, help=text)


def _load(options: argparse.Namespace) -> Configuration:
    configuration = load(options.config or find_configuration(), os.environ)
    monitor = configuration.monitor
    if getattr(options, "listen", None):
        host, port = _opened(options, "listen", monitor)
        monitor = replace(monitor, host=host, port=port)
    if getattr(options, "otlp", None):
        monitor = replace(monitor, otlp=None if options.otlp == OFF else _opened(options, "otlp", monitor))
    if getattr(options, "data", None):
        try:
            monitor = replace(monitor, data=options.data.expanduser())
        except RuntimeError:
            what = f"--data {options.data}: there is no home folder for ~"
            raise ConfigurationError([Problem(what, todo="write the whole path")]) from None
    return replace(configuration, monitor=monitor)


def _opened(options: argparse.Namespace, option: str, monitor: Monitor) -> tuple[str, int]:
    """The address that ``--option`` gives. Beyond this machine it asks for a token, or for the word of the caller."""
    text = getattr(options, option)
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ConfigurationError([Problem(f"--{option} {text!r} must be HOST:PORT", todo='as in "127.0.0.1:9109"')])
    if host.strip("[]") not in LOOPBACK and monitor.token is None and not getattr(options, "trusted_network", False):
        what = f"--{option} {text} is open to other machines and there is no token"
        todo = 'set [monitor] token = "env:ANVIL_MONITOR_TOKEN", or listen on 127.0.0.1'
        raise ConfigurationError([Problem(what, todo=todo)])
    return host.strip("[]"), int(port)


def _init(options: argparse.Namespace) -> int:
    return commands.init(options.config)


def _check(options: argparse.Namespace) -> int:
    return commands.check(_load(options), offline=options.offline, environ=dict(os.environ))


def _up(options: argparse.Namespace) -> int:
    from . import allocator, embedded, serving

    configuration = _load(options)
    environ = dict(os.environ)
    allocator.keep_freed_pages()
    return asyncio.run(serving.until_signalled(lambda stop: embedded.run(configuration, environ=environ, stop=stop)))


def _generate(options: argparse.Namespace) -> int:
    return commands.generate(options.config, options.into, check=options.check)


def _exporter(options: argparse.Namespace) -> int:
    from anvil_monitor.alerts.guard import Guard
    from anvil_monitor.exporter.server import Collector, create_app, otlp_app

    configuration = _load(options)
    monitor = configuration.monitor
    token = None
    if monitor.token is not None and not options.trusted_network:
        try:
            token = monitor.token.reveal(dict(os.environ))
        except LookupError as error:
            raise ConfigurationError([Problem(f"[monitor] token: {error.args[0]}", configuration.path)]) from None
    collector = Collector(configuration)
    app: Any = create_app(configuration, collector)
    otlp: Any = otlp_app(collector)
    if not options.trusted_network:
        app, otlp = Guard(app, monitor.host, token), Guard(otlp, monitor.otlp[0] if monitor.otlp else "", token)
    with contextlib.closing(collector):
        return commands.serve(app, configuration, "exporter", otlp)


def _notifier(options: argparse.Namespace) -> int:
    from anvil_monitor.alerts.notifier import create_app

    configuration = _load(options)
    style = resources.files(__package__) / "page" / "page.css"  # of the page; the rest of it is not loaded here
    app = create_app(configuration, dict(os.environ), css=style.read_bytes, trusted=options.trusted_network)
    return commands.serve(app, configuration, "notifier")


if __name__ == "__main__":
    sys.exit(main())
