"""Posts over HTTP that we make ourselves: no log of URLs, no redirects, no proxies, of an answer only what is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .outcomes import Outcome, of_status

if TYPE_CHECKING:
    import httpx

TIMEOUT: Final = 60.0  # of one step; delivery ends the whole of it sooner


@dataclass(frozen=True, slots=True)
class Answer:
    """The status, the header ``Retry-After`` (empty where there is none), and as much of the body as was asked for."""

    status: int
    retry_after: str
    body: bytes = b""

    def outcome(self, now: float) -> Outcome:
        return of_status(self.status, self.retry_after, now)


class Poster:
    """Takes posts, in any number at once. It is below httpx's client, whose log has URLs in it, and who would follow
    redirects and the environment's proxies with what is secret."""

    def __init__(self) -> None:
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def post(self, url: str, body: bytes, headers: dict[str, str], read: int = 0) -> Answer:
        """Post ``body``; ``read``: bytes of the answer that are wanted. Raises httpx's errors and ``OSError``."""
        import httpx

        if self._transport is None:  # one for all: reading the certificates of the world takes 30 ms
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            self._transport = httpx.AsyncHTTPTransport(trust_env=False, limits=limits)
        address = httpx.URL(url)
        timeout = {"timeout": httpx.Timeout(TIMEOUT).as_dict()}
        request = httpx.Request("POST", address, content=body, headers=headers, extensions=timeout)
        if address.userinfo:
            request = next(httpx.BasicAuth(address.username, address.password).auth_flow(request))
        answer = await self._transport.handle_async_request(request)
        kept = bytearray()
        try:
            if read:
                async for chunk in answer.aiter_bytes():
                    kept += chunk
                    if len(kept) >= read:
                        break
        finally:
            await answer.aclose()
        return Answer(answer.status_code, answer.headers.get("Retry-After", ""), bytes(kept[:read]))
