"""What a person may hold back, over HTTP: ``/api/v1/silences`` and ``/api/v1/acks``.

Who may read the monitor may hold back what it tells: :mod:`.guard` asks for the token or a loopback name.
What changes something must be declared as JSON, which a web page elsewhere cannot send unasked: the browser would ask
us first, and nobody answers it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import acks, matchers, silences
from .model import Alert
from .outbox import Outbox, OutboxError
from .taking import RefusedError, json_body

logger = logging.getLogger(__name__)

MAX_BODY: Final = 16_384

Work = Callable[[Request, Mapping[str, Any]], Any]


def routes(
    outbox: Outbox, firing: Callable[[], list[Alert]], clock: Callable[[], float], executor: Executor
) -> list[Route]:
    """The routes. ``firing`` gives the alerts that fire; ``executor`` runs what waits for the disk."""

    def listed(_: Request, __: Mapping[str, Any]) -> Any:
        return {"silences": [silence.to_json() for silence in silences.since(outbox, clock())]}

    def add(_: Request, body: Mapping[str, Any]) -> Any:
        now = clock()
        chosen = matchers.from_json(body.get("matchers"))
        author, reason = text(body, "author", "createdBy"), text(body, "reason", "comment")
        made = silences.add(
            outbox, chosen, author=author, reason=reason, starts=now, ends=now + silences.lasting(text(body, "for"))
        )
        return {"silence": made.to_json()}

    def end(request: Request, _: Mapping[str, Any]) -> Any:
        if not silences.end(outbox, request.path_params["number"], clock()):
            raise RefusedError(404, f"there is no silence {request.path_params['number']}")
        return {}

    def seen(_: Request, __: Mapping[str, Any]) -> Any:
        return {"acks": [ack.to_json() for ack in acks.current(outbox).values()]}

    def acknowledge(_: Request, body: Mapping[str, Any]) -> Any:
        one = text(body, "alert")
        found = acks.find(firing(), [one] if one else [str(each) for each in matchers.from_json(body.get("matchers"))])
        author, reason = text(body, "author"), text(body, "reason")
        return {"acks": [ack.to_json() for ack in acks.add(outbox, found, author=author, reason=reason, at=clock())]}

    def take_back(request: Request, _: Mapping[str, Any]) -> Any:
        if not acks.remove(outbox, request.path_params["fingerprint"]):
            raise RefusedError(404, f"{request.path_params['fingerprint']} is not acknowledged")
        return {}

    answered = answering(executor)
    return [
        Route("/api/v1/silences", answered(listed)),
        Route("/api/v1/silences", answered(add, changes=True), methods=["POST"]),
        Route("/api/v1/silences/{number:int}", answered(end), methods=["DELETE"]),
        Route("/api/v1/acks", answered(seen)),
        Route("/api/v1/acks", answered(acknowledge, changes=True), methods=["POST"]),
        Route("/api/v1/acks/{fingerprint}", answered(take_back), methods=["DELETE"]),
    ]


def answering(executor: Executor) -> Callable[..., Callable[[Request], Awaitable[Response]]]:
    """Makes a handler of what gives the data of an answer; with ``changes`` it reads a JSON object first."""

    def answered(work: Work, changes: bool = False) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                body = await read(request) if changes else {}
                data = await asyncio.get_running_loop().run_in_executor(executor, work, request, body)
            except RefusedError as error:
                return refused(error.status, str(error))
            except ValueError as error:
                return refused(400, str(error))
            except OutboxError as error:
                logger.error("%s %s: %s", request.method, request.url.path, error)
                return refused(503, "the outbox cannot be used; the log says why")
            return JSONResponse({"status": "success", "data": data})

        return handle

    return answered


def refused(status: int, reason: str) -> Response:
    kind = {404: "not_found", 503: "unavailable"}.get(status, "bad_data")
    return JSONResponse({"status": "error", "errorType": kind, "error": reason}, status)


async def read(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request, within its limits. Raises :class:`RefusedError`."""
    try:
        found = json.loads(await json_body(request, MAX_BODY))
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is no JSON") from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body is no JSON object")
    return found


def text(body: Mapping[str, Any], *names: str, default: str = "") -> str:
    """The first of ``names`` that is there. Raises :class:`RefusedError` where it is no text."""
    for name in names:
        if name in body:
            if not isinstance(body[name], str):
                raise RefusedError(400, f"{name} must be text")
            return str(body[name])
    return default
