"""The API of a running ``up``: what Grafana's Prometheus data source asks, and what the targets have said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def test_grafana_finds_all_it_asks_for(start: Callable[..., Any], server: Any) -> None:
    """Every endpoint that Grafana asks answers with success; the targets' metadata has their type and help."""
    server.extra = "# HELP jobs_total Jobs done.\n# TYPE jobs_total counter\njobs_total 3"
    monitor = start()
    deadline = time.monotonic() + 15
    both = {"query": "count(up == 1) == 2 and on() jobs_total"}
    while not monitor.http.get("/api/v1/query", params=both).json()["data"]["result"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    def ask(path: str, **parameters: Any) -> Any:
        body = monitor.http.get(f"/api/v1/{path}", params=parameters).json()
        assert body["status"] == "success", body
        return body["data"]

    assert ask("query", query="1+1", time="4")["result"] == [4, "2"]
    assert ask("metadata", metric="jobs_total") == {
        "jobs_total": [{"type": "counter", "help": "Jobs done.", "unit": ""}]
    }
    assert len(ask("metadata", limit="2")) == 2
    assert ask("scrape_pools") == {"scrapePools": ["exporter", "server"]}
    assert {each["scrapePool"] for each in ask("targets", state="active")["activeTargets"]} == {"exporter", "server"}
    assert ask("targets", state="dropped")["activeTargets"] == []
    said = ask("targets/metadata", metric="jobs_total", match_target='{job="server"}')
    assert [each["help"] for each in said] == ["Jobs done."]
    assert "scrape_configs:" in ask("status/config")["yaml"]
    assert ask("status/runtimeinfo")["startTime"].startswith("20")
    for path in ("status/buildinfo", "status/flags", "status/tsdb", "alertmanagers", "alerts", "labels"):
        assert ask(path)
