"""The runbooks: what each alert means and what to do first, as the wheel carries them (``docs/runbooks``).

:func:`text` gives one as Markdown with its commands filled in, :func:`body` as HTML. They are files of this project and
hold no markup but Markdown; what is filled in are names that no shell and no HTML reads as anything else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from anvil_monitor.targets import Monitor
from anvil_monitor.targets.settings import NAME

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

PACKAGE: Final = "anvil_monitor.runbooks"
PATH: Final = "/runbooks"  # where the monitor serves them
SUFFIX: Final = ".md"

# What stands in the files where a reader has something of his own, and the sentence that says so.
ADDRESS: Final = "http://127.0.0.1:9109"
# A command that holds a token would end in a shell's history.
BEARER: Final = '-H "Authorization: Bearer $TOKEN" '
ADVICE: Final = (
    "The address is that of the monitor's own page; in the bundle ask Prometheus (`http://127.0.0.1:9090`) instead.\n\n"
)
SERVICE: Final = re.compile(r'(?P<before>service=~?"?|journalctl -u )app(?=["|\s])')
TARGET: Final = re.compile(r"(?P<before> target=)\w+")
LINK: Final = re.compile(r"\[(?P<words>[^\]]+)\]\((?P<where>[^)\s]+\.md)\)")


def asked_at(monitor: Monitor) -> str:
    """Where the commands of a runbook ask, and with what."""
    return f"{BEARER if monitor.token else ''}{monitor.reached_at}"


@cache
def names() -> tuple[str, ...]:
    """The alerts that have a runbook."""
    files = resources.files(PACKAGE).iterdir()
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX)))


@cache
def _file(alert: str) -> str:
    return (resources.files(PACKAGE) / f"{alert}{SUFFIX}").read_text(encoding="utf-8")


def text(
    alert: str, link: Callable[[str], str] | None = None, address: str = "", service: str = "", target: str = ""
) -> str | None:
    """The runbook of ``alert`` as Markdown; ``None`` where there is none.

    ``link`` gives the address of another alert's runbook; ``address`` is where PromQL is asked, ``service`` and
    ``target`` are whose alert it is: each is filled into the commands where it is given and is a name.
    """
    if alert not in names():
        return None
    found = _file(alert)
    if address:
        found = found.replace(ADVICE, "").replace(ADDRESS, address)
    for pattern, name in ((SERVICE, service), (TARGET, target)):
        if NAME.fullmatch(name):
            found = pattern.sub(rf"\g<before>{name}", found)

    def linked(match: re.Match[str]) -> str:
        other = match["where"].removesuffix(SUFFIX)
        # Other pages of the documentation are not at hand where a runbook is read.
        return f"[{match['words']}]({link(other)})" if link and other in names() else match["words"]

    return LINK.sub(linked, found)


def body(markdown: str) -> str:
    """HTML without its frame. Markup in ``markdown`` is text, and only links that cannot run anything are links."""
    return str(_renderer().render(markdown))


@cache
def _renderer() -> MarkdownIt:
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table")
    # A long command and a wide table scroll by themselves, also with the keyboard: the page never does.
    made.add_render_rule("fence", _fence)
    made.add_render_rule("table_open", lambda *_: '<div class="wide" tabindex="0"><table>\n')
    made.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return made


def _fence(renderer: object, tokens: list[Token], index: int, *_: object) -> str:
    return f'<pre tabindex="0"><code>{html.escape(tokens[index].content)}</code></pre>\n'
