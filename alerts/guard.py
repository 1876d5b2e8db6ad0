"""Who may read, and what a browser may do with it: stands in front of every address that the monitor answers on."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anvil_monitor.exporter import names

from .links import PATH as ACT_PATH
from .runbooks import PATH as RUNBOOK_PATH

# Nothing on the page comes from elsewhere, so nothing from elsewhere may run there.
HEADERS: Final = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)  # fmt: skip
# What asks for no token: whether it lives, what browsers send, who cannot keep a secret (their origin is checked),
# where the links of messages lead (their signature is), and what is no secret (runbooks).
OPEN_PATHS: Final = ("/-/healthy",)
OPEN_BELOW: Final = (f"{names.BEACON_PATH}/", f"{ACT_PATH}/", f"{RUNBOOK_PATH}/")
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets in who may read: with a token only its bearers; without one only requests made to a loopback name.

    The latter keeps a web page elsewhere from reading the monitor through a name of its own that points here (DNS
    rebinding). The token is taken as ``Authorization: Bearer`` or, for a browser, as the password of HTTP Basic.
    ``open_paths`` ask for neither.
    """

    app: ASGIApp
    host: str
    token: str | None
    open_paths: tuple[str, ...] = OPEN_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                own = {name for name, _ in given}  # a page with a form has a policy of its own
                message["headers"] = [*given, *(header for header in HEADERS if header[0] not in own)]
            await send(message)

        path: str = scope["path"]
        free = path in self.open_paths or path.startswith(OPEN_BELOW)
        refusal = None if free else self._refusal(Headers(scope=scope))
        await (refusal or self.app)(scope, receive, guarded)

    def _refusal(self, headers: Headers) -> Response | None:
        if self.token is None:
            host = headers.get("host", "")
            name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
            if name.lower() in (*LOOPBACK_NAMES, self.host, f"[{self.host}]"):
                return None
            return PlainTextResponse("ask for this page under 127.0.0.1 or localhost\n", 403)
        given = _given(headers.get("authorization", ""))
        if hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode("utf-8", "replace")):
            return None
        return PlainTextResponse(
            "this monitor asks for its token, as Bearer or as the password of HTTP Basic\n",
            401,
            {"WWW-Authenticate": 'Basic realm="anvil-monitor", charset="UTF-8"'},
        )


def _given(authorization: str) -> str:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # no Base64, no ASCII, no UTF-8
            return ""
    return ""
