"""OpenTelemetry's instruments over page cells. Made by the meters of :mod:`meters`, never directly.

A value that the instrument cannot take (a negative amount for a counter, what is not finite) is not counted, which is
said once: one NaN would spoil a sum for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from math import inf, nan
from typing import Any, Final

from opentelemetry import metrics

from .streams import Absolute, Stream

logger = logging.getLogger("anvil_monitor.exporter")
CALLBACK_MILLISECONDS: Final = 1000.0


class PageCounter(metrics.Counter):
    def __init__(self, stream: Stream) -> None:
        self._stream, self._cells = stream, stream.cells

    def add(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        try:
            value = float(amount)
        except (TypeError, ValueError, OverflowError):
            value = nan
        if 0 <= value < inf:
            try:
                cell = self._cells[tuple(attributes.items()) if attributes else ()]
            except (KeyError, TypeError, AttributeError):
                cell = self._stream.open(attributes)
            cell.add(value)
        else:
            self._stream.refuse(amount)


class PageUpDownCounter(metrics.UpDownCounter):
    def __init__(self, stream: Stream) -> None:
        self._stream, self._cells = stream, stream.cells

    def add(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        try:
            value = float(amount)
        except (TypeError, ValueError, OverflowError):
            value = nan
        if -inf < value < inf:
            try:
                cell = self._cells[tuple(attributes.items()) if attributes else ()]
            except (KeyError, TypeError, AttributeError):
                cell = self._stream.open(attributes)
            cell.add(value)
        else:
            self._stream.refuse(amount)


class PageGauge(metrics._Gauge):
    def __init__(self, stream: Stream) -> None:
        self._stream, self._cells = stream, stream.cells

    def set(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        try:
            value = float(amount)
        except (TypeError, ValueError, OverflowError):
            value = nan
        if -inf < value < inf:
            try:
                cell = self._cells[tuple(attributes.items()) if attributes else ()]
            except (KeyError, TypeError, AttributeError):
                cell = self._stream.open(attributes)
            cell.set(value)
        else:
            self._stream.refuse(amount)


class PageHistogram(metrics.Histogram):
    def __init__(self, stream: Stream) -> None:
        self._stream, self._cells = stream, stream.cells

    def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
        try:
            value = float(amount)
        except (TypeError, ValueError, OverflowError):
            value = nan
        if 0 <= value < inf:
            try:
                series = self._cells[tuple(attributes.items()) if attributes else ()]
            except (KeyError, TypeError, AttributeError):
                series = self._stream.open(attributes)
            series.record(value)
        else:
            self._stream.refuse(amount)


class Observed:
    """What the observable instruments share: the publisher asks their callbacks."""

    def __init__(self, stream: Stream, callbacks: Sequence[metrics.CallbackT] | None) -> None:
        self._stream = stream
        self._absolute = Absolute(stream)
        self._callbacks = [_callback(each) for each in callbacks or ()]

    def ask(self) -> None:
        """Ask the callbacks and write what they say. One that fails is said once and leaves everything as it was."""
        options = metrics.CallbackOptions(timeout_millis=CALLBACK_MILLISECONDS)
        try:
            points = [
                (seen.attributes, (seen.value,)) for callback in self._callbacks for seen in callback(options) or ()
            ]
            self._absolute.publish(points)
        except Exception as error:  # noqa: BLE001  whatever the user's callback raises
            self._stream.warn("a callback of %s failed: %r", self._stream.metric.name, error)


class PageObservableCounter(Observed, metrics.ObservableCounter):
    pass


class PageObservableUpDownCounter(Observed, metrics.ObservableUpDownCounter):
    pass


class PageObservableGauge(Observed, metrics.ObservableGauge):
    pass


def _callback(
    given: metrics.CallbackT,
) -> Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]:
    """A callback as a function; a generator (the API allows both) is sent the options and gives what it yields."""
    if not isinstance(given, Generator):
        return given
    started = False

    def ask(options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        nonlocal started
        try:
            if not started:
                started = True
                next(given)
            return given.send(options)
        except StopIteration:
            return ()

    return ask
