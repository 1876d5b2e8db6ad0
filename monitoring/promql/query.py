"""The query under way: what it has to say besides its value, and how it treats names.

Set by the engine for the time of one evaluation, in the thread that evaluates, so that no function has to hand it on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from ..samples import Floats

MOST = 10
"""Warnings, and infos, that one answer carries, as in Prometheus' API."""


@dataclass(slots=True)
class Notes:
    """What a query's user should know: ``warnings`` of likely mistakes, ``infos`` of what was put right.

    The texts are those of Prometheus 3, without the place in the query, which the parser does not tell.
    """

    warnings: dict[str, None] = field(default_factory=dict)
    infos: dict[str, None] = field(default_factory=dict)

    @staticmethod
    def _told(texts: dict[str, None], kind: str) -> tuple[str, ...]:
        told = tuple(texts)
        if len(told) <= MOST:
            return told
        return (*told[:MOST], f"{len(told) - MOST} more {kind} annotations omitted")

    def told(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Warnings and infos, the first of each."""
        return self._told(self.warnings, "warning"), self._told(self.infos, "info")


_notes: ContextVar[Notes | None] = ContextVar("promql notes", default=None)
_delayed: ContextVar[bool] = ContextVar("promql delayed name removal", default=False)


@contextmanager
def evaluating(*, delayed_name_removal: bool) -> Iterator[Notes]:
    """The time of one evaluation."""
    notes = Notes()
    tokens = _notes.set(notes), _delayed.set(delayed_name_removal)
    try:
        yield notes
    finally:
        _notes.reset(tokens[0])
        _delayed.reset(tokens[1])


def names_stay() -> bool:
    """Whether names that a function drops are only marked, and dropped at the end (an option of Prometheus 3)."""
    return _delayed.get()


def warn(text: str, metric: str = "") -> None:
    """Tell of a likely mistake in the query or in the data."""
    notes = _notes.get()
    if notes is not None:
        notes.warnings[f"PromQL warning: {text}{_about(metric)}"] = None


def check_quantile(wanted: Floats) -> None:
    """Warn of quantiles outside of 0 to 1."""
    for wrong in sorted({str(one): one for one in wanted[~((wanted >= 0) & (wanted <= 1))].tolist()}.values()):
        shown = "NaN" if wrong != wrong else f"{wrong:+g}".replace("inf", "Inf").removeprefix("+")
        warn(f"quantile value should be between 0 and 1, got {'+Inf' if shown == 'Inf' else shown}")


def inform(text: str, metric: str = "") -> None:
    """Tell of something that was put right, or that may be meant."""
    notes = _notes.get()
    if notes is not None:
        notes.infos[f"PromQL info: {text}{_about(metric)}"] = None


def _about(metric: str) -> str:
    return f' for metric name "{metric}"' if metric else ""
