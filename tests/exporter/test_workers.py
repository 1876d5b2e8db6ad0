"""Real uvicorn with four workers over HTTP: one truth, whichever worker answers and whichever dies."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
from pathlib import Path

from servers import answering, eventually, get, items, running, total, uvicorn


def test_totals_are_exact_and_survive_sigkill(tmp_path: Path) -> None:
    """Every request over four workers is counted on every scrape; after SIGKILL of one, too, and its gauge is gone."""
    with running(tmp_path, uvicorn, "--workers", "4") as server:
        port = server.port
        pids, asked = server.up(4)
        assert {items(port) for _ in range(20)} == {asked}

        def hang() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                get(port, "/hang")

        hanging = threading.Thread(target=hang)
        hanging.start()
        eventually(lambda: total(port, "http_server_active_requests") == 1)
        eventually(lambda: total(port, "http_server_oldest_request_age_seconds") > 0.2)
        # Whoever hangs has the connection with an answer outstanding; kill workers until that one is gone.
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            assert {items(port) for _ in range(5)} == {asked}
            if not hanging.is_alive() or not hanging_is_there(port):
                break
        hanging.join(20)
        assert not hanging.is_alive()
        eventually(lambda: total(port, "http_server_active_requests") == 0)
        assert total(port, "http_server_oldest_request_age_seconds") == 0

        answering(port, 100)
        assert items(port) == asked + 100
        live = {child.pid for child in server.process.children(recursive=True)}
        assert {int(name.split("-")[1]) for name in server.page_files()} <= live


def hanging_is_there(port: int) -> bool:
    found = [1.0]

    def look() -> bool:
        found[0] = total(port, "http_server_active_requests")
        return True

    eventually(look)
    return found[0] > 0


def test_totals_go_on_after_a_restart(tmp_path: Path) -> None:
    """A server that was stopped and started again counts on from where it was."""
    with running(tmp_path, uvicorn, "--workers", "2") as server:
        answering(server.port, 50)
        assert items(server.port) == 50
    with running(tmp_path, uvicorn, "--workers", "2") as server:
        port = server.port
        answering(port, 10)
        assert items(port) == 60
        assert total(port, "anvil_monitor_workers") <= 2
        assert total(port, "http_server_active_users") == 1
