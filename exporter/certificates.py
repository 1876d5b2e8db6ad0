"""When a certificate ends, from its raw bytes.

Python's ``ssl`` decodes the certificates that it trusts and no others; the monitor wants to know it of an expired or
self-signed one, too. RFC 5280, section 4.1; the encoding (DER): ITU-T X.690.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

_SEQUENCE, _VERSION, _UTC_TIME, _GENERAL_TIME = 0x30, 0xA0, 0x17, 0x18
_TIME = re.compile(rb"(\d{2}|\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


def expiry(certificate: bytes) -> float | None:
    """``notAfter`` in seconds since 1970; ``None`` for what is no X.509 certificate in DER."""
    try:
        _, whole = next(_elements(certificate))
        _, signed = next(_elements(whole))
        fields = [body for tag, body in _elements(signed) if tag != _VERSION]
        # serial number, algorithm, issuer, validity
        _, (tag, text) = list(_elements(fields[3]))[:2]
        return _seconds(tag, text)
    except (StopIteration, ValueError, IndexError, OverflowError):
        return None


def _elements(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of one element after the other. Raises ``ValueError`` for one that is longer than ``text``."""
    place = 0
    while place < len(text):
        if place + 2 > len(text):
            raise ValueError("an element without a length")
        tag, length = text[place], text[place + 1]
        place += 2
        if length & 0x80:
            size = length & 0x7F
            if not 0 < size <= 4:
                raise ValueError("a length that DER does not have")
            length = int.from_bytes(text[place : place + size], "big")
            place += size
        if place + length > len(text):
            raise ValueError("an element that is cut off")
        yield tag, text[place : place + length]
        place += length


def _seconds(tag: int, text: bytes) -> float:
    match = _TIME.fullmatch(text)
    if match is None or (tag, len(match.group(1))) not in ((_UTC_TIME, 2), (_GENERAL_TIME, 4)):
        raise ValueError("no time")
    year, *rest = (int(part) for part in match.groups())
    if tag == _UTC_TIME:  # two digits mean 1950 to 2049
        year += 1900 if year >= 50 else 2000
    month, day, hour, minute, second = rest
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
