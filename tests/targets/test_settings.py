"""The ground floor names metrics without importing the exporter: both must say the same."""

from __future__ import annotations

import re
from pathlib import Path

from anvil_monitor.exporter import names
from anvil_monitor.targets import histogram_limits, load, settings


def test_metric_names_are_those_of_the_exporter() -> None:
    """Every indicator's metric is one that ``exporter/names.py`` declares."""
    declared = {value.name for value in vars(names).values() if isinstance(value, names.Metric)}
    assert {target.indicator.metric for target in load(None).targets} <= declared


def test_each_limit_is_a_histogram_edge() -> None:
    """200 ms, 2 s and 50 ms become edges of their own histograms."""
    targets = load(None).targets
    assert histogram_limits(targets, names.HTTP_DURATION.name) == (0.2,)
    assert histogram_limits(targets, names.PAGE_LOAD.name) == (2.0,)
    assert histogram_limits(targets, names.DB_DURATION.name) == (0.05,)
    assert histogram_limits(targets, names.PROCESS_MEMORY.name) == ()


def test_every_setting_is_documented() -> None:
    """``docs/configuration.md`` names every key that the loader allows."""
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    source = (Path(settings.__file__).parent / "load.py").read_text(encoding="utf-8")
    keys = set(re.findall(r'table\.(?:\w+)\("(\w+)"', source)) | set(settings.MONITOR_TIMES) | set(settings.KINDS)
    assert {key for key in keys if f"`{key}`" not in text} == set()
