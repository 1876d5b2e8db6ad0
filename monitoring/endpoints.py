"""From a request to an answer of the API: where a question is worked on, and what ends it early.

Work is done in the threads of the API, so that a slow question delays neither scrapes nor the page. A question that
was quick the last time is answered in place, which costs a third of the way there and back; it has little time, and
goes to the threads when that is not enough. A client that leaves ends its question.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .answers import encode
from .apistate import Sources
from .parameters import TIMED_OUT, Answer, ApiError, Left, Parameters
from .promql import QueryError

Handler = Callable[[Sources, Parameters], Any]

QUICK: Final = 0.002
"""Seconds. What took less is answered in place the next time: the event loop does nothing else meanwhile."""
PATIENCE: Final = 0.05
"""Seconds that an answer in place may take, before it is begun anew in a thread."""
REMEMBERED: Final = 1000
UNWATCHED: Final = 0.05
"""Seconds after which it is looked whether the client is still there: most answers are given by then."""


class Quick:
    """Questions that took little time when they were asked last."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}

    def __contains__(self, question: str) -> bool:
        return question in self._known

    def took(self, question: str, seconds: float) -> None:
        if seconds > QUICK:
            self._known.pop(question, None)
        else:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[question] = None


class Endpoint:
    """An endpoint of the API, as an ASGI application. ``quick``: those of its questions that are answered in place."""

    def __init__(self, sources: Sources, run: Handler, quick: Quick | None = None) -> None:
        self._sources, self._run, self._quick = sources, run, quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope, receive)
        if answer is not None:
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        try:
            parameters = await Parameters.read(scope, receive)
            body = await self._body(parameters, receive)
        except Left:
            return None
        except ApiError as error:
            return failure(error.kind, str(error), error.status)
        except QueryError as error:
            wrong = ApiError(error.kind, error.message)
            return failure(wrong.kind, str(wrong), wrong.status)
        except RuntimeError as error:  # the executor has been shut down: we are on our way out
            return failure("unavailable", str(error), 503)
        return Response(body, media_type="application/json")

    async def _body(self, parameters: Parameters, receive: Receive) -> bytes:
        if self._quick is not None and parameters.text("query") in self._quick:
            parameters.patience = PATIENCE
            try:
                return self._work(parameters)
            except ApiError as error:
                if str(error) != TIMED_OUT:
                    raise
            finally:
                parameters.patience = None
        return await self._in_thread(parameters, receive)

    async def _in_thread(self, parameters: Parameters, receive: Receive) -> bytes:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Any] = loop.run_in_executor(self._sources.executor, self._work, parameters)
        await asyncio.wait([found], timeout=UNWATCHED)
        if not found.done():
            leaving: asyncio.Future[Any] = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait([found, leaving], return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                if not found.done():
                    parameters.cancel.set()
            if not found.done():
                # Nobody waits for it any more; what it ends with is no news.
                found.add_done_callback(lambda future: future.cancelled() or future.exception())
                raise Left
        body: bytes = found.result()
        return body

    def _work(self, parameters: Parameters) -> bytes:
        begin = time.perf_counter()
        try:
            found = self._run(self._sources, parameters)
        finally:
            if self._quick is not None:
                self._quick.took(parameters.text("query"), time.perf_counter() - begin)
        answer = found if isinstance(found, Answer) else Answer(found)
        notes = {"warnings": list(answer.warnings), "infos": list(answer.infos)}
        said = {name: texts for name, texts in notes.items() if texts}
        return encode({"status": "success", "data": answer.data, **said})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def failure(kind: str, message: str, status: int) -> Response:
    """The error envelope."""
    body = encode({"status": "error", "errorType": kind, "error": message})
    return Response(body, status_code=status, media_type="application/json")
