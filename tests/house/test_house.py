"""The house: every package folder is in the wheel, imports go downwards, no file outgrows its room."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("targets", "exporter", "alerts", "dashboards", "monitoring")


def modules() -> Iterator[Path]:
    for floor in FLOORS:
        yield from sorted((ROOT / floor).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            within = node.module or ""
            names = [f"{within}.{alias.name}" for alias in node.names] if within == "anvil_monitor" else [within]
            yield from ((node.level, name, node.lineno) for name in names)


def test_every_package_folder_is_in_the_wheel() -> None:
    """A folder with an ``__init__.py`` that pyproject.toml does not list would silently be left out."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in modules() if path.name == "__init__.py"}
    named = {f"anvil_monitor.{folder.replace('/', '.')}": folder for folder in folders}
    named["anvil_monitor.runbooks"] = "docs/runbooks"  # pages, and no room: nothing imports them
    assert set(settings["packages"]) == set(named)
    assert settings["package-dir"] == named


@pytest.mark.parametrize("path", list(modules()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_downwards(path: Path) -> None:
    """A room imports only from floors below; across rooms by full name, inside a room relatively."""
    floor = path.relative_to(ROOT).parts[0]
    for level, name, line in imports(path):
        place = f"{path.relative_to(ROOT)}:{line}: {name}"
        top = name.split(".")[0]
        assert level or top not in FLOORS, f"{place}: a bare room name collides with the user's own packages"
        if top == "anvil_monitor":
            room = name.split(".")[1]
            assert FLOORS.index(room) < FLOORS.index(floor), f"{place}: imports upwards or its own room by full name"
        if level:
            depth = len(path.relative_to(ROOT).parts) - 1
            assert level <= depth, f"{place}: leaves the room"


def test_no_file_outgrows_its_room() -> None:
    """500 lines a file is a bug."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {path: size for path, size in sizes.items() if size > 500} == {}


def test_the_instrument_needs_nothing_of_the_stack() -> None:
    """Importing the instrument loads none of numpy, psutil, Apprise: they are not in the user's server."""
    stack = ("numpy", "psutil", "apprise", "httpx", "grafanalib", "promql_parser", "rich")
    code = f"import sys, anvil_monitor.exporter; print([name for name in {stack} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_light_requirements() -> None:
    """Without an extra, only the OpenTelemetry API and prometheus-client are required."""
    required = [text for text in metadata.requires("anvil-monitor") or [] if "extra ==" not in text]
    assert sorted(text.split(">")[0] for text in required) == ["opentelemetry-api", "prometheus-client"]


def test_every_metric_is_named_in_one_file() -> None:
    """Only ``exporter/names.py`` makes a ``Metric``."""
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Metric"
    }
    assert makers == {"exporter/names.py"}
