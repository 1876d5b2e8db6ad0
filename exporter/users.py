"""Distinct clients of the last minute, over all workers, without keeping who they were.

Each client sets one bit, chosen by a keyed hash, in the bitmap of the present 10-second window of its worker's page.
Bitmaps are or-ed over the last minute and over workers, so that a client served by two workers counts once; the number
is estimated from the share of bits that stayed empty (linear counting: Whang, Vander-Zanden and Taylor, "A
linear-time probabilistic counting algorithm for database applications", 1990; with 16,384 bits the standard error is
under 1 % up to 10,000 clients). The key is random and lives in the private folder: a bit tells nobody's address.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from .page import USERS_BITS, USERS_WINDOWS

WINDOW_SECONDS: Final = 10
WORDS: Final = USERS_BITS // 64
# The bit of a client is kept for its next request; beyond this many the memory starts anew.
MOST_REMEMBERED: Final = 10_000


def current_window() -> int:
    """The number of the present window; the clock is the host's, so that all workers agree."""
    return int(time.time()) // WINDOW_SECONDS


class Users:
    """Marks the clients of one worker in ``words``: for each window its number and its bitmap."""

    def __init__(self, words: memoryview, salt: bytes) -> None:
        self._words, self._salt = words, salt
        self._bits: dict[str, int] = {}
        self._marked: set[str] = set()
        self._window = -1

    def seen(self, client: str, window: int) -> None:
        """``client`` was served in ``window``."""
        if window == self._window and client in self._marked:
            return
        start = (window % USERS_WINDOWS) * (1 + WORDS)
        if window != self._window:
            self._window = window
            self._marked.clear()
            if self._words[start] != window:
                for word in range(start + 1, start + 1 + WORDS):
                    self._words[word] = 0
                self._words[start] = window  # only now: a reader never takes an old bitmap for this one
        if len(self._marked) < MOST_REMEMBERED:
            self._marked.add(client)
        bit = self._bit(client)
        self._words[start + 1 + (bit >> 6)] |= 1 << (bit & 63)

    def _bit(self, client: str) -> int:
        bit = self._bits.get(client)
        if bit is None:
            if len(self._bits) >= MOST_REMEMBERED:
                self._bits.clear()
            digest = blake2b(client.encode(errors="replace"), key=self._salt, digest_size=8).digest()
            bit = self._bits[client] = int.from_bytes(digest, "little") % USERS_BITS
        return bit


def union(words: Sequence[int], window: int) -> int:
    """The bitmaps of the last minute up to ``window``, one over the other, as one whole number."""
    found = 0
    for slot in range(USERS_WINDOWS):
        start = slot * (1 + WORDS)
        # Six whole windows are a minute; the seventh is the one that is just filling.
        if window - (USERS_WINDOWS - 1) <= words[start] <= window:
            for place, word in enumerate(words[start + 1 : start + 1 + WORDS]):
                found |= word << (64 * place)
    return found


def estimate(bitmap: int) -> float:
    """The number of distinct clients whose bits are set in ``bitmap``."""
    empty = USERS_BITS - bitmap.bit_count()
    # All bits set: more clients than can be told apart; the largest number that can be is the honest answer.
    return float(round(-USERS_BITS * math.log(max(empty, 1) / USERS_BITS)))
