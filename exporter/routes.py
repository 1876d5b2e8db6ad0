"""Which route template answered a request: read from the scope after routing, and matched again only where it must be.

FastAPI keeps the full template of a route under ``include_router`` only in
``scope["fastapi"]["effective_route_context"].path_format``, a private key (``scope["route"]`` has the template relative
to its own router); it leaves no route at all for Starlette's plain ones. Prefixes of mounts are in
``scope["root_path"]``, with the values of their parameters in them. ``tests/exporter/test_routes.py`` holds all of it
against the FastAPI that is installed. What is returned is always a template that the application itself has, or
:data:`~.names.UNMATCHED`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from .names import UNMATCHED

Scope = MutableMapping[str, Any]
REFRESH_SECONDS: Final = 1.0
GROUP_NAME: Final = re.compile(r"\(\?P<[^>]*>")


@dataclass(frozen=True, slots=True)
class Template:
    """A leaf of the application's routing tree. ``opaque``: a mounted application that shows no routes of its own."""

    text: str
    pattern: re.Pattern[str]
    endpoint: Any
    methods: frozenset[str] | None
    opaque: bool = False


class Routes:
    """The route templates of ``app`` (Starlette or FastAPI), found when they are first asked for."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._templates: tuple[Template, ...] = ()
        self._mounts: tuple[tuple[str, re.Pattern[str]], ...] = ()
        self._prefixes: dict[str, str] = {}
        self._built = float("-inf")

    def named(self, scope: Scope, status: int) -> str | None:
        """The template below ``root_path`` that the scope itself says, if it does (see ``measures.Templates``)."""
        if status == 405:
            return UNMATCHED  # the path is known, the method is not: no endpoint ran
        text: str
        try:
            route = scope["route"]
            if "fastapi" in scope:
                context = scope["fastapi"].get("effective_route_context")
                # A context may be left over from the router round a mount: it counts if the route is its own.
                if context is not None and context.original_route is route:
                    text = context.path_format
                    return text
            # A route may be left over from outside too: then the endpoint that ran is another one's.
            if route.endpoint is scope["endpoint"]:
                text = route.path_format
                return text
        except (AttributeError, KeyError):  # no route, or a mount
            pass
        return UNMATCHED if status == 404 and scope.get("endpoint") is None else None

    def template(self, scope: Scope, path: str, status: int) -> str:
        """The template that answered ``scope`` (after the application has) with ``status``; ``path``: as requested."""
        text = self.named(scope, status)
        if text is UNMATCHED:
            return text
        root = scope.get("root_path", "")
        outer: str = scope.get("app_root_path", root)
        if text is not None:
            return f"{outer}{self._prefix(root[len(outer) :])}{text}"
        endpoint = scope.get("endpoint")
        candidates = [each for each in self._all() if endpoint is None or each.endpoint is endpoint]
        # A WebSocket's scope has no method; its routes have none either.
        found = self._match(path.removeprefix(outer), scope.get("method", ""), candidates)
        if found is None or (status == 404 and found.opaque):
            return UNMATCHED
        return outer + found.text

    def of_page(self, path: str, root: str = "") -> str:
        """The template of a page's ``path``, as a browser names it."""
        found = self._match(path.removeprefix(root), "GET", self._all())
        return UNMATCHED if found is None else root + found.text

    def _match(self, path: str, method: str, among: Iterable[Template]) -> Template | None:
        for each in among:
            if (each.methods is None or method in each.methods) and each.pattern.match(path):
                return each
        return None

    def _prefix(self, mounted: str) -> str:
        """The template of a mount that put ``mounted`` before the path: its parameters' values are no labels."""
        if not mounted:
            return ""
        if mounted not in self._prefixes:
            self._all()
            for text, pattern in self._mounts:
                if pattern.fullmatch(mounted):
                    if "{" in text:
                        return text  # not remembered: there are as many as values
                    self._prefixes[mounted] = text
                    return text
            return f"/{UNMATCHED}"
        return self._prefixes[mounted]

    def _all(self) -> tuple[Template, ...]:
        # Routes may be added while the application runs; walking the tree costs little at this pace.
        if time.monotonic() - self._built > REFRESH_SECONDS:
            mounts: list[tuple[str, re.Pattern[str]]] = []
            self._templates = tuple(_walk(getattr(self._app, "routes", ()), "", "", mounts))
            self._mounts = tuple(mounts)
            self._prefixes = {}
            self._built = time.monotonic()
        return self._templates


def _walk(
    routes: Iterable[Any], text: str, pattern: str, mounts: list[tuple[str, re.Pattern[str]]]
) -> Iterator[Template]:
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is not None:  # FastAPI's include_router
            inner = [getattr(context, "starlette_route", None) or context for context in contexts()]
            yield from _walk(inner, text, pattern, mounts)
            continue
        regex = getattr(getattr(route, "path_regex", None), "pattern", None)
        path = getattr(route, "path_format", None)
        if regex is None or path is None:
            below = getattr(route, "routes", None)  # a Host
            yield from _walk(below or (), text, pattern, mounts)
            continue
        regex = pattern + GROUP_NAME.sub("(?:", regex.removeprefix("^"))
        below = getattr(route, "routes", None)
        if below is None:
            methods = getattr(route, "methods", None)
            yield Template(text + path, re.compile(regex), route.endpoint, frozenset(methods) if methods else None)
            continue
        prefix, regex = text + path.removesuffix("/{path}"), regex.removesuffix("/(?:.*)$")
        mounts.append((prefix, re.compile(regex)))
        if below:
            yield from _walk(below, prefix, regex, mounts)
        else:
            yield Template(f"{prefix}/{{path}}", re.compile(f"{regex}/"), route.app, None, opaque=True)
