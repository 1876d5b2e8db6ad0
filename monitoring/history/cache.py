"""What was read, as long as there is room: the least recently used goes first. For use by several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """At most ``room`` of what ``weigh`` says a value weighs."""

    def __init__(self, room: int, weigh: Callable[[V], int]) -> None:
        self.room = room
        self.weight = 0
        self._weigh = weigh
        self._lock = threading.Lock()
        self._found: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value, made if it is not there. What would take more than a quarter of the room is not kept."""
        with self._lock:
            value = self._found.get(key)
            if value is not None:
                self._found.move_to_end(key)
                return value
        value = make()
        weight = self._weigh(value)
        if weight <= self.room // 4:
            with self._lock:
                if key not in self._found:
                    self._found[key] = value
                    self.weight += weight
                    while self.weight > self.room:
                        self.weight -= self._weigh(self._found.popitem(last=False)[1])
        return value
