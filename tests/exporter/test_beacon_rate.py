"""How many beacons are taken, and what is remembered of who sent them."""

from __future__ import annotations

import gc
import random

from anvil_monitor.exporter import rate as rates
from anvil_monitor.exporter.rate import Rate


def taken(rate: Rate, client: str | None, now: float, tries: int = 1000) -> int:
    return sum(rate.take(client, now) for _ in range(tries))


def test_one_client_has_a_tenth() -> None:
    """One client cannot use up everybody's share; after a rest it may send again, never more than its burst."""
    rate = Rate(rate=100, burst=200)
    assert taken(rate, "10.0.0.1", 0.0) == 20
    assert rate.take("10.0.0.2", 0.0)
    assert taken(rate, "10.0.0.1", 1.0) == 10
    assert taken(rate, "10.0.0.1", 1000.0) == 20


def test_everybody_together() -> None:
    """However many clients there are, a worker takes so many and no more."""
    rate = Rate(rate=100, burst=200)
    assert sum(rate.take(f"10.{n >> 8}.{n & 255}.1", 0.0) for n in range(5000)) == 200
    assert sum(rate.take(f"10.{n >> 8}.{n & 255}.1", 1.0) for n in range(5000)) == 100


def test_others_do_not_refill_a_bucket() -> None:
    """A client that has had its share gets no more by sending from, or as, ten thousand others."""
    rate = Rate(rate=1e9, burst=1e9)
    rate._rows = (rates.Row(rates.BUCKETS, 1.0, 20.0), rates.Row(rates.BUCKETS, 1.0, 20.0))
    assert taken(rate, "10.0.0.1", 0.0) == 20
    for number in range(10_000):
        rate.take(f"172.16.{number >> 8}.{number & 255}", 0.0)
    assert not rate.take("10.0.0.1", 0.0)


def test_a_flood_leaves_honest_clients_room() -> None:
    """Forty clients that send all they may do not take away the share of a thousand that do not."""
    rate = Rate(rate=1e9, burst=1e9)
    rate._rows = (rates.Row(rates.BUCKETS, 1.0, 20.0), rates.Row(rates.BUCKETS, 1.0, 20.0))
    for number in range(40):
        taken(rate, f"10.0.1.{number}", 0.0, 50)
    refused = sum(not rate.take(f"172.16.{number >> 8}.{number & 255}", 0.0) for number in range(1000))
    assert refused <= 3  # both of a client's buckets among the empty ones: (40/4096)^2


def test_an_ipv6_network_is_one_client() -> None:
    """A host is given a whole /64: its addresses share a bucket; an IPv4 address written as IPv6 is the IPv4 one."""
    rate = Rate(rate=100, burst=200)
    assert sum(rate.take(f"2001:db8:0:1::{n:x}", 0.0) for n in range(1000)) == 20
    assert rate.take("2001:db8:0:2::1", 0.0)
    assert taken(rate, "::ffff:10.0.0.9", 0.0) == 20
    assert not rate.take("10.0.0.9", 0.0)


def test_a_proxy_on_this_host_is_no_client() -> None:
    """All users of a server behind one have its address: only the common bound holds for them."""
    for proxy in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "", None):
        assert taken(Rate(rate=100, burst=200), proxy, 0.0) == 200


def test_memory_is_bounded_and_holds_no_address() -> None:
    """Hundreds of thousands of clients leave behind what one does: fixed arrays of numbers."""
    rate = Rate()
    chance = random.Random(1)
    before = len(gc.get_objects())
    for number in range(20_000):
        rate.take(f"{chance.randrange(1, 223)}.{chance.randrange(256)}.{chance.randrange(256)}.9", number / 1000)
    assert len(gc.get_objects()) - before < 100
    assert {type(value).__name__ for value in vars(rate).values()} == {"Row", "tuple", "bytes"}
    assert sum(row.levels.itemsize * len(row.levels) * 2 for row in rate._rows) == 128 * 1024
