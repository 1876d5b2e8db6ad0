"""The OTLP/HTTP metrics receiver: what Node, Go, Java and any other OpenTelemetry SDK pushes becomes series here.

``body`` reads a request's bytes, ``protobuf`` and ``jsonform`` decode them to ``points``, ``totals`` adds those up over
instances and gives them as families, ``receiver`` is the endpoint.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

from .limits import Limits
from .receiver import Receiver
from .totals import Totals

__all__ = ["Limits", "Receiver", "Totals"]
