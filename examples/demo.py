"""Show the main job: a real server, real traffic, a real breach, a real message; then its recovery.

Starts the example shop with two workers, traffic at it, ``anvil-monitor up`` beside it and two places for messages to
arrive (a webhook and a mail server), all on 127.0.0.1. Waits until all five targets show a live value, makes the shop
slow for real, waits for the message at both places, lets it recover, waits for the message that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a file (scripts/demo --help), not only with -m

from examples.inbox import Inbox, News  # noqa: E402
from examples.processes import DiedError, Processes, free_port  # noqa: E402

SLOW = {"seconds": 0.8, "memory_mb": 700}
BREAKS = ("API response time", "Frontend load time", "Database query time", "Server memory")
SINKS = ("webhook", "mail")
LIVE_WITHIN, TOLD_WITHIN, RECOVERED_WITHIN = 60.0, 60.0, 90.0  # seconds


class TooLateError(Exception):
    """Something did not happen in the time that the demo promises."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def clear_line() -> None:
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)


def wait(what: str, within: float, processes: Processes, look: Callable[[], tuple[bool, str]]) -> float:
    """Look every 0.2 s until it is so, showing what there is; the seconds it took. Raises :class:`TooLateError`."""
    began = shown = time.monotonic()
    while True:
        processes.check()
        done, state = look()
        now = time.monotonic()
        if sys.stdout.isatty() and now - began > 1:
            line = f"  … {now - began:3.0f} s  {state}"[: shutil.get_terminal_size().columns - 1]
            clear_line()
            print(line, end="", flush=True)
        elif now - shown >= 5 and not done:
            say(f"… {now - began:.0f} s: {state}")
            shown = now
        if done or now - began > within:
            clear_line()
            if done:
                return now - began
            raise TooLateError(f"{what} took longer than {within:.0f} s: {state}")
        time.sleep(0.2)


def fetch(url: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON at ``url`` (POST, if there is a ``body``)."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=5) as response:
        return json.load(response)


class Demo:
    """The story, step by step. ``folder`` holds everything it writes: configuration, database, logs, messages."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        ports = [free_port(port) for port in (8000, 9109, 8025, 8026)]
        self.server, self.monitor = (f"http://127.0.0.1:{port}" for port in ports[:2])
        self.state = f"{self.monitor}/api/v1/targets-state"  # what the page polls
        self.ports, self.inbox = ports, Inbox(folder / "messages.jsonl")
        self.since: dict[str, tuple[float, float]] = {}  # of a target: when it was missed, when its alert fired
        configuration = (ROOT / "examples/monitor.toml").read_text()
        configuration = configuration.replace("127.0.0.1:8000", f"127.0.0.1:{ports[0]}")
        configuration = configuration.replace("127.0.0.1:9109", f"127.0.0.1:{ports[1]}")
        self.configuration = folder / "monitor.toml"
        self.configuration.write_text(configuration)
        environ = dict(
            os.environ,
            PYTHONUNBUFFERED="1",
            ANVIL_MONITOR_CONFIG=str(self.configuration),
            ANVIL_MONITOR_PAGES=str(folder / "pages"),
            SHOP_DATA=str(folder / "shop"),
            ANVIL_WEBHOOK_URL=f"json://127.0.0.1:{ports[2]}/alerts",
            ANVIL_MAIL_URL=f"mailto://127.0.0.1:{ports[3]}/?from=monitor@example.org&to=oncall@example.org",
        )
        self.processes = Processes(folder, environ)

    def run(self) -> None:
        """Everything, from start to recovery."""
        self.start()
        took = wait("a live value of all five targets", LIVE_WITHIN, self.processes, self.live)
        say(f"All five targets are live after {took:.0f} s:")
        self.table()
        took = wait("a quiet start", LIVE_WITHIN, self.processes, self.settled)
        say(f"Everybody has come and every promise is kept ({took:.0f} s).")
        self.recover(self.break_it())

    def start(self) -> None:
        host, port = "127.0.0.1", str(self.ports[0])
        start = self.processes.start
        start("sinks", "examples.sinks", "--webhook-port", str(self.ports[2]), "--mail-port", str(self.ports[3]),
              "--record", str(self.inbox.record))  # fmt: skip
        start("server", "uvicorn", "examples.server:app", "--host", host, "--port", port, "--workers", "2",
              "--timeout-keep-alive", "120", "--no-access-log", "--log-level", "warning")  # fmt: skip
        took = wait("the server's start", 30, self.processes, lambda: self.answers(f"{self.server}/api/items/1"))
        say(f"The shop is up at {self.server} with 2 workers ({took:.1f} s).")
        start("traffic", "examples.traffic", "--url", self.server,
              "--users", str(self.options.users), "--rate", str(self.options.rate))  # fmt: skip
        say(f"{self.options.users} people, each at their own address, send {self.options.rate:g} requests a second.")
        start("monitor", "anvil_monitor.monitoring.cli", "up", "--config", str(self.configuration))
        took = wait("the monitor's start", 30, self.processes, lambda: self.answers(self.state))
        say(f"anvil-monitor up is watching it; its page: {self.monitor}/ ({took:.1f} s)")

    def break_it(self) -> float:
        """Make the shop slow, wait until both sinks told of every target that this breaks; the time of the breach."""
        fetch(f"{self.server}/demo/slow", SLOW)
        breach = time.time()
        say(f"Broke it: every query now takes {SLOW['seconds']} s longer, a worker took {SLOW['memory_mb']} MB.")
        wait("the message", TOLD_WITHIN, self.processes, lambda: self.told("missed", breach))
        self.table()
        missed, fired = self.since[BREAKS[0]]
        for sink in SINKS:
            message = self.inbox.first(sink, BREAKS[0], "missed", breach)
            assert message
            parts = f"{missed - breach:.1f} s until it was missed, {fired - missed:.1f} s that the rule holds"
            say(f"{BREAKS[0]}: {message.at - breach:.1f} s from the breach to the message at the {sink}:")
            print(f"            {parts}, {message.at - fired:.1f} s to tell.", flush=True)
        return breach

    def recover(self, breach: float) -> None:
        fetch(f"{self.server}/demo/recover", {})
        recovery = time.time()
        say("Recovered it: queries are fast again, the memory is given back. Its windows look back 20 s.")
        wait("the message that it recovered", RECOVERED_WITHIN, self.processes,
             lambda: self.told("recovered", recovery))  # fmt: skip
        self.table()
        say(f"{time.time() - recovery:.1f} s from the recovery to its last message. "
            f"{len(self.inbox.read())} messages in all.")  # fmt: skip

    def answers(self, url: str) -> tuple[bool, str]:
        try:
            fetch(url)
        except (URLError, OSError, ValueError) as error:
            return False, f"{url}: {getattr(error, 'reason', error)}"
        return True, "answers"

    def overview(self) -> dict[str, Any]:
        """What the monitor's page shows; empty when it does not answer."""
        try:
            found: dict[str, Any] = fetch(self.state)["data"]
        except (URLError, OSError, ValueError):
            return {"targets": [], "alerts": []}
        return found

    def live(self) -> tuple[bool, str]:
        targets = self.overview()["targets"]
        alive = [target for target in targets if target["value"] is not None]
        missing = ", ".join(target["title"] for target in targets if target["value"] is None)
        text = f"{len(alive)} of 5 targets live{missing and f', waiting for {missing}'}"
        return len(alive) == len(targets) == 5, text

    def settled(self) -> tuple[bool, str]:
        """Whether all who should be there are, and nothing is missed: only then is what comes ours."""
        overview = self.overview()
        users = next((target["value"] for target in overview["targets"] if target["unit"] == "users"), 0)
        kept = sum(target["state"] == "ok" for target in overview["targets"])
        done = users >= 0.95 * self.options.users and kept == 5 and not overview["alerts"]
        return done, f"{users:.0f} users, {kept} of 5 promises kept"

    def table(self) -> None:
        for target in self.overview()["targets"]:
            now = f"{target['title']:<20} {target['text']:>10}   target {target['promise']:<10} {target['state']:<8}"
            print(f"            {now} {target['measure']}")
        sys.stdout.flush()

    def told(self, news: News, since: float) -> tuple[bool, str]:
        """Whether both sinks were told of all that breaks, or recovers; narrates what arrives."""
        overview = self.overview()
        titles = {target["target"]: target["title"] for target in overview["targets"]}
        for alert in overview["alerts"]:
            if alert["state"] == "firing" and alert["target"] in titles:
                self.since.setdefault(titles[alert["target"]], (alert["since"], alert["fired_at"]))
        for head, lines in self.inbox.news(since):
            clear_line()
            say(head)
            print("".join(f"            │ {line}\n" for line in lines), end="", flush=True)
        counts = {sink: self.inbox.told(sink, BREAKS, news, since) for sink in SINKS}
        text = ", ".join(f"{sink} {count} of {len(BREAKS)}" for sink, count in counts.items())
        for target in overview["targets"]:
            if target["title"] == BREAKS[0]:
                text += f"; {target['title']} {target['text']}, {target['state']}"
        return all(count == len(BREAKS) for count in counts.values()), f"told of {news} targets: {text}"

    def stay(self) -> None:
        say(f"It stays up to be looked at: page {self.monitor}/  shop {self.server}/")
        say(f"Break it again: curl -X POST {self.server}/demo/slow --json '{json.dumps(SLOW)}'; "
            "then /demo/recover. Ctrl-C ends everything.")  # fmt: skip
        while True:
            self.processes.check()
            time.sleep(1)


def stopped(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clearing up
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fast", action="store_true", help="end by itself; exit status 0 only if all of it happened")
    parser.add_argument("--users", type=int, default=120, help="people on the page at once (default: 120)")
    parser.add_argument("--rate", type=float, default=40, help="requests a second, together (default: 40)")
    options = parser.parse_args()
    os.chdir(ROOT)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="anvil-monitor-demo-"))
    demo = Demo(folder, options)
    status = 1
    try:
        demo.run()
        status = 0
        say(f"All of it happened, in {time.monotonic() - began:.0f} s.")
        if not options.fast:
            demo.stay()
    except (DiedError, TooLateError) as error:
        status = 1
        say(f"FAILED: {error}")
    except KeyboardInterrupt:
        status = 130 if options.fast else status
        say("Ending …")
    finally:
        say(f"Everything is ended ({demo.processes.end():.1f} s).")
        if status == 1:
            say(f"Logs and messages are in {folder}")
        else:
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
