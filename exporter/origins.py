"""Whose pages may post here: this site's own, and those of the origins that the configuration lists.

A browser says where a request comes from, and no page can change what it says. ``Sec-Fetch-Site`` needs no look at the
address that we are reached by, so it is right behind any proxy; browsers send it to HTTPS sites and to localhost.
Without it the ``Origin`` is compared with ``Host``. ``X-Forwarded-Host`` is not read: anybody can send one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from .asgi import Scope, header

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Origins:
    """This site and ``others`` (``https://www.example.com``)."""

    def __init__(self, others: Iterable[str] = ()) -> None:
        self._others = frozenset(filter(None, map(normal, others)))

    def allows(self, scope: Scope) -> bool:
        """Whether the page that sent this request is one of ours. What is no browser says nothing, and passes."""
        origin = header(scope, b"origin")
        if self.lists(origin):
            return True
        site = header(scope, b"sec-fetch-site")
        if site:
            return site == "same-origin"
        host = _host(origin)
        return not origin or (host != "" and host == _host(f"http://{header(scope, b'host')}"))

    def lists(self, origin: str) -> bool:
        """Whether ``origin`` is one of the others."""
        return bool(self._others) and normal(origin) in self._others

    def headers(self, scope: Scope) -> list[tuple[str, str]]:
        """What lets a page of a listed origin read the answer. Never with credentials: no cookie is wanted."""
        fields = [("vary", "Origin")] if self._others else []
        origin = header(scope, b"origin")
        if self.lists(origin):
            fields.append(("access-control-allow-origin", origin))
        return fields

    def preflight(self, scope: Scope) -> list[tuple[str, str]]:
        """The answer to a browser that asks before it posts."""
        fields = self.headers(scope)
        if self.lists(header(scope, b"origin")):
            fields += [
                ("access-control-allow-methods", "POST"),
                ("access-control-allow-headers", "content-type"),
                ("access-control-max-age", "86400"),
            ]
        return fields


def normal(origin: str) -> str:
    """An origin as browsers write it: lower-case, without its scheme's own port. Empty for what is none."""
    host = _host(origin)
    return f"{origin.partition(':')[0].lower()}://{host}" if host else ""


def _host(origin: str) -> str:
    """Host and port, lower-case, without the port that the scheme (or, behind a proxy, the other one) implies."""
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host or parts.scheme not in DEFAULT_PORTS:
        return ""
    if ":" in host:
        host = f"[{host}]"
    return host if port in (None, *DEFAULT_PORTS.values()) else f"{host}:{port}"
