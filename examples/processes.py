"""The demo's child processes: started with a log each, told when one dies, and all ended, by id, whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

PATIENCE = 5.0  # seconds that a child gets to end by itself


class DiedError(Exception):
    """A child that should be running is not. The message has the end of its log."""


def free_port(wanted: int) -> int:
    """``wanted`` if nothing on this machine listens on it, else a port that is free now."""
    for port in (wanted, 0):
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def ended(pid: int) -> bool:
    """Whether our child ``pid`` has ended; leaves it to be reaped later."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class Processes:
    """Children by name, in the order in which they were started."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder, self.environ = folder, environ
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs = ExitStack()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, name: str, *arguments: str) -> None:
        """Start ``python -m ARGUMENTS``. In a session of its own: Ctrl-C reaches the demo only, which ends the rest."""
        output = self._logs.enter_context(self.log(name).open("wb"))
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def check(self) -> None:
        """Raise :class:`DiedError` if any child has ended."""
        for name, process in self.running.items():
            status = process.poll()
            if status is not None:
                tail = self.log(name).read_text(errors="replace").splitlines()[-15:]
                raise DiedError("\n  ".join([f"{name} ended with status {status}; its last words:", *tail]))

    def end(self) -> float:
        """End the children, last started first, each with its whole group; the seconds that it took."""
        began = time.monotonic()
        for process in reversed(self.running.values()):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while not ended(process.pid) and time.monotonic() < deadline:
                time.sleep(0.02)
            # What a child left behind in its group (a worker that hangs) goes too. The group's id is the child's, and
            # still its own: it has not been reaped yet.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()
        self._logs.close()
        return time.monotonic() - began
