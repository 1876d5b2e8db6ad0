"""Frameworks other than FastAPI and Starlette: where each says which route template answered.

Nothing is imported: an application is known by what it has. What a framework keeps to itself is put into the ASGI scope
or WSGI environ of the request by a small hook on the application object. A template always comes from the application;
what has none is :data:`~.names.UNMATCHED`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from .measures import ERROR, Templates
from .names import UNMATCHED

logger = logging.getLogger("anvil_monitor.exporter")
# Where our hooks leave the template, below root_path or SCRIPT_NAME.
ROUTE: Final = "anvil_monitor.route"
MAX_WRAPPED: Final = 20
Ask = Callable[[Any], str | None]


class Said:
    """The template that the scope of an ASGI request names: our hooks, or Litestar's ``path_template``."""

    def __init__(self, search: Ask | None = None) -> None:
        self._search = search

    def named(self, scope: Any, status: int) -> str | None:
        if status == 405:
            return UNMATCHED
        text = scope.get(ROUTE) or scope.get("path_template")
        return text if isinstance(text, str) else UNMATCHED

    def template(self, scope: Any, path: str, status: int) -> str:
        text = self.named(scope, status) or UNMATCHED
        return text if text is UNMATCHED else scope.get("root_path", "") + text

    def of_page(self, path: str, root: str = "") -> str:
        text = self._search(path.removeprefix(root)) if self._search else None
        return UNMATCHED if text is None else root + text


class SaidByEnviron:
    """The template that the environ of a WSGI request names: our hooks, or Werkzeug's request that was there."""

    def __init__(self, app: Any = None, search: Ask | None = None) -> None:
        self._app, self._search = app, search

    def named(self, environ: Any, status: int) -> str | None:
        if status == 405:
            return UNMATCHED
        text = environ.get(ROUTE)
        if text is None:
            return UNMATCHED
        root: str = environ.get("SCRIPT_NAME", "")
        # A dispatcher has moved the mount's prefix there, which must be one that it has, not one a client chose.
        mounts = getattr(self._app, "mounts", None)
        if mounts is not None and root and not any(root.endswith(mount) for mount in mounts):
            root = f"/{UNMATCHED}"
        return f"{root.rstrip('/')}{text}"

    def template(self, environ: Any, path: str, status: int) -> str:
        return self.named(environ, status) or UNMATCHED

    def of_page(self, path: str, root: str = "") -> str:
        text = self._search(path.removeprefix(root)) if self._search else None
        return UNMATCHED if text is None else root + text


class Asked:
    """The user's own function first: it gets the scope or environ and gives a template, or ``None`` for "as usual"."""

    def __init__(self, ask: Ask, otherwise: Templates) -> None:
        self._ask, self._otherwise = ask, otherwise
        self._failed = False

    def named(self, scope: Any, status: int) -> str | None:
        text = self._answer(scope)
        return self._otherwise.named(scope, status) if text is None else text

    def template(self, scope: Any, path: str, status: int) -> str:
        text = self._answer(scope)
        return self._otherwise.template(scope, path, status) if text is None else text

    def of_page(self, path: str, root: str = "") -> str:
        return self._otherwise.of_page(path, root)

    def _answer(self, scope: Any) -> str | None:
        try:
            return self._ask(scope)
        except Exception:
            if not self._failed:
                self._failed = True
                logger.exception("route= of instrument failed; the framework's own answer is taken")
            return None


def search_url_map(app: Any) -> Ask:
    """Flask's and Quart's own routing, for the pages that browsers name."""

    def search(path: str) -> str | None:
        try:
            rule, _ = app.url_map.bind("").match(path, method="GET", return_rule=True)
        except Exception:  # noqa: BLE001  not found, or a redirect: no page of the application
            return None
        text: str = rule.rule
        return text

    return search


def hook_quart(app: Any) -> None:
    """Have Quart write the rule it matched into the scope."""

    def telling(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def told(request: Any) -> Any:
            try:
                return await handle(request)
            finally:
                request.scope[ROUTE] = getattr(getattr(request, "url_rule", None), "rule", None)

        return told

    app.handle_request = telling(app.handle_request)
    app.handle_websocket = telling(app.handle_websocket)


def keep_rule(environ: Any) -> None:
    """Keep what Werkzeug's request knows of its route: Flask takes the request out of the environ early."""
    rule = getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", None)
    if rule is not None:
        environ[ROUTE] = rule


def hook_flask(app: Any) -> None:
    """Have Flask write the name of an exception, which it answers itself, into the environ."""

    def failed(_sender: object, exception: BaseException, **_: object) -> None:
        from flask import request

        request.environ[ERROR] = type(exception).__name__
        keep_rule(request.environ)  # an exception that Flask lets through comes without an answer

    from flask import got_request_exception

    got_request_exception.connect(failed, app, weak=False)


def hook_django(app: Any) -> Ask | None:
    """Have Django's handler, if ``app`` wraps one, write the route it resolved into the scope or environ."""
    handler = next((each for each in wrapped(app) if hasattr(each, "resolve_request")), None)
    if handler is None:
        return None
    resolve = handler.resolve_request

    def told(request: Any) -> Any:
        match = resolve(request)
        with suppress(Exception):  # whatever a project has made of its requests: they are answered
            _place(request)[ROUTE] = django_route(match)
        return match

    def failed(request: Any = None, **_: object) -> None:
        # Sent while the exception is being handled; Django answers it itself.
        kind = sys.exc_info()[0]
        if kind is not None and hasattr(_place(request), "setdefault"):
            _place(request).setdefault(ERROR, kind.__name__)  # a second one comes from answering the first

    from django.core.signals import got_request_exception  # type: ignore[import-not-found, import-untyped, unused-ignore]

    handler.resolve_request = told
    got_request_exception.connect(failed, weak=False)

    def search(path: str) -> str | None:
        from django.urls import Resolver404, resolve  # type: ignore[import-not-found, import-untyped, unused-ignore]

        try:
            return django_route(resolve(path))
        except Resolver404:
            return None

    return search


def _place(request: Any) -> Any:
    return getattr(request, "scope", None) or getattr(request, "environ", None)


def django_route(match: Any) -> str:
    """``/articles/<int:year>/``: Django's has no slash before it, and of a ``re_path`` the anchors."""
    return "/" + str(match.route).removeprefix("^").removesuffix("$").removeprefix("/")


def wrapped(app: Any) -> Iterator[Any]:
    """``app`` and what it wraps, by the names that are usual for it; of a dispatcher the first of each."""
    seen: list[Any] = []
    ahead = [app]
    while ahead and len(seen) < MAX_WRAPPED:
        each = ahead.pop(0)
        if any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        for name in ("app", "application", "wsgi_app", "asgi_app", "wrapped_app"):
            inner = getattr(each, name, None)
            if callable(inner):
                ahead.append(inner)
        protocols = getattr(each, "application_mapping", None)  # Channels
        if isinstance(protocols, dict):
            ahead += [inner for inner in protocols.values() if callable(inner)]
