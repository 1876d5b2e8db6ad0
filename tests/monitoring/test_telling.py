"""``notify`` and ``notifications`` as a person runs them, with real sinks and a real outbox."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts.delivery import Delivery
from anvil_monitor.alerts.examples import examples, history
from anvil_monitor.alerts.letters import Letter
from anvil_monitor.alerts.model import Alert, Draft
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.outcomes import Outcome
from anvil_monitor.monitoring import telling
from anvil_monitor.monitoring.cli import main
from anvil_monitor.targets import Channel, Secret, load


def configured(folder: Path, text: str) -> list[str]:
    path = folder / "monitor.toml"
    path.write_text(f'{text}\n[monitor]\ndata = "data"\n')
    return ["--config", str(path)]


@pytest.fixture
def channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two channels: a webhook that nobody answers, and one by a template."""
    monkeypatch.setenv("TEAM", "json://127.0.0.1:9/planted")
    monkeypatch.setenv("CALL", "webhook+http://127.0.0.1:9/planted")
    (tmp_path / "call.tmpl").write_text("{{ $title }}!{{ range $alerts }} <{{ .headline }}>{{ end }}")
    return configured(
        tmp_path,
        '[channels.team]\nurl = "env:TEAM"\n[channels.call]\nurl = "env:CALL"\nformat = "markdown"\n'
        'template = "call.tmpl"',
    )


def test_a_test_says_whether_it_arrived(channels: list[str], monkeypatch: Any, capsys: Any) -> None:
    """A test goes to each channel at the same time; exit status and words say what became of it."""
    sent: list[tuple[str, Letter]] = []

    class Senders:
        def __init__(self, environ: Any) -> None: ...

        async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
            sent.append((channel.name, letter))
            return Outcome(channel.name == "team", False, "HTTP status 404")

        async def close(self) -> None: ...

    monkeypatch.setattr(telling, "Senders", Senders)
    assert main(["notify", *channels]) == 1
    told = capsys.readouterr()
    assert "team: the service took it" in told.out
    assert "call: not delivered: HTTP status 404" in told.err
    assert [name for name, _ in sent] == ["team", "call"]
    assert sent[0][1].title == "anvil-monitor: a test of channel team"
    assert main(["notify", "team", *channels]) == 0
    assert main(["notify", "nobody", *channels]) == 2
    assert "the channels are: team, call" in capsys.readouterr().err


def test_a_test_through_the_real_senders(channels: list[str], capsys: Any) -> None:
    """Nobody listens there: it says so, and not where."""
    assert main(["notify", *channels]) == 1
    told = capsys.readouterr()
    assert re.search(r"team: not delivered: the connection failed \(Connection refused\)", told.err)
    assert re.search(r"call: not delivered: the connection failed", told.err)
    assert "planted" not in told.out + told.err


@pytest.mark.parametrize("form", ["text", "short", "markdown", "html"])
def test_a_preview_shows_an_example_of_each_alert(form: str, tmp_path: Path, capsys: Any) -> None:
    """Without a channel, and without a word that a template left empty; HTML has the picture in it."""
    out = tmp_path / "preview"
    assert main(["notify", "--preview", "--form", form, "--out", str(out), *configured(tmp_path, "")]) == 0
    text = out.read_text()
    for name in ("TargetMissed", "TargetNoData", "ServiceDown", "TargetMissed, over", "several at once"):
        assert name in text
    assert "API response time 312 ms" in text
    assert "<error expanding" not in text
    assert "map[" not in text
    assert "usually ," not in text
    assert ("GET /orders 41 over 200 ms" in text) is (form != "short")
    assert ("data:image/png;base64," in text) is (form == "html")
    assert "examples as " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a plugin of Apprise's
def test_a_preview_of_a_channel_has_its_template(channels: list[str], capsys: Any) -> None:
    """The values that a template gets are escaped for its form."""
    assert main(["notify", "call", "--preview", *channels]) == 0
    assert r"app: API response time 312 ms, target \< 200 ms! <API response time 312 ms" in capsys.readouterr().out
    assert main(["notify", "team", "--preview", *channels]) == 0
    assert "Runbook: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ $nothing }}", "undefined variable"),
        ("{{ range $alerts }}", "end"),
        ("{{ .Value }}", ""),
        ("{{ range $title }}{{ end }}", "range can't iterate"),
        ("{{ $alerts.name }}", ""),
    ],
)
def test_a_template_that_is_wrong(tmp_path: Path, capsys: Any, template: str, words: str) -> None:
    """It is tried when it is loaded: check names the file and the mistake, a preview shows nothing, nothing starts."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "text.tmpl").write_text(template)
    config = tmp_path / "monitor.toml"
    config.write_text('[monitor]\ntemplates = "templates"\n')
    status = main(["notify", "--preview", "--config", str(config)])
    told = capsys.readouterr()
    assert status == 2
    assert "text.tmpl" in told.err
    assert words in told.err
    assert "312 ms" not in told.out
    assert main(["check", "--offline", "--config", str(config)]) == 2
    assert "text.tmpl" in capsys.readouterr().err


def test_the_examples_draw_a_breach() -> None:
    """Their hour ends above the limit."""
    found = list(examples(load(None, {}), time.time()))
    assert found[0].name == "TargetMissed"
    alert = json.loads(found[0].message.payload)["firing"][0]
    assert float(alert["annotations"]["limit"]) == 0.2
    points = history(Alert(**alert), 0.0, 3600.0)
    assert points[0][1] < 0.2 < points[-1][1]


@pytest.fixture
def sent(tmp_path: Path) -> list[str]:
    """An outbox with a message that was sent, one that waits and two that are dead."""
    config = configured(tmp_path, "")
    outbox = Outbox(tmp_path / "data" / "outbox.sqlite3")
    drafts = [Draft("team", f"app{n}", "failure", f"Title {n} \x1b[31m", "First\nSecond", "new") for n in range(4)]
    numbers = outbox.record(drafts, [], time.time())
    outbox.sent(numbers[0], time.time())
    outbox.retry(numbers[1], time.time() + 60, "HTTP status 500")
    for number in numbers[2:]:
        outbox.dead(number, time.time(), "HTTP status 404")
    outbox.close()
    return config


def test_the_ledger_is_a_table(sent: list[str], capsys: Any) -> None:
    """The newest first; --dead only those; --json all there is to know."""
    assert main(["notifications", *sent]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "written", "channel", "title", "tries", "state"]
    assert [line.split()[0] for line in lines[1:]] == ["4", "3", "2", "1"]
    assert [line.split()[-1] for line in lines[1:]] == ["dead", "dead", "queued", "sent"]
    assert "\x1b" not in "".join(lines)
    assert main(["notifications", "--dead", "--json", *sent]) == 0
    assert [one["reason"] for one in json.loads(capsys.readouterr().out)] == ["HTTP status 404"] * 2
    assert main(["notifications", "--limit", "1", *sent]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        (["--service", "app2"], [3]),
        (["--channel", "team", "--limit", "3"], [4, 3, 2]),
        (["--channel", "other"], []),
        (["--dead", "--service", "app3"], [4]),
        (["--dead", "--limit", "1"], [4]),
        (["--since", "1h", "--service", "app0"], [1]),
        (["--since", "1ms"], []),
    ],
)
def test_less_of_the_ledger(sent: list[str], capsys: Any, asked: list[str], numbers: list[int]) -> None:
    """Of one channel, of one service, of the last while; where there is none, that is said."""
    assert main(["notifications", "--json", *asked, *sent]) == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == numbers
    assert main(["notifications", *asked, *sent]) == 0
    assert (capsys.readouterr().out == "no such notification\n") == (not numbers)


def test_a_duration_that_is_none(sent: list[str], capsys: Any) -> None:
    assert main(["notifications", "--since", "yesterday", *sent]) == 2
    assert "as in 15s, 5m" in capsys.readouterr().err


def test_one_of_them_in_full(sent: list[str], capsys: Any) -> None:
    """Why it failed, when it is tried again, and what it says."""
    assert main(["notifications", "show", "2", *sent]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"last failure +HTTP status 500\n", shown)
    assert re.search(r"next try +\d{4}-", shown)
    assert shown.endswith("\n\nFirst\nSecond\n")
    assert main(["notifications", "show", "99", *sent]) == 1
    assert main(["notifications", "show", *sent]) == 2


def test_dead_letters_are_sent_again_by_a_monitor_that_runs(sent: list[str], tmp_path: Path, until: Any) -> None:
    """While a monitor has the outbox open, a command of another process puts them back; they go out at once."""
    outbox = Outbox(tmp_path / "data" / "outbox.sqlite3")
    titles: list[str] = []

    class Sender:
        async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
            titles.append(letter.title[:7])
            return Outcome(True)

    async def run() -> None:
        configuration = load(Path(sent[1]), {})
        team = Channel("team", Secret("env:X", "x"))
        delivery = Delivery(replace(configuration, channels=(team,)), outbox, {}, Sender())
        running = asyncio.create_task(delivery.run())
        try:
            await asyncio.sleep(0)
            assert await asyncio.to_thread(main, ["notifications", "resend", "3", *sent]) == 0
            await asyncio.to_thread(until, lambda: "Title 2" in titles)
            assert await asyncio.to_thread(main, ["notifications", "resend", "--dead", *sent]) == 0
            await asyncio.to_thread(until, lambda: "Title 3" in titles)
        finally:
            await delivery.close(0)
            await running

    asyncio.run(run())
    outbox.close()
    assert main(["notifications", "resend", "1", *sent]) == 1


def test_sent_again_while_a_monitor_starts(sent: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    """Put back after the workers looked for what is due, before the file is watched: it goes out all the same."""
    outbox = Outbox(tmp_path / "data" / "outbox.sqlite3")
    arrived = asyncio.Event()
    looks: list[str] = []
    rows = outbox.rows

    class Sender:
        async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
            if letter.title.startswith("Title 2"):
                arrived.set()
            return Outcome(True)

    def late(query: str, *values: Any) -> Any:
        if "data_version" in query and not looks:
            looks.append(query)
            assert main(["notifications", "resend", "3", *sent]) == 0
        return rows(query, *values)

    monkeypatch.setattr(outbox, "rows", late)

    async def run() -> None:
        team = Channel("team", Secret("env:X", "x"))
        delivery = Delivery(replace(load(Path(sent[1]), {}), channels=(team,)), outbox, {}, Sender())
        running = asyncio.create_task(delivery.run())
        try:
            async with asyncio.timeout(30):
                await arrived.wait()
        finally:
            await delivery.close(0)
            await running

    asyncio.run(run())
    outbox.close()
    assert looks


def test_an_outbox_that_is_not_there_or_damaged(tmp_path: Path, capsys: Any) -> None:
    """Nothing is made where there is none; a damaged one is told, with what to do."""
    config = configured(tmp_path, "")
    assert main(["notifications", *config]) == 0
    assert "nothing was sent yet" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "outbox.sqlite3").write_bytes(b"no database at all" * 100)
    assert main(["notifications", *config]) == 1
    assert "move it away" in capsys.readouterr().err
