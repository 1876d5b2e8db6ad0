"""Vectors over time as columns: one row a series, one column an evaluation step (in memory, mostly, time-major).

The engine evaluates an expression once for all steps. A vector is a ``Frame``, a scalar a float per step; an instant
query has one step. ``present`` says where a row has a sample, for NaN is a value like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..samples import NAME, Booleans, Floats, Integers, Labels
from .labelsets import unique
from .values import QueryError

Rows = TypeVar("Rows", Floats, Booleans)


@dataclass(slots=True, eq=False)
class Frame:
    """``labels[i]`` has ``values[i, step]`` where ``present[i, step]``."""

    labels: Sequence[Labels]
    values: Floats
    present: Booleans

    @classmethod
    def empty(cls, steps: int) -> Frame:
        return cls((), np.empty((0, steps)), np.empty((0, steps), dtype=bool))

    @classmethod
    def one(cls, values: Floats, labels: Labels = ()) -> Frame:
        """A single row, present everywhere."""
        return cls((labels,), values[None, :], np.ones((1, len(values)), dtype=bool))

    @property
    def steps(self) -> int:
        return int(self.values.shape[1])

    def rows(self, rows: Sequence[int] | Integers) -> Frame:
        """These rows, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        labels = tuple([self.labels[row] for row in index.tolist()])
        return Frame(labels, take(self.values, index), take(self.present, index))

    def compact(self) -> Frame:
        """Without rows that have no sample at any step."""
        some = self.present.any(axis=1)
        return self if some.all() else self.rows(np.flatnonzero(some))


def take(values: Rows, rows: Integers) -> Rows:
    """These rows, in the memory order of the values (time-major, mostly)."""
    if values.flags.f_contiguous:
        return values.T.take(rows, axis=1).T
    return values[rows]


Scalars = Floats
"""A scalar expression: one value a step."""


def with_labels(labels: Labels, changes: Iterable[tuple[str, str]]) -> Labels:
    """Labels with some set; an empty value removes."""
    pairs = dict(labels)
    for name, value in changes:
        if value:
            pairs[name] = value
        else:
            pairs.pop(name, None)
    return tuple(sorted(pairs.items()))


def shown(labels: Labels) -> str:
    """Labels as PromQL writes them."""
    pairs = ", ".join(f'{name}="{value}"' for name, value in labels if name not in (NAME, "\0"))
    return dict(labels).get(NAME, "") + "{" + pairs + "}"


def merge(frame: Frame, message: str = "vector cannot contain metrics with the same labelset") -> Frame:
    """Rows with equal labels become one. Raises QueryError where two of them have a sample at the same step."""
    if unique(frame.labels):
        return frame
    first: dict[Labels, int] = {}
    rows = [first.setdefault(labels, len(first)) for labels in frame.labels]
    values = np.zeros((len(first), frame.steps))
    present = np.zeros((len(first), frame.steps), dtype=bool)
    for row, target in enumerate(rows):
        here = frame.present[row]
        if (present[target] & here).any():
            raise QueryError("execution", message)
        values[target, here] = frame.values[row, here]
        present[target] |= here
    return Frame(tuple(first), values, present)
