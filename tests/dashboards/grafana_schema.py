"""Grafana's own dashboard types as JSON Schemas: made once with npm from `@grafana/schema`, then kept in a cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

SCHEMA = "@grafana/schema@13.2.3"
GENERATOR = "ts-json-schema-generator@2.4.0"
TYPES = "node_modules/@grafana/schema/dist/types/raw"
# schema name: (file of the types, name of the type). Each is made from its own file: the names collide otherwise.
SOURCES = {
    "dashboard": ("dashboard/x/types.gen.d.ts", "Dashboard"),
    "panel": ("dashboard/x/types.gen.d.ts", "Panel"),
    "stat.options": ("composable/stat/panelcfg/x/types.gen.d.ts", "Options"),
    "table.options": ("composable/table/panelcfg/x/types.gen.d.ts", "Options"),
    "table.custom": ("composable/table/panelcfg/x/types.gen.d.ts", "FieldConfig"),
    "text.options": ("composable/text/panelcfg/x/types.gen.d.ts", "Options"),
    "timeseries.options": ("composable/timeseries/panelcfg/x/types.gen.d.ts", "Options"),
    "timeseries.custom": ("composable/timeseries/panelcfg/x/types.gen.d.ts", "FieldConfig"),
}


def cache_folder() -> Path:
    """Where the schemas are kept between runs: ``ANVIL_MONITOR_TEST_CACHE``, else the temporary folder."""
    named = os.environ.get("ANVIL_MONITOR_TEST_CACHE")
    base = Path(named) if named else Path(tempfile.gettempdir()) / f"anvil-monitor-test-cache-{os.getuid()}"
    return base / SCHEMA.replace("/", "-").replace("@", "-").strip("-")


def schemas() -> dict[str, dict[str, Any]]:
    """All schemas by name. Raises ``subprocess.CalledProcessError`` when npm fails."""
    folder = cache_folder()
    missing = [name for name in SOURCES if not (folder / f"{name}.json").is_file()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory() as work:
            _make(Path(work), folder, missing)
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in SOURCES}


def _make(work: Path, folder: Path, names: list[str]) -> None:
    (work / "package.json").write_text('{"private": true}', encoding="utf-8")
    npm = shutil.which("npm")
    assert npm
    _run([npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", SCHEMA, GENERATOR], work)
    for name in names:
        path, kind = SOURCES[name]
        made = work / f"{name}.json"
        command = [str(work / "node_modules/.bin/ts-json-schema-generator"), "--no-type-check", "--strict-tuples",
                   "--path", f"{TYPES}/{path}", "--type", kind, "--out", str(made)]  # fmt: skip
        _run(command, work)
        shutil.copyfile(made, folder / f"{name}.part")
        (folder / f"{name}.part").replace(folder / f"{name}.json")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, f"{command[0]} failed: {done.stderr[-2000:] or done.stdout[-2000:]}"
