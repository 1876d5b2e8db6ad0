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

from examples.processes import DiedError, Processes, free_port  # noqa: E402

SLOW = {"seconds": 0.8, "memory_mb": 450}
BREAKS = ("API response time", "Frontend load time", "Database query time", "Server memory")
SINKS = ("webhook", "mail")
WORDS = {"missed": "is missed", "recovered": "recovered"}
LIVE_WITHIN, TOLD_WITHIN, RECOVERED_WITHIN = 60.0, 60.0, 90.0


class TooLateError(Exception):
    """Something did not happen in the time that the demo promises."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def wait(what: str, within: float, processes: Processes, look: Callable[[], tuple[bool, str]]) -> float:
    """Look every 0.2 s until it is so, showing what there is; the seconds it took. Raises :class:`TooLateError`."""
    began = shown = time.monotonic()
    while True:
        processes.check()
        done, state = look()
        now = time.monotonic()
        if sys.stdout.isatty() and now - began > 1:
            line = f"  … {now - began:3.0f} s  {state}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[K{line}", end="", flush=True)
        elif now - shown >= 5 and not done:
            say(f"… {now - began:.0f} s: {state}")
            shown = now
        if done or now - began > within:
            if sys.stdout.isatty():
                print("\r\033[K", end="", flush=True)
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
        self.ports, self.messages = ports, folder / "messages.jsonl"
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
        breach = self.break_it()
        self.recover(breach)

    def start(self) -> None:
        host, port = "127.0.0.1", str(self.ports[0])
        start = self.processes.start
        start("sinks", "examples.sinks", "--webhook-port", str(self.ports[2]), "--mail-port", str(self.ports[3]),
              "--record", str(self.messages))  # fmt: skip
        start("server", "uvicorn", "examples.server:app", "--host", host, "--port", port, "--workers", "2",
              "--timeout-keep-alive", "120", "--no-access-log", "--log-level", "warning")  # fmt: skip
        took = wait("the server's start", 30, self.processes, lambda: self.answers(f"{self.server}/api/items/1"))
        say(f"The shop is up at {self.server} with 2 workers ({took:.1f} s).")
        start("monitor", "anvil_monitor.monitoring.cli", "up", "--config", str(self.configuration))
        took = wait("the monitor's start", 30, self.processes, lambda: self.answers(self.state))
        say(f"anvil-monitor up is watching it; its page: {self.monitor}/ ({took:.1f} s)")
        start("traffic", "examples.traffic", "--url", self.server,
              "--users", str(self.options.users), "--rate", str(self.options.rate))  # fmt: skip
        say(f"{self.options.users} people, each at their own address, send {self.options.rate:g} requests a second.")

    def break_it(self) -> float:
        """Make the shop slow, wait until both sinks told of every target that this breaks; the time of the breach."""
        fetch(f"{self.server}/demo/slow", SLOW)
        breach = time.time()
        say(f"Broke it: every query now takes {SLOW['seconds']} s longer, a worker took {SLOW['memory_mb']} MB.")
        wait("the message", TOLD_WITHIN, self.processes, lambda: self.told(breach, "missed"))
        self.show_messages(breach)
        self.table()
        for sink in SINKS:
            first = min(at["at"] for at in self.arrived(sink, breach, "missed")[BREAKS[0]]) - breach
            say(f"{first:.1f} s from the breach to the message at the {sink} (the rule itself holds for 5 s).")
        return breach

    def recover(self, breach: float) -> None:
        fetch(f"{self.server}/demo/recover", {})
        recovery = time.time()
        say("Recovered it: queries are fast again, the memory is given back. Its windows look back 30 s.")
        wait("the message that it recovered", RECOVERED_WITHIN, self.processes,
             lambda: self.told(recovery, "recovered"))  # fmt: skip
        self.show_messages(recovery)
        self.table()
        say(f"{time.time() - recovery:.1f} s from the recovery to its last message. "
            f"{len(self.read_messages(breach))} messages in all.")  # fmt: skip

    def answers(self, url: str) -> tuple[bool, str]:
        try:
            fetch(url)
        except (URLError, OSError, ValueError) as error:
            return False, f"{url}: {getattr(error, 'reason', error)}"
        return True, "answers"

    def targets(self) -> list[dict[str, Any]]:
        """The five targets as the monitor's page gets them."""
        try:
            status = fetch(self.state)
        except (URLError, OSError, ValueError):
            return []
        found: list[dict[str, Any]] = status["data"]["targets"]
        return found

    def live(self) -> tuple[bool, str]:
        targets = self.targets()
        alive = [target for target in targets if target["value"] is not None]
        missing = ", ".join(target["title"] for target in targets if target["value"] is None)
        text = f"{len(alive)} of 5 targets live{missing and f', waiting for {missing}'}"
        return len(alive) == len(targets) == 5, text

    def table(self) -> None:
        for target in self.targets():
            now = f"{target['title']:<20} {target['text']:>10}   target {target['promise']:<10} {target['state']:<8}"
            print(f"            {now} {target['measure']}")
        sys.stdout.flush()

    def read_messages(self, since: float) -> list[dict[str, Any]]:
        if not self.messages.exists():
            return []
        lines = self.messages.read_text().splitlines(keepends=True)
        told = [json.loads(line) for line in lines if line.endswith("\n")]
        return [message for message in told if message["at"] >= since]

    def arrived(self, sink: str, since: float, what: str) -> dict[str, list[dict[str, Any]]]:
        """The messages at ``sink`` that say of each target that it is ``missed`` or has ``recovered``."""
        found: dict[str, list[dict[str, Any]]] = {}
        for message in self.read_messages(since):
            for name in BREAKS:
                said = f"{name} recovered" in message["text"]
                told = said if what == "recovered" else name in message["text"] and not said
                if message["sink"] == sink and told:
                    found.setdefault(name, []).append(message)
        return found

    def told(self, since: float, what: str) -> tuple[bool, str]:
        counts = {sink: len(self.arrived(sink, since, what)) for sink in SINKS}
        text = ", ".join(f"{sink} {count} of {len(BREAKS)}" for sink, count in counts.items())
        now = next((target for target in self.targets() if target["title"] == BREAKS[0]), None)
        if now:
            text += f"; {now['title']} {now['text']}, {now['state']}{now['alert'] and ', alert ' + now['alert']}"
        return all(count == len(BREAKS) for count in counts.values()), f"told what {WORDS[what]}: {text}"

    def show_messages(self, since: float) -> None:
        for message in self.read_messages(since):
            clock = time.strftime("%H:%M:%S", time.localtime(message["at"]))
            say(f"At the {message['sink']} at {clock}, {message['at'] - since:.1f} s later: {message['title']}")
            for line in message["text"].strip().splitlines():
                print(f"            │ {line}", flush=True)

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
