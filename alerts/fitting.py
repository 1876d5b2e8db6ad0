"""Which form of a message a service gets, and how a long one is cut to what the service takes.

It runs in the sending process, where Apprise's plugin says what it can show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

# Services that take so little show one line: SMS 160, several 140 to 280.
SMS_LIKE: Final = 320
# What a plugin adds to a body when it turns Markdown into its service's own syntax.
ROOM_LEFT: Final = 0.9
CUT: Final = "…"
# What makes a link of two brackets: several services (Mattermost, Zulip) show plain text as Markdown. A title is not
# escaped everywhere either.
LINKING: Final = re.compile(r"\](?=[(\[:])")
# Where a picture stands in an HTML body.
PLOT_MARK: Final = "<!--plot-->"


def form_of(plugin: Any, chosen: str, offered: Mapping[str, Any]) -> str:
    """``chosen``, or by what the plugin says: its length, its formats, and ``?format=`` in its URL."""
    if chosen:
        return chosen if chosen in offered else "text"
    if plugin.body_maxlen <= SMS_LIKE:
        return "short" if "short" in offered else "text"
    declared = plugin.notify_format
    formats = [one.value for one in (declared if isinstance(declared, tuple) else (declared,))]
    # A service that takes Markdown is a chat and shows it; one that takes everything only passes it on.
    chat = "markdown" in formats and len(formats) < 3
    form = str(plugin.resolve_format("markdown" if chat else None).value)
    return form if form in offered else "text"


def fitted(plugin: Any, form: str, title: str, written: Mapping[str, str]) -> tuple[str, str]:
    """Title and body for the plugin. A service without titles gets the heading as part of the body."""
    heading, body = written["heading"], written["body"]
    title = LINKING.sub("]\u200b", title)
    if form in ("text", "short"):
        heading, body = LINKING.sub("]\u200b", heading), LINKING.sub("]\u200b", body)
    if plugin.title_maxlen <= 0 and form != "text":
        body = f"{heading}\n\n{body}" if heading else body
        title = ""
    shared = len(title) if plugin.title_maxlen <= 0 or plugin.overflow_amalgamate_title else 0
    return title, shortened(body, int(plugin.body_maxlen * ROOM_LEFT) - shared)


def shortened(body: str, room: int) -> str:
    """``body`` within ``room`` characters: whole paragraphs, else whole lines, else what there is room for."""
    if len(body) <= room:
        return body
    for mark in ("\n\n", "\n"):
        kept = body[: max(0, room - len(mark) - len(CUT)) + 1].rpartition(mark)[0]
        if kept.strip():
            return f"{kept}{mark}{CUT}"
    return body[: max(1, room - 1)].rstrip("\\") + CUT
