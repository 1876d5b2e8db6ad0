"""The command line as a person meets it: help with examples, clear errors, exit status."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from anvil_monitor.monitoring.cli import main, parser
from anvil_monitor.targets import load
from anvil_monitor.targets.load import parse

COMMANDS = (
    "init",
    "check",
    "up",
    "generate",
    "exporter",
    "notifier",
    "query",
    "export",
    "rules",
    "silence",
    "ack",
    "backtest",
    "explain",
    "notify",
    "notifications",
    "drill",
)


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``COMMAND --help`` shows at least one example of the command itself."""
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert re.search(rf"examples:\n.*anvil-monitor {command}", capsys.readouterr().out, re.DOTALL)


def test_init_writes_what_the_defaults_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that ``init`` writes is the shipped defaults, line by line."""
    path = tmp_path / "monitor.toml"
    assert main(["init", "--config", str(path)]) == 0
    written, defaults = load(path), load(None)
    assert (written.services, written.targets, written.channels) == (
        defaults.services,
        defaults.targets,
        defaults.channels,
    )
    assert written.monitor == defaults.monitor
    assert "wrote" in capsys.readouterr().out


def test_every_commented_key_of_the_template_is_allowed() -> None:
    """Taking the ``#`` away from every commented setting gives a file without an unknown key."""
    text = (resources.files("anvil_monitor.targets") / "template.toml").read_text(encoding="utf-8")
    keys = [line for line in text.splitlines() if not re.match(r"# (port|pid_file|container) =", line)]
    configuration = parse("\n".join(re.sub(r"^# (?=\[|[a-z_]+ = )", "", line) for line in keys))
    assert [channel.name for channel in configuration.channels] == ["team", "on-call"]


def test_init_never_replaces_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second ``init`` says that the file exists, exits with 2 and leaves it alone."""
    path = tmp_path / "monitor.toml"
    path.write_text("# mine\n")
    assert main(["init", "--config", str(path)]) == 2
    assert path.read_text() == "# mine\n"
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "up", "exporter", "notifier", "generate"])
def test_bad_configuration_starts_nothing(command: str, tmp_path: Path) -> None:
    """A mistake in the file: its line on standard error, exit status 2, nothing written."""
    (tmp_path / "monitor.toml").write_text('[targets.api_response_time]\nlimit = "200"\n')
    result = run(command, "--config", "monitor.toml", cwd=tmp_path)
    assert result.returncode == 2
    assert "monitor.toml:2: " in result.stderr
    assert 'as in "200ms"' in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["monitor.toml"]


def test_a_port_in_use_is_told_before_anything_starts(tmp_path: Path) -> None:
    """``up`` on a taken port exits with 2 and says which port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("up", "--listen", f"127.0.0.1:{port}", "--data", "data", cwd=tmp_path)
    assert result.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("runbook TargetMissed >/dev/full", 1, "error: No space left on device"),
        ("check --offline >/dev/full", 1, "error: No space left on device"),
        ("runbook TargetMissed >&-", 0, ""),
        ("runbook TargetMissed >&- 2>&-", 0, ""),
        ("ack --data '~nobody-of-that-name/x'", 2, "there is no home folder for ~ — write the whole path"),
        ("query $(printf '\\377')", 2, "error: what was given is no UTF-8 text"),
    ],
)
def test_what_the_shell_may_do_is_no_traceback(command: str, status: int, said: str, tmp_path: Path) -> None:
    """A full disk under a redirected output or bytes that are no text: an error in a line; a closed output: nothing."""
    line = f"{sys.executable} -m anvil_monitor.monitoring.cli {command}"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert (ended.returncode, said in ended.stderr, "Traceback" in ended.stderr) == (status, True, False), ended.stderr


def test_a_terminal_without_a_character_shows_another(tmp_path: Path) -> None:
    """What an ASCII terminal cannot show is a question mark there, and no traceback."""
    command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "notifier", "--help"]
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environ, timeout=60, check=False)
    assert (ended.returncode, b"ANVIL_NOTIFIER_TOKEN=? anvil-monitor" in ended.stdout) == (0, True), ended


@pytest.mark.parametrize("command", ["up", "exporter", "notifier"])
def test_an_open_address_asks_for_a_token(command: str, tmp_path: Path) -> None:
    """Beyond loopback nothing is served without a token."""
    result = run(command, "--listen", "0.0.0.0:0", cwd=tmp_path)
    assert result.returncode == 2
    assert "token" in result.stderr


def test_check_names_what_is_wrong_with_what_it_points_at(tmp_path: Path) -> None:
    """A channel whose variable is missing, or whose URL no plugin takes, is an error without the URL in it."""
    (tmp_path / "monitor.toml").write_text('[channels.a]\nurl = "env:NOT_SET"\n[channels.b]\nurl = "file:b.url"\n')
    (tmp_path / "b.url").write_text("nosuchplugin://hunter2")
    result = run("check", "--offline", "--config", "monitor.toml", cwd=tmp_path)
    assert result.returncode == 2
    assert "NOT_SET is not set" in result.stderr
    assert "is no URL that Apprise takes" in result.stderr
    assert "hunter2" not in result.stderr + result.stdout


def test_check_warns_about_a_server_that_is_down(tmp_path: Path) -> None:
    """A server that does not answer is a warning, not an error: it may start later."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (tmp_path / "monitor.toml").write_text(f'[service]\nurl = "http://127.0.0.1:{port}"\n')
    result = run("check", "--config", "monitor.toml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "does not answer" in result.stderr
    assert "no process found by port" in result.stderr


def test_check_says_how_much_of_a_past_drift_needs(tmp_path: Path) -> None:
    """By target; a history that ends before that is a warning: the rules would never speak."""
    (tmp_path / "monitor.toml").write_text('[monitor]\nretention = "4d"\n')
    result = run("check", "--offline", "--config", "monitor.toml", cwd=tmp_path)
    assert "drift: told after 3 d 18 h of history: app memory" in result.stdout
    assert "drift: told after 8 d of history: app concurrent_users" in result.stdout
    assert "retention = 4 d is too short a past for drift to be told of app api_response_time" in result.stderr
    assert "app memory" not in result.stderr


def test_check_says_which_alerts_a_channel_is_for(tmp_path: Path) -> None:
    """Severities, services, targets and labels, in one line; the URL stays a secret."""
    chosen = 'severities = ["critical"]\ntargets = ["memory"]\nlabels = { team = ["a", "b"] }\n'
    (tmp_path / "monitor.toml").write_text(f'[channels.db]\nurl = "file:url"\n{chosen}')
    (tmp_path / "url").write_text("json://127.0.0.1/hidden")
    result = run("check", "--offline", "--config", "monitor.toml", cwd=tmp_path)
    assert "channel db: critical, memory, team=a|b, <secret from file:url>" in result.stdout
    assert "hidden" not in result.stdout + result.stderr
