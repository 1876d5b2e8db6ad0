"""The whole system in one process: ``anvil-monitor up``.

:func:`run` puts the parts together and runs them until it is told to stop::

    server ──scrape──> store ──rules──> alerts ──pipeline──> outbox ──delivery──> people
                         └──────────── page, API, terminal

The parts know nothing of each other; each loop is restarted if it fails, so that a defect in one is a log line and
never the end of the measuring. The rules are the very rule file that Prometheus gets (``generate``), read back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from anvil_monitor.alerts import actions, holdingapi, letters, rulefile, salvage, templates
from anvil_monitor.alerts.delivery import Delivery
from anvil_monitor.alerts.guard import Guard
from anvil_monitor.alerts.heartbeat import Heartbeat
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.notifier import OUTBOX_FILE
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.rulefile import Group
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.alerts.warming import LEAD
from anvil_monitor.exporter.exposition import Family
from anvil_monitor.exporter.otlp.receiver import PATH as OTLP_PATH
from anvil_monitor.exporter.server import Collector, otlp_app, routes
from anvil_monitor.targets import Configuration, ConfigurationError, Problem

from . import (
    allocator,
    api,
    apistate,
    federate,
    remotewrite,
    runbookpages,
    selfmetrics,
    serving,
    terminal,
    userrules,
    web,
)
from .alive import ailing
from .history.history import History, HistoryError
from .history.joined import MEMORY, HistoryStore
from .overview import Overview
from .past import past
from .promql import Engine
from .restore import restore
from .rulemanager import ActiveAlert, RuleManager, State
from .scrape import Scraper, client, endpoints
from .status import Board
from .steady import Steady
from .threads import Threads

logger = logging.getLogger(__name__)

RULE_FILE: Final = Path("rules.yml")
# Seconds. A rule that takes longer would miss its slots; a page should not wait longer.
RULE_TIMEOUT: Final = 10.0
QUERY_TIMEOUT: Final = 30.0
PICTURE_TIMEOUT: Final = 3.0
# Of the 5 s in which everything ends: delivery gets most, the rest is quick.
DELIVERY_GRACE: Final = 3.0


async def run(
    configuration: Configuration,
    *,
    environ: dict[str, str],
    stop: asyncio.Event,
    ready: Callable[[str], object] | None = None,
    view: Callable[[str], terminal.View] | None = None,
    revise: Callable[[Sequence[Group]], Sequence[Group]] = tuple,
) -> None:
    """Watch until ``stop`` is set; everything that was started has then ended, within 5 s.

    ``ready`` is called with the monitor's own URL once it answers. ``view`` makes what shows the state to a person
    (default: the terminal); ``revise`` may change the rules that are evaluated (a drill marks its own). Raises
    :class:`ConfigurationError`, before anything is started, for an address in use, an outbox or a rule file that cannot
    be used and a token that cannot be read.
    """
    token = _token(configuration, environ)
    own_groups = userrules.load(configuration)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(serving.bind(configuration))
        outbox = stack.enter_context(_outbox(configuration))
        history = stack.enter_context(_history(configuration))
        rule_thread = stack.enter_context(Threads(1, "rules"))
        query_threads = stack.enter_context(Threads(2, "queries"))
        write_thread = stack.enter_context(Threads(1, "remote write"))
        own_thread = stack.enter_context(Threads(1, "own state"))  # a long query must not delay these
        disk_thread = stack.enter_context(Threads(1, "history"))
        http = await stack.enter_async_context(client())
        url = serving.url(listener)

        clock = Steady()
        started = clock()
        store = HistoryStore(history, memory_seconds=min(MEMORY, configuration.monitor.retention))
        engine = Engine(store, timeout=RULE_TIMEOUT)
        pictures = past(Engine(store, timeout=PICTURE_TIMEOUT).range)
        delivery = _delivery(configuration, outbox, environ, pictures, clock)
        board = Board(configuration, started)
        signed = actions.links_of(configuration)
        groups = revise([*rulefile.load(rulefile.dump(rule_groups(configuration)), RULE_FILE), *own_groups])
        pipeline = Pipeline(
            configuration,
            outbox,
            clock,
            measure=board.measure,
            holds=userrules.holds(groups),
            links=signed.of if signed else None,
        )
        look: list[float | None] = [None]  # when the pipeline wants to look at its alerts again

        def evaluated(at: float) -> None:
            board.update(at, engine.instant, engine.range, rules.alerts())
            look[0] = pipeline.update(_alerts(rules))
            delivery.expect([*map(_alert, rules.soon(LEAD)), *pipeline.soon(LEAD)])

        def expand(text: str, data: templates.Data) -> str:
            return templates.parse(text).expand(replace(data, external_url=configuration.monitor.reached_at))

        rules = RuleManager(
            groups,
            engine.instant,
            store.append,
            expand,
            rule_thread,
            evaluated,
            clock,
            restore=partial(restore, select=store.select),
        )
        monitor = configuration.monitor
        scrapers = [
            Scraper(endpoint, store, http, monitor.scrape_interval, monitor.scrape_timeout, environ, clock)
            for endpoint in endpoints(configuration, f"{url}/metrics")
        ]
        overview = Overview(configuration, board, rules.groups, scrapers, pipeline, outbox, store, clock, started)
        sources = apistate.Sources(
            store,
            Engine(store, timeout=QUERY_TIMEOUT),
            rules.groups,
            scrapers,
            clock,
            query_threads,
            started,
            configuration,
            QUERY_TIMEOUT,
        )
        collector = stack.enter_context(contextlib.closing(Collector(configuration)))
        heartbeat = Heartbeat.of(monitor, environ)

        def collect() -> list[Family]:
            own = selfmetrics.families(store, rules, scrapers, outbox, delivery)
            return [*collector.collect(), *own, *(heartbeat.families() if heartbeat else ())]

        # What is pushed comes to the monitor's own address, and to the one where senders look first.
        written = remotewrite.Receiver(store, write_thread, clock).route()
        held = holdingapi.routes(outbox, pipeline.firing, clock, own_thread)
        style = partial(web.page_file, "page.css")
        held += runbookpages.routes(configuration, style)
        if signed:
            held += actions.routes(signed, outbox, pipeline.firing, style, clock, own_thread)
        served = [*api.routes(sources), federate.route(sources), written, *routes(collector), *held]
        app = web.create_app(overview, served, collect, own_thread, token)
        pushed, no_otlp = serving.bind_otlp(configuration)
        shown = stack.enter_context(contextlib.closing((view or _terminal)(url)))

        async def keep_house() -> None:
            while True:
                await asyncio.sleep(60)
                await asyncio.get_running_loop().run_in_executor(disk_thread, store.maintain)
                await asyncio.get_running_loop().run_in_executor(disk_thread, allocator.give_back)

        async def sick() -> str:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(own_thread, ailing, rules.groups, outbox, clock(), started)

        async def tick() -> None:
            loop = asyncio.get_running_loop()
            while True:
                await asyncio.sleep(0.2)
                if look[0] is not None and clock() >= look[0]:
                    look[0] = await loop.run_in_executor(rule_thread, pipeline.tick)

        async def show() -> None:
            loop = asyncio.get_running_loop()
            while True:
                shown.show(await loop.run_in_executor(own_thread, overview.to_json))
                await asyncio.sleep(1)

        async with contextlib.AsyncExitStack() as servers:
            await servers.enter_async_context(serving.served(app, listener))
            shown.say(f"page and API on {url}")
            if pushed is not None:
                stack.enter_context(pushed)
                guarded = Guard(otlp_app(collector), pushed.getsockname()[0], token)
                await servers.enter_async_context(serving.served(guarded, pushed))
                shown.say(f"OpenTelemetry metrics are taken on {serving.url(pushed)}{OTLP_PATH}")
            elif no_otlp:
                shown.say(no_otlp)
            if ready is not None:
                ready(url)
            loops = {f"scrape {scraper.endpoint.url}": scraper.run for scraper in scrapers}
            loops |= {"rules": rules.run, "notifications": tick, "house": keep_house, "terminal": show}
            if heartbeat:
                loops["heartbeat"] = partial(heartbeat.run, sick)
            tasks = [asyncio.create_task(_always(name, each), name=name) for name, each in loops.items()]
            sending = asyncio.create_task(_always("delivery", delivery.run))
            try:
                await stop.wait()
                shown.say("ending: nothing new is collected, messages under way are sent")
            finally:
                await _end(*tasks)
                await delivery.close(DELIVERY_GRACE)
                await _end(sending)


def _alerts(rules: RuleManager) -> list[Alert]:
    """What the pipeline is told: alerts that fire, and those that have ended."""
    return [_alert(alert) for alert in rules.alerts() if alert.state is not State.PENDING]


def _alert(alert: ActiveAlert) -> Alert:
    return Alert(dict(alert.labels), alert.annotations, alert.active_at, alert.resolved_at)


async def _always(name: str, run_: Callable[[], Awaitable[Any]]) -> None:
    """Run a loop for ever: one that fails is told in the log and begins again after a second."""
    while True:
        try:
            await run_()
            return
        except Exception:
            logger.exception("%s failed and begins again", name)
        await asyncio.sleep(1)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _outbox(configuration: Configuration) -> Iterator[Outbox]:
    with contextlib.ExitStack() as stack:
        try:
            path = configuration.monitor.data.expanduser() / OUTBOX_FILE
            names = [channel.name for channel in configuration.channels]
            outbox = stack.enter_context(contextlib.closing(salvage.opened(path, names)))
        except OutboxError as error:
            raise ConfigurationError([Problem(str(error))]) from None
        yield outbox


@contextlib.contextmanager
def _history(configuration: Configuration) -> Iterator[History]:
    monitor = configuration.monitor
    try:
        history = History(monitor.data.expanduser() / "history", monitor.retention, monitor.retention_size)
    except HistoryError as error:
        raise ConfigurationError([Problem(str(error))]) from None
    with contextlib.closing(history):
        yield history


def _delivery(
    configuration: Configuration,
    outbox: Outbox,
    environ: dict[str, str],
    history: letters.History,
    clock: Callable[[], float],
) -> Delivery:
    try:
        return Delivery(configuration, outbox, environ, clock=clock, history=history)
    except OutboxError as error:  # another monitor sends from it
        raise ConfigurationError([Problem(str(error))]) from None


def _token(configuration: Configuration, environ: dict[str, str]) -> str | None:
    if configuration.monitor.token is None:
        return None
    try:
        return configuration.monitor.token.reveal(environ)
    except LookupError as error:
        raise ConfigurationError([Problem(f"[monitor] token: {error}", configuration.path)]) from None


def _terminal(url: str) -> terminal.View:
    return terminal.view(sys.stdout, url)
