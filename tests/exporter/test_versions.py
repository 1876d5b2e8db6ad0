"""Which version of a server runs: where it is said, and that it is on /metrics and in what is pushed."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from anvil_monitor.exporter import instrument
from anvil_monitor.exporter.otlp.points import identity_of
from anvil_monitor.exporter.versions import version_families, version_of


@pytest.mark.parametrize(
    ("environ", "version"),
    [
        ({}, ""),
        ({"ANVIL_SERVICE_VERSION": " 1.4.2 "}, "1.4.2"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,service.version=1.4%2C2"}, "1.4,2"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.version=1", "ANVIL_SERVICE_VERSION": "2"}, "2"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "nonsense,=,service.versions=3"}, ""),
    ],
)
def test_where_it_is_said(environ: dict[str, str], version: str) -> None:
    """Our variable before OpenTelemetry's; what says nothing is nothing."""
    assert version_of(environ) == version


def test_it_is_on_the_metrics_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the call says comes before the environment; without either there is no such metric."""
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    monkeypatch.setenv("ANVIL_SERVICE_VERSION", "1.4.2")
    said = instrument(FastAPI(), directory=tmp_path / "a", version="1.5.0", meters=False, registry=False)
    assert 'service_version_info{service_version="1.5.0"} 1' in said.metrics()
    families = {each.name: each for each in text_string_to_metric_families(said.metrics(openmetrics=True))}
    assert families["service_version_info"].samples[0].labels == {"service_version": "1.5.0"}
    environment = instrument(FastAPI(), directory=tmp_path / "b", meters=False, registry=False)
    assert 'service_version_info{service_version="1.4.2"} 1' in environment.metrics()
    monkeypatch.delenv("ANVIL_SERVICE_VERSION")
    silent = instrument(FastAPI(), directory=tmp_path / "c", meters=False, registry=False)
    assert "service_version_info" not in silent.metrics()
    for each in (said, environment, silent):
        each.close()


def test_a_version_is_a_label_of_a_length() -> None:
    """A version that is no version does not become a label without an end."""
    (family,) = version_families("x" * 1000)
    assert family.samples[0].labels == (("service_version", "x" * 64),)
    assert len(identity_of({"service.name": "shop", "service.version": "x" * 1000}).version) == 64
