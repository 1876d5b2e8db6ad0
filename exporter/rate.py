"""How many beacons are taken: in all, and from one client, in memory that never grows and holds no address.

A client is a number: a keyed hash of its address, the key known to this process only. Each of two rows has a bucket for
it; it is refused when both are empty. Clients may share a bucket, nobody can empty another's two on purpose, and
nothing that a client does refills any.
"""

from __future__ import annotations

import ipaddress
import os
from array import array
from hashlib import blake2b
from typing import Final

# One page view sends two beacons. A worker takes this many a second, and this many at once after a rest; one client
# (an address: it may be a whole office behind a proxy) a tenth of it.
RATE: Final = 500.0
BURST: Final = 1000.0
CLIENT_SHARE: Final = 0.1
BUCKETS: Final = 4096  # in each row


class Rate:
    """Token buckets: ``rate`` a second, ``burst`` at once."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._all = Row(1, rate, burst)
        share = CLIENT_SHARE
        self._rows = (Row(BUCKETS, rate * share, burst * share), Row(BUCKETS, rate * share, burst * share))
        self._key = os.urandom(16)

    def take(self, client: str | None, now: float) -> bool:
        """Whether ``client`` (an address; ``None``: unknown) may send one more at ``now`` (seconds)."""
        if self._all.level(0, now) < 1:
            return False
        network = _network(client)
        if network:
            digest = blake2b(network, digest_size=8, key=self._key).digest()
            places = [int.from_bytes(half) % BUCKETS for half in (digest[:4], digest[4:])]
            levels = [row.level(place, now) for row, place in zip(self._rows, places, strict=True)]
            if max(levels) < 1:
                return False
            for row, place in zip(self._rows, places, strict=True):
                row.take(place, now)
        self._all.take(0, now)
        return True


class Row:
    """Buckets of one size; all are full at first."""

    def __init__(self, count: int, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.levels = array("d", [burst]) * count
        self.times = array("d", [0.0]) * count

    def level(self, place: int, now: float) -> float:
        return min(self.burst, self.levels[place] + (now - self.times[place]) * self.rate)

    def take(self, place: int, now: float) -> None:
        self.levels[place] = max(0.0, self.level(place, now) - 1.0)
        self.times[place] = now


def _network(client: str | None) -> bytes:
    """Who counts as one client: an IPv4 address, or the /64 that an IPv6 host is given.

    Empty for one that cannot be told from others: a proxy on this host (its users all have its address), or no address.
    """
    if not client:
        return b""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client.encode("utf-8", "replace")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return b""
    return address.packed[:8] if address.version == 6 else address.packed
