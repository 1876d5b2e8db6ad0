"""The forms of a message: plain text, one short line, Markdown and HTML, all of one :class:`~.messages.Story`.

The texts of a story are single lines without control characters or mentions of everybody. What is left to each form is
its own syntax: nothing that an annotation says can open a tag, a link or an emphasis.
"""

from __future__ import annotations

import enum
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from . import messages, wording
from .fitting import PLOT_MARK
from .messages import Part, State, Story

SHORT_LENGTH: Final = 160  # of one SMS

# CommonMark's punctuation that can begin anything within a line. An underscore between letters cannot.
MARKDOWN: Final = re.compile(r"[\\`*\[\]<>~#]|(?<![^\W_])_|_(?![^\W_])")
COLOURS: Final = {State.FIRING: "#b42318", State.STILL: "#b54708", State.OVER: "#067647"}
FONT: Final = "font-family:-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif"


class Form(enum.StrEnum):
    """What a channel can show."""

    TEXT = "text"
    SHORT = "short"
    MARKDOWN = "markdown"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Written:
    """A body, and the title as it has to stand where a service has no titles of its own."""

    heading: str
    body: str


def write(words: Story) -> dict[Form, Written]:
    """``words`` in every form."""
    return {
        Form.TEXT: Written(words.title, messages.text(words)),
        Form.SHORT: Written("", short(words)),
        Form.MARKDOWN: Written(f"**{markdown_escaped(words.title)}**", markdown(words)),
        Form.HTML: Written("", html_page(words)),
    }


def as_it_is(title: str, body: str) -> dict[Form, Written]:
    """The forms of a text that came without its notification."""
    paragraphs = [markdown_escaped(line) for line in body.split("\n")]
    return {
        Form.TEXT: Written(title, body),
        Form.SHORT: Written("", wording.plain(title, SHORT_LENGTH)),
        Form.MARKDOWN: Written(f"**{markdown_escaped(title)}**", "  \n".join(paragraphs)),
        Form.HTML: Written("", f"{_h2(title)}<p>{html.escape(body).replace(chr(10), '<br>')}</p>"),
    }


def short(words: Story) -> str:
    """One line of at most :data:`SHORT_LENGTH` characters: the title, and since when or for how long."""
    when = ""
    if len(words.parts) == 1 and not words.more:
        (part,) = words.parts
        when = f", after {part.lasted}" if part.state is State.OVER else f", since {part.since}"
    return wording.plain(words.title, SHORT_LENGTH - len(when)) + when


def markdown(words: Story) -> str:
    """CommonMark; Apprise turns it into what each service understands."""
    paragraphs = [_markdown_part(part) for part in words.parts]
    if words.more:
        paragraphs.append(f"… and {words.more} more")
    if words.links:
        paragraphs.append(_markdown_links(words.links))
    return "\n\n".join(paragraphs)


def _markdown_part(part: Part) -> str:
    lines = [f"**{markdown_escaped(part.headline)}**", *map(markdown_escaped, part.sentences)]
    lines += [f"{name}: {markdown_escaped(text)}" for name, text in part.details]
    if part.links:
        lines.append(_markdown_links(part.links))
    return "  \n".join(lines)


def _markdown_links(links: Sequence[tuple[str, str]]) -> str:
    shown = []
    for name, url in links:
        head = markdown_escaped(name)
        shown.append(f"[{head}]({safe_url(url)})" if is_address(url) else f"{head}: {markdown_escaped(url)}")
    return " · ".join(shown)


def markdown_escaped(text: str) -> str:
    return MARKDOWN.sub(lambda match: f"\\{match.group()}", text)


def is_address(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def safe_url(url: str) -> str:
    """``url`` without a character that could end a link in any of the forms."""
    return quote(url, safe=":/?#[]@!$&+,;=%~-._")


def html_page(words: Story) -> str:
    """A fragment of HTML for mails: styles inline, for mail programs know no others."""
    parts = [_html_part(part) for part in words.parts]
    if parts:
        parts[0] += PLOT_MARK
    if words.more:
        parts.append(f"<p>… and {words.more} more</p>")
    if words.links:
        parts.append(f"<p>{_html_links(words.links)}</p>")
    return f'<div style="{FONT};max-width:640px">{_h2(words.title)}{"".join(parts)}</div>'


def _h2(title: str) -> str:
    return f'<h2 style="font-size:18px;margin:0 0 12px">{html.escape(title)}</h2>'


def _html_part(part: Part) -> str:
    colour = COLOURS[part.state]
    lines = [f'<b style="color:{colour}">{html.escape(part.headline)}</b>', *map(html.escape, part.sentences)]
    rows = [
        ("Value", part.value),
        ("Target", part.limit),
        ("Since", part.since),
        ("Lasted" if part.state is State.OVER else "For", part.lasted),
        *part.details,
    ]
    table = "".join(
        f'<tr><td style="color:#667085;padding:1px 12px 1px 0">{html.escape(name)}</td>'
        f"<td>{html.escape(text)}</td></tr>"
        for name, text in rows
        if text
    )
    links = f"<p>{_html_links(part.links)}</p>" if part.links else ""
    return (
        f'<div style="border-left:4px solid {colour};padding:2px 12px;margin:12px 0"><p>{"<br>".join(lines)}</p>'
        f'<table style="border-collapse:collapse;font-size:14px">{table}</table>{links}</div>'
    )


def _html_links(links: Sequence[tuple[str, str]]) -> str:
    shown = []
    for name, url in links:
        head = html.escape(name)
        shown.append(f'<a href="{html.escape(safe_url(url))}">{head}</a>' if is_address(url)
                     else f"{head}: {html.escape(url)}")  # fmt: skip
    return " · ".join(shown)


ESCAPES: Final[Mapping[Form, Callable[[str], str]]] = {
    Form.TEXT: str,
    Form.SHORT: str,
    Form.MARKDOWN: markdown_escaped,
    Form.HTML: html.escape,
}


def values(words: Story, form: Form) -> dict[str, Any]:
    """What a template may speak of, escaped for ``form``: see docs/notifications.md."""
    safe = ESCAPES[form]

    def pairs(given: Sequence[tuple[str, str]], name: str) -> list[dict[str, str]]:
        return [{"name": safe(head), name: safe_url(text) if name == "url" else safe(text)} for head, text in given]

    return {
        "title": safe(words.title),
        "kind": words.kind,
        "service": safe(words.service),
        "short": safe(short(words)),
        "more": words.more,
        "links": pairs([link for link in words.links if is_address(link[1])], "url"),
        "plot": PLOT_MARK if form is Form.HTML else "",
        "alerts": [
            {
                "state": part.state.value,
                "name": safe(wording.plain(part.alert.name, 120)),
                "severity": safe(wording.plain(part.alert.severity, 60)),
                "headline": safe(part.headline),
                "description": safe(" ".join(part.sentences)),
                "value": safe(part.value),
                "limit": safe(part.limit),
                "since": safe(part.since),
                "lasted": safe(part.lasted),
                "details": pairs(part.details, "text"),
                "links": pairs([link for link in part.links if is_address(link[1])], "url"),
                "labels": {
                    safe(wording.plain(name, 60)): safe(wording.plain(text, 200))
                    for name, text in sorted(part.alert.labels.items())
                },
            }
            for part in words.parts
        ],
    }
