"""How much the receiver takes. Everything that a sender can make larger has a number here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    # one request
    body: int = 4 << 20  # as it arrives, and decompressed: decoding may take forty times that for a moment
    body_seconds: float = 10.0
    points: int = 10_000
    parts: int = 10_000  # resources, scopes and metrics together, with points or without
    resource_attributes: int = 256
    attributes: int = 64  # a point
    attribute_name: int = 256
    attribute_value: int = 256  # longer ones are cut and told apart by a digest
    attributes_size: int = 16_384  # a point's, all together
    bounds: int = 256  # edges of a histogram; buckets of an exponential one: four times that
    name: int = 255  # a metric's
    # many requests
    requests: int = 16  # whose bodies are read or wait for decoding; the next is asked to come again
    rate: float = 200.0  # a second, all clients; one address has a tenth
    burst: float = 400.0
    # what is kept
    services: int = 64
    instances: int = 512
    families: int = 2000
    series: int = 2000  # a service's, as exposed; beyond: one overflow series a metric
    instance_series: int = 4000  # an instance's, as sent; beyond: refused
    source_series: int = 50_000  # of all instances
    # silence
    patience: float = 60.0  # at least; else three of the instance's intervals
    forget: float = 3600.0  # an instance that has been silent for so long is no longer waited for
