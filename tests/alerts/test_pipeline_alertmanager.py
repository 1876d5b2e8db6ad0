"""Our pipeline beside the real Alertmanager: the same alerts and silences, chosen at random, treated alike by both."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from anvil_monitor.alerts import alertmanager, inhibition, matchers, silences
from anvil_monitor.alerts.matchers import Matcher, MatcherError
from anvil_monitor.alerts.model import Alert, Notification
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline

pytestmark = pytest.mark.needs("prometheus-alertmanager")

Labels = frozenset[tuple[str, str]]
NAMES = ("ServiceDown", "TargetMissed", "TargetDrifting", "TargetTrending", "TargetNoData", "Mine")
TARGETS = ("api_response_time", "memory", "")
SERVICES = tuple(f"app-{number}" for number in range(12))
LAST = {"alertname": "Last", "service": "last"}
PATTERNS = ("app-1.*", "app-[0-5]", "Target.*", "memory|", ".+", "TargetMissed|Mine", "(?:api|db).*")


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def inhibit_rules() -> list[dict[str, Any]]:
    """Our table in Alertmanager's words. It takes a label that both sides lack for equal, so it is asked for."""
    return [
        {
            "source_matchers": [f'alertname="{rule.source}"'],
            "target_matchers": [
                f'alertname=~"{"|".join(rule.explains)}"' if rule.explains else f'alertname!="{rule.source}"',
                *(f'{label}!=""' for label in rule.equal),
            ],
            "equal": list(rule.equal),
        }
        for rule in inhibition.TABLE
    ]


class Alertmanager:
    """A real one, with our generated configuration and our table, that posts what it tells to :attr:`told`."""

    def __init__(self, configuration: Any, folder: Path) -> None:
        self.told: list[dict[str, Any]] = []
        told = self.told

        class Sink(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._sink = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
        self._thread = threading.Thread(target=self._sink.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self._sink_url = f"http://127.0.0.1:{self._sink.server_address[1]}"
        file = folder / "alertmanager.yml"
        generated = yaml.safe_load(alertmanager.dump(configuration, notifier=f"{self._sink_url}/"))
        file.write_text(yaml.safe_dump({**generated, "inhibit_rules": inhibit_rules()}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        arguments = [f"--config.file={file}", f"--storage.path={folder / 'data'}", "--cluster.listen-address=",
                     f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
        self._log = (folder / "alertmanager.log").open("wb")
        self._process = subprocess.Popen(["prometheus-alertmanager", *arguments], stdout=self._log, stderr=self._log)
        self.url = f"http://127.0.0.1:{port}"
        wait_for(self._ready)

    def _ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).close()
        except OSError:
            return False
        return True

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def post(self, alerts: list[Alert]) -> None:
        self.ask("alerts", [
            {"labels": alert.labels, "startsAt": stamp(alert.starts_at),
             **({} if alert.firing else {"endsAt": stamp(alert.ends_at or 0.0)})}
            for alert in alerts
        ])  # fmt: skip

    def labels(self) -> set[Labels]:
        """Of the alerts that it knows as firing."""
        return {key(one["labels"]) for one in self.ask("alerts")}

    def silence(self, chosen: tuple[Matcher, ...]) -> str:
        now = time.time()
        return str(self.ask("silences", {
            "matchers": [{"name": one.name, "value": one.value, "isRegex": "~" in one.operator,
                          "isEqual": one.operator[0] == "="} for one in chosen],
            "startsAt": stamp(now), "endsAt": stamp(now + 3600), "createdBy": "Ada", "comment": "random",
        })["silenceID"])  # fmt: skip

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
        self._sink.shutdown()
        self._thread.join()
        self._sink.server_close()


@pytest.fixture
def peer(configure: Any, tmp_path: Path) -> Iterator[Alertmanager]:
    made = Alertmanager(configure({}, group_wait=0.3, group_interval=0.5), tmp_path)
    yield made
    made.close()


def some_alert(chance: random.Random) -> Alert:
    labels = {"alertname": chance.choice(NAMES), "service": chance.choice((*SERVICES, "")),
              "target": chance.choice(TARGETS), "severity": "critical"}  # fmt: skip
    return Alert({name: value for name, value in labels.items() if value}, {}, time.time() - 60)


def some_matchers(chance: random.Random) -> tuple[Matcher, ...]:
    while True:
        made = []
        for name in chance.sample(("alertname", "service", "target"), chance.randint(1, 3)):
            operator = chance.choice(("=", "=", "!=", "=~", "!~"))
            plain = chance.choice({"alertname": NAMES, "service": SERVICES, "target": TARGETS}[name])
            made.append(Matcher(name, operator, chance.choice(PATTERNS) if "~" in operator else plain))
        try:
            chosen = matchers.chosen(made)
        except MatcherError:
            continue
        if not matchers.match(chosen, LAST):  # it says that a round has ended
            return chosen


def key(labels: Any) -> Labels:
    return frozenset(labels.items())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_alerts_are_silenced_inhibited_and_grouped_alike(
    seed: int, peer: Alertmanager, outbox: Outbox, configure: Any, clock: Any
) -> None:
    """Rounds of firings, ends, silences and their ends: what each holds back, and what it tells of anew, is the same.

    One message of ours is one group of Alertmanager's. Each round ends when both have told what they have to tell.
    """
    chance = random.Random(seed)
    pipeline = Pipeline(configure({"team": "json://127.0.0.1/"}, flap_limit=0), outbox, clock)
    firing: dict[Labels, Alert] = {}
    silenced: list[tuple[str, int]] = []
    heard: dict[str, set[Labels]] = {}  # what Alertmanager has told of, by group, and has not told the end of
    told_by_us: dict[str, set[Labels]] = {}
    held_back = new_firings = 0
    for round_ in range(12):
        ended = [alert for alert in firing.values() if chance.random() < 0.15]
        begun = [some_alert(chance) for _ in range(chance.randint(1, 15))]
        changed = [replace(one, ends_at=time.time()) for one in ended]
        changed = [one for one in changed if key(one.labels) not in {key(new.labels) for new in begun}]
        for one in changed:
            del firing[key(one.labels)]
        begun = [firing.setdefault(key(one.labels), one) for one in begun]
        # What holds back comes first, what lets go last: Alertmanager may tell a group between any two of these.
        for _ in range(chance.randint(0, 2)):
            chosen = some_matchers(chance)
            made = silences.add(outbox, chosen, author="Ada", reason="random", starts=0.0, ends=clock.now + 1e9)
            silenced.append((peer.silence(chosen), made.id))
        for names in (("ServiceDown",), ("TargetMissed",), NAMES[2:]):
            peer.post([one for one in begun if one.name in names])
            there = frozenset(key(one.labels) for one in begun if one.name in names)
            wait_for(lambda there=there: there <= peer.labels())
        peer.post(changed)
        gone = {key(one.labels) for one in changed}
        wait_for(lambda gone=gone: not gone & peer.labels())
        while silenced and chance.random() < 0.4:
            theirs, ours = silenced.pop(chance.randrange(len(silenced)))
            peer.ask(f"silence/{theirs}", method="DELETE")
            silences.end(outbox, ours, clock.now)

        active = silences.active(outbox, clock.now)
        explained = inhibition.explained(firing.values())
        expected = {
            labels: (any(one.holds(alert.labels, clock.now) for one in active), explained(alert))
            for labels, alert in firing.items()
        }
        held_back += sum(map(any, expected.values()))

        def states() -> dict[Labels, tuple[bool, bool]]:
            return {key(one["labels"]): (bool(one["status"]["silencedBy"]), bool(one["status"]["inhibitedBy"]))
                    for one in peer.ask("alerts")}  # fmt: skip

        wait_for(lambda want=expected: states() == want)

        # Long after everything that waits here, as a person would see it: group_interval, and what lingers.
        before = {message.id for message in outbox.ledger(10_000)}
        for _ in range(2):
            clock.now += 600
            pipeline.update([*firing.values(), *changed])
        told = {service: {key(alert.labels) for alert in known.values()}
                for (service, _), known in outbox.told().items()}  # fmt: skip
        fresh: dict[str, set[Labels]] = {}
        for message in outbox.ledger(10_000):
            if message.id not in before and (news := Notification.from_json(message.payload).firing):
                assert message.topic not in fresh, "one message a group"
                fresh[message.topic] = {key(alert.labels) for alert in news}
        assert {service: known - told_by_us.get(service, set()) for service, known in told.items()} == {
            service: fresh.get(service, set()) for service in told}  # fmt: skip

        def news() -> dict[str, set[Labels]]:
            """What Alertmanager has told since the last round, by group, that it had not told before."""
            new: dict[str, set[Labels]] = {}
            for post in list(peer.told):
                group = post["groupLabels"].get("service", "")
                for one in post["alerts"]:
                    labels = key(one["labels"])
                    if one["status"] == "firing" and labels not in heard.get(group, set()):
                        new.setdefault(group, set()).add(labels)
            return new

        wait_for(lambda want=fresh: news() == want)
        # Told last, of a group of its own: by then every other group had its turn, and still nothing else is news.
        last = Alert({**LAST, "round": str(round_)}, {}, time.time())
        peer.post([last])
        wait_for(lambda: "last" in news())
        assert {group: found for group, found in news().items() if group != "last"} == fresh
        new_firings += sum(map(len, fresh.values()))
        peer.post([Alert(last.labels, {}, last.starts_at, time.time())])
        for group, found in fresh.items():
            heard.setdefault(group, set()).update(found)
        for known in heard.values():
            known -= gone
        heard.setdefault("last", set()).add(key(last.labels))
        peer.told.clear()
        told_by_us = told
    assert held_back > 50
    assert new_firings > 30
