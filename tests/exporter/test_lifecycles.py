"""Every way a server's workers come and go, with real servers: totals never fall, end exact, and leave no files."""

from __future__ import annotations

import http.client
import os
import signal
import time
from pathlib import Path

import pytest
from servers import (
    COUNT,
    QUERIES,
    UVICORN_WORKER,
    Traffic,
    answering,
    ask,
    eventually,
    get,
    gunicorn,
    items,
    running,
    total,
    uvicorn,
    value,
)


@pytest.mark.parametrize("worker", [UVICORN_WORKER, "asgi"])
def test_gunicorn(tmp_path: Path, worker: str) -> None:
    """Four gunicorn workers, of uvicorn's class or gunicorn's own: one total; all are killed, nothing is lost."""

    def command(port: int, *arguments: str) -> list[str]:
        return gunicorn(port, *arguments, worker=worker)

    with running(tmp_path, command, "--workers", "4") as server:
        pids, asked = server.up(4)
        assert {items(server.port) for _ in range(8)} == {asked}
        with Traffic(server.port) as traffic:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.3)
            eventually(lambda: len(traffic.pids - pids) > 1)
        traffic.holds(before=asked)
        assert total(server.port, "http_server_active_requests") == 0
        assert len(server.page_files()) <= 4


def test_preload_and_fork(tmp_path: Path) -> None:
    """gunicorn --preload: instrumented and already measuring in the master; each forked worker counts for itself."""
    environ = {"MEASURED_BEFORE_THE_FORK": "1"}
    with running(tmp_path, gunicorn, "--workers", "3", "--preload", environ=environ) as server:
        pids, asked = server.up(3)
        assert {items(server.port) for _ in range(8)} == {asked}
        assert total(server.port, QUERIES) == 1  # the master's own, once, although all workers inherited it
        with Traffic(server.port) as traffic:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            eventually(lambda: len(traffic.pids - pids) > 1)
        traffic.holds(before=asked)
        assert total(server.port, QUERIES) == 1
        assert len(server.page_files()) <= 4


def test_workers_that_are_recycled(tmp_path: Path) -> None:
    """gunicorn --max-requests: workers come and go all the time; totals are whole and files stay few."""
    arguments = ("--workers", "2", "--max-requests", "60", "--max-requests-jitter", "20")
    with running(tmp_path, gunicorn, *arguments) as server:
        with Traffic(server.port) as traffic:
            eventually(lambda: len(traffic.pids) >= 6, seconds=25)
        traffic.holds()
        assert len(server.page_files()) <= 2


def test_gunicorn_reload_by_signal(tmp_path: Path) -> None:
    """SIGHUP replaces all workers while requests come in; the total goes on."""
    with running(tmp_path, gunicorn, "--workers", "2") as server:
        with Traffic(server.port) as traffic:
            for _ in range(2):
                eventually(lambda: len(traffic.pids) > 1)
                old, traffic.pids = traffic.pids, set()
                server.process.send_signal(signal.SIGHUP)
                eventually(lambda old=old: bool(traffic.pids - old))  # type: ignore[misc]
        traffic.holds()
        eventually(lambda: len(server.page_files()) <= 2 and get(server.port, "/metrics")[0] == 200)


def test_uvicorn_reload_after_a_change(tmp_path: Path) -> None:
    """uvicorn --reload: the file changes, the process is another one, the total goes on."""
    with running(tmp_path, uvicorn, "--reload", "--reload-include", "*.py") as server:
        with Traffic(server.port, clients=2) as traffic:
            eventually(lambda: len(traffic.scraped) > 3)
            for number in range(2):
                old, traffic.pids = traffic.pids, set()
                source = tmp_path / "served.py"
                source.write_text(f"{source.read_text()}\n# {number}\n")
                eventually(lambda old=old: bool(traffic.pids - old))  # type: ignore[misc]
        traffic.holds()
        assert len(server.page_files()) == 1


def test_uvicorn_reload_by_signal(tmp_path: Path) -> None:
    """SIGHUP to uvicorn --workers, and SIGTTIN and SIGTTOU, which add and take a worker."""
    # By default a new worker has 5 s to come up, or uvicorn keeps the old ones: too few on a busy machine.
    with running(tmp_path, uvicorn, "--workers", "2", "--timeout-worker-healthcheck", "40") as server:
        with Traffic(server.port) as traffic:
            eventually(lambda: len(traffic.pids) > 0)
            at_first = len(server.process.children())
            server.process.send_signal(signal.SIGTTIN)
            eventually(lambda: len(server.process.children()) > at_first)
            old = {child.pid for child in server.process.children()}
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: bool(traffic.pids - old), seconds=40)
            server.process.send_signal(signal.SIGTTOU)
            eventually(lambda: len(server.process.children()) == at_first, seconds=40)
        traffic.holds()
        eventually(lambda: get(server.port, "/metrics")[0] == 200 and len(server.page_files()) <= 2)


@pytest.mark.parametrize("how", ["spawn", "fork", "forkserver"])
def test_children_of_a_worker(tmp_path: Path, how: str) -> None:
    """What processes that a request starts have measured is counted, and outlives them; no page stays behind."""
    with running(tmp_path, uvicorn) as server:
        for turn in range(1, 3):
            assert get(server.port, f"/children/{how}") == (200, "0")
            assert total(server.port, QUERIES, db_operation_name="SELECT") == turn * 21
        assert total(server.port, COUNT, http_route="/children/{how}") == 2
        assert len(server.page_files()) == 1


def test_two_services_on_one_host(tmp_path: Path) -> None:
    """Two servers started in the same minute by one user, nothing set up: each counts its own requests only."""
    environ = {"ANVIL_MONITOR_PAGES": "", "XDG_RUNTIME_DIR": str(tmp_path)}
    one, other = tmp_path / "one", tmp_path / "other"
    with (
        running(one, uvicorn, "--workers", "2", environ=environ) as first,
        running(other, gunicorn, "--workers", "2", environ=environ) as second,
    ):
        answering(first.port, 40)
        answering(second.port, 25)
        assert {items(first.port) for _ in range(6)} == {40}
        assert {items(second.port) for _ in range(6)} == {25}
        home = tmp_path / f"anvil-monitor-{os.geteuid()}"
        assert home.stat().st_mode & 0o777 == 0o700
        folders = list(home.iterdir())
        assert len(folders) == 2
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


def alone(port: int, log: Path, workers: int) -> None:
    """Each worker answers for itself, says that it does, and has said so once in the log."""
    kept = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(8)]
    seen: dict[str, int] = {}
    for turn in range(3):
        for connection in kept:
            status, pid = ask(connection, "/items/7")
            assert status == 200
            seen[pid] = seen.get(pid, 0) + 1
            status, text = ask(connection, "/metrics")
            assert status == 200
            assert value(text, "anvil_monitor_private_page") == 1
            assert value(text, COUNT, http_route="/items/{number}") == seen[pid], turn
    for connection in kept:
        connection.close()
    for pid in seen:
        said = [line for line in log.read_text().splitlines() if "cannot make a page" in line and f"pid {pid}" in line]
        assert len(said) == 1
    assert len(seen) <= workers


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """The pages' folder lies below a file: each worker serves itself, says so once, and answers every request."""
    environ = {"ANVIL_MONITOR_PAGES": str(tmp_path / "served.py" / "pages")}
    with running(tmp_path, uvicorn, "--workers", "2", environ=environ) as server:
        alone(server.port, server.log, 2)


def mounted(folder: Path, what: str) -> list[str]:
    """Words before a command: it runs with ``folder`` mounted as ``what`` says, where no other process sees it."""
    return ["unshare", "--mount", "sh", "-ec", f'{what}; exec "$@"', "sh"]


@pytest.mark.needs("mount")
def test_a_read_only_folder(tmp_path: Path) -> None:
    """A read-only file system, which binds root as well."""
    pages = tmp_path / "pages"
    pages.mkdir()
    before = mounted(pages, f"mount --bind '{pages}' '{pages}'; mount -o remount,bind,ro '{pages}'")
    with running(tmp_path, uvicorn, "--workers", "2", before=before) as server:
        alone(server.port, server.log, 2)


@pytest.mark.needs("mount")
def test_a_full_folder(tmp_path: Path) -> None:
    """A full file system: requests are answered, each worker counts for itself."""
    pages = tmp_path / "pages"
    pages.mkdir()
    fill = f"mount -t tmpfs -o size=64k,mode=700 tmpfs '{pages}'; head -c 65536 /dev/zero >'{pages}/x' 2>&1 || true"
    with running(tmp_path, uvicorn, "--workers", "2", before=mounted(pages, fill)) as server:
        alone(server.port, server.log, 2)


@pytest.mark.needs("mount")
def test_a_folder_that_fills_up(tmp_path: Path) -> None:
    """It fills while the server runs, then a worker dies: what was counted stays, its successor counts for itself."""
    pages = tmp_path / "pages"
    pages.mkdir()
    before = mounted(pages, f"mount -t tmpfs -o size=4m,mode=700 tmpfs '{pages}'")
    with running(tmp_path, uvicorn, "--workers", "2", before=before) as server:
        # The mount is the server's own; it is reached through the server's eyes.
        inside = Path(f"/proc/{server.process.pid}/root") / pages.relative_to("/")
        pids, asked = server.up(2)
        with pytest.raises(OSError, match="No space"):
            (inside / "other").write_bytes(bytes(5 << 20))
        seen = [items(server.port)]
        assert seen == [asked]
        os.kill(min(pids), signal.SIGKILL)
        # Whoever answers knows what both had counted; a worker without a page adds what it has itself.
        eventually(lambda: bool(set(answering(server.port, 8)) - pids), seconds=20)
        seen += [items(server.port) for _ in range(8)]
        assert min(seen) >= asked
        (inside / "other").unlink()
        assert items(server.port) >= asked
        assert not list(inside.rglob(".new-*"))
