"""Which version of the server runs, so that people are told since which deploy something is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from . import names
from .exposition import Family, Sample

VARIABLE: Final = "ANVIL_SERVICE_VERSION"
# https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
ATTRIBUTE: Final = "service.version"
LONGEST: Final = 64  # a Git hash has 40


def version_of(environ: Mapping[str, str]) -> str:
    """What the environment says; empty where it says nothing."""
    if given := environ.get(VARIABLE, "").strip():
        return given
    pairs = (pair.partition("=") for pair in environ.get(RESOURCE, "").split(","))
    return next((unquote(value.strip()) for name, _, value in pairs if name.strip() == ATTRIBUTE), "")


def version_families(version: str) -> list[Family]:
    """The version as a metric; nothing where there is none."""
    text = version[:LONGEST]
    return [Family(names.SERVICE_VERSION, [Sample("", (("service_version", text),), 1.0)])] if text else []
