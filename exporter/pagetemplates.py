"""The paths that browsers report become templates: the listed ones first, then the server's own routes, else one value.

A template is a path whose steps are literal or ``{name}`` (one step, not empty), the last perhaps ``{name:path}`` (any
number of steps). The first that matches, in their order, is it. Matching compares step by step, so it takes time in
proportion to the path, whatever a browser sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from .names import UNMATCHED


class Templates(Protocol):
    """What turns the path of a page into a template; ``routes.Routes`` is one."""

    def of_page(self, path: str, root: str = "") -> str: ...


class PageTemplates:
    """``templates`` as ``monitor.toml`` lists them (it has checked their form), then what ``others`` makes of a path.

    A listed template is the whole path as the browser has it; ``root`` (where a proxy has put the application) is for
    ``others``, whose routes do not know of it. A slash at the end makes no difference to a listed template.
    """

    def __init__(self, templates: Iterable[str], others: Templates | None = None) -> None:
        self._templates = tuple((text, *_compiled(text)) for text in templates)
        self._others = others

    def of_page(self, path: str, root: str = "") -> str:
        """The template of ``path`` (percent-decoded), or :data:`~.names.UNMATCHED`."""
        steps = _steps(path)
        for text, wanted, open_end in self._templates:
            if len(steps) < len(wanted) if open_end else len(steps) != len(wanted):
                continue
            if all(want == step if want is not None else step for want, step in zip(wanted, steps, strict=False)):
                return text
        return UNMATCHED if self._others is None else self._others.of_page(path, root)


def _steps(path: str) -> list[str]:
    return path.strip("/").split("/") if path.strip("/") else []


def _compiled(text: str) -> tuple[tuple[str | None, ...], bool]:
    """Its steps, ``None`` for one of any text, and whether more may follow."""
    steps = _steps(text)
    open_end = bool(steps) and steps[-1].startswith("{") and steps[-1].endswith(":path}")
    if open_end:
        steps.pop()
    return tuple(None if step.startswith("{") else step for step in steps), open_end
