"""What label sets become: without the name, grouped, joined. Kept for the label sets that the store hands out again.

While the same series match a selector, the store hands out the same tuple of label sets; whatever a query makes of it
(the groups of an aggregation, labels without their name) is then the same as well, and found by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar, cast

import numpy as np

from ..samples import NAME, Integers, Labels, Panel, as_slice
from .query import names_stay

T = TypeVar("T")

MOST = 100_000
"""Label sets that are remembered together with what was made of them."""

SMALL = 8
"""Fewer are made anew: that costs no more than finding them."""

_kept: dict[tuple[Hashable, ...], tuple[tuple[object, ...], object]] = {}
_sizes: list[int] = [0]


def derived(labels: Sequence[Labels], key: Hashable, make: Callable[[Sequence[Labels]], T]) -> T:
    """``make(labels)``, remembered under ``key`` for this very tuple."""
    if not isinstance(labels, tuple) or len(labels) < SMALL:
        return make(labels)
    return _remembered((labels,), key, lambda: make(labels), len(labels))


def _remembered(owners: tuple[object, ...], key: Hashable, make: Callable[[], T], size: int) -> T:
    identity = (key, *map(id, owners))
    found = _kept.get(identity)
    # The owners are held, so that no other object can have their identity meanwhile.
    if found is not None:
        return cast(T, found[1])
    made = make()
    if _sizes[0] + size > MOST:
        _kept.clear()
        _sizes[0] = 0
    _sizes[0] += size
    _kept[identity] = (owners, made)
    return made


def joined(parts: tuple[tuple[Labels, ...], ...]) -> tuple[Labels, ...]:
    """All of them behind each other."""
    return _remembered(parts, "joined", lambda: tuple([one for part in parts for one in part]), sum(map(len, parts)))


def together(panels: Sequence[Panel]) -> tuple[tuple[Labels, ...], list[Integers | slice]]:
    """The label sets of all panels, sorted, and where each panel's are among them."""
    parts = tuple(panel.labels for panel in panels)
    return _remembered(parts, "together", lambda: _together(parts), sum(map(len, parts)))


def _together(parts: tuple[tuple[Labels, ...], ...]) -> tuple[tuple[Labels, ...], list[Integers | slice]]:
    labels = [one for part in parts for one in part]
    if not labels:
        return (), [slice(0, 0) for _ in parts]
    order = sorted(range(len(labels)), key=labels.__getitem__)
    if len(parts) == 1 and order == list(range(len(labels))):
        return parts[0], [slice(0, len(labels))]
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    ends = np.cumsum([len(part) for part in parts])
    return tuple([labels[one] for one in order]), [as_slice(part) for part in np.split(place, ends[:-1])]


def without_names(labels: Sequence[Labels]) -> tuple[Labels, ...]:
    """Each without ``__name__``, and without the type and unit that describe the metric of that name."""
    key = "marked" if names_stay() else "without names"
    return derived(labels, key, lambda all_: tuple([without_name(one) for one in all_]))


MARK = ("\0", "name dropped")
"""Stands in front of labels whose name is to be dropped at the end of the query."""


def without_name(labels: Labels) -> Labels:
    """Without the name; where names stay until the end, marked."""
    if names_stay():
        return labels if marked(labels) else (MARK, *labels)
    return _nameless(labels)


def _nameless(labels: Labels) -> Labels:
    return tuple([pair for pair in labels if pair[0] not in (NAME, "__type__", "__unit__")])


def marked(labels: Labels) -> bool:
    return labels[:1] == (MARK,)


def finished(labels: Sequence[Labels]) -> Sequence[Labels]:
    """What the marks stand for, done."""
    if not names_stay():
        return labels
    return tuple([_nameless(one[1:]) if marked(one) else one for one in labels])


def unique(labels: Sequence[Labels]) -> bool:
    """Whether no label set is there twice."""
    return derived(labels, "unique", lambda all_: len(set(all_)) == len(all_))


def groups_of(labels: Sequence[Labels], names: frozenset[str], *, without: bool) -> tuple[tuple[Labels, ...], Integers]:
    """The distinct label sets that remain with (or ``without``) some names, and which one each belongs to."""

    def make(all_: Sequence[Labels]) -> tuple[tuple[Labels, ...], Integers]:
        shape = drop if without else keep
        numbers: dict[Labels, int] = {}
        which = [numbers.setdefault(shape(one, names), len(numbers)) for one in all_]
        groups = list(numbers)
        for one, group in zip(all_, which, strict=True):
            if marked(one) and not marked(groups[group]):  # one name to be dropped is enough
                groups[group] = (MARK, *groups[group])
        return tuple(groups), np.array(which, dtype=np.int64)

    return derived(labels, ("groups", names, without), make)


def keep(labels: Labels, names: frozenset[str]) -> Labels:
    return tuple([pair for pair in labels if pair[0] in names])


def drop(labels: Labels, names: frozenset[str]) -> Labels:
    return tuple([pair for pair in labels if pair[0] not in names and pair != MARK])
