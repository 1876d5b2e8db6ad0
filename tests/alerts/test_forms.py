"""The forms of a message, and text in it that would rather be syntax."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.alerts import fitting, forms
from anvil_monitor.alerts.forms import Form
from anvil_monitor.alerts.messages import story
from anvil_monitor.alerts.model import Alert, Notification

AT = 1_800_000_000.0
ABOUT = {
    "title": "API response time", "measure": "p95 over 1 min", "value": "0.312", "limit": "0.2", "unit": "seconds",
    "description": "It is slow.", "baseline": "0.14", "routes": "GET /orders 840 ms\nGET /items 410 ms",
    "dashboard": "https://example.test/d?a=1&b=2", "runbook_url": "docs/runbooks/TargetMissed.md",
}  # fmt: skip


def missed(**more: str) -> Alert:
    labels = {"alertname": "TargetMissed", "service": "app", "target": "api_response_time", "severity": "critical"}
    return Alert(labels, {**ABOUT, **more}, AT)


def written(*alerts: Alert, **more: Any) -> dict[Form, forms.Written]:
    return forms.write(story(Notification("app", AT + 80, "new alerts", firing=alerts, **more)))


class Tags(HTMLParser):
    """The tags, attributes and text of a fragment, and whether all that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_form_says_what_matters() -> None:
    """Value, limit, since when, the usual value, the routes: in text, Markdown and HTML; the short form is one line."""
    made = written(missed())
    for form in (Form.TEXT, Form.MARKDOWN):
        for words in ("312 ms", "200 ms", "since", "Usually: 140 ms", "GET /orders 840 ms; GET /items 410 ms"):
            assert words in made[form].body
    page = Tags(made[Form.HTML].body)
    assert page.open == []
    assert "Usually140 ms" in page.text
    assert ("a", {"href": "https://example.test/d?a=1&b=2"}) in page.tags
    assert "docs/runbooks/TargetMissed.md" in page.text
    assert "[Dashboard](https://example.test/d?a=1&b=2)" in made[Form.MARKDOWN].body
    short = made[Form.SHORT].body
    assert re.fullmatch(r"app: API response time 312 ms, target < 200 ms, since \S+ \S+", short)
    assert len(short) <= 160


def test_the_short_form_of_an_end() -> None:
    """It says how long it lasted."""
    over = Alert(missed().labels, ABOUT, AT, AT + 80)
    made = forms.write(story(Notification("app", AT + 80, "alerts resolved", resolved=(over,))))
    assert made[Form.SHORT].body == "app: API response time recovered, after 1 min 20 s"


def test_a_notification_survives_the_outbox() -> None:
    """What to_json wrote is read back the same; of very many alerts the rest is counted."""
    told = Notification("app", AT, "new alerts", firing=(missed(),), current={"x": 1.0}, links=(("Ack", "https://x"),))
    back = Notification.from_json(told.to_json())
    assert (back.firing, back.links, back.more) == (told.firing, told.links, 0)
    many = Notification("app", AT, "new alerts", firing=tuple(missed(title=str(n)) for n in range(50)))
    back = Notification.from_json(many.to_json())
    assert (len(back.firing), back.more) == (20, 30)
    assert forms.write(story(back))[Form.TEXT].body.endswith("… and 40 more")


def test_links_of_the_whole_message() -> None:
    """Addresses that the pipeline gives stand at the end of every form; one that is none is left out."""
    made = written(missed(), links=(("Acknowledge", "https://example.test/ack?s=1"), ("Evil", "javascript:alert(1)")))
    assert made[Form.TEXT].body.endswith("Acknowledge: https://example.test/ack?s=1")
    assert made[Form.MARKDOWN].body.endswith("[Acknowledge](https://example.test/ack?s=1)")
    assert ("a", {"href": "https://example.test/ack?s=1"}) in Tags(made[Form.HTML].body).tags
    assert not any("javascript" in one.body for one in made.values())


HOSTILE = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            ["<script>", "</td>", "<!channel>", "@everyone", "<@U1>", "[x](https://evil.test)", "![", "](", "`", "**",
             "\\", '"', "'", "&lt;", "\r\nBcc: a@b.c", "# ", "<https://evil.test|x>", "\u202e", "||", "<at>", "{{", "_",
             "]\\(", "\\[x\\](y)", "<a href=x>"]
        ),
        max_size=8,
    ).map("".join),
)  # fmt: skip
KEYS = (
    "title",
    "measure",
    "value",
    "limit",
    "unit",
    "description",
    "baseline",
    "routes",
    "detail",
    "summary",
    "promise",
)


@given(st.fixed_dictionaries(dict.fromkeys(KEYS, HOSTILE)), HOSTILE, HOSTILE)
def test_nothing_in_an_alert_is_syntax(given_: dict[str, str], name: str, url: str) -> None:
    """Whatever an annotation or a label holds: no tag and no link but ours, no mention, one line of title."""
    alert = Alert({"alertname": name, "service": name, "target": name}, {**given_, "dashboard": f"https://x/{url}"}, AT)
    for measured in (alert, Alert({**alert.labels, "alertname": "TargetMissed"}, alert.annotations, AT)):
        words = story(Notification(name, AT + 80, "new alerts", firing=(measured,)))
        assert "\n" not in words.title
        assert "\r" not in words.title
        made = forms.write(words)
        for one in made.values():
            assert not re.search(r"<[!@#](?!-)|@(everyone|here|channel|all)\b", one.heading + one.body, re.IGNORECASE)
        page = Tags(made[Form.HTML].body)
        assert page.open == []
        assert {tag for tag, _ in page.tags} <= {"div", "h2", "p", "b", "br", "table", "tr", "td", "a"}
        assert {key for _, attributes in page.tags for key in attributes} <= {"style", "href"}
        assert all(str(attributes["href"]).startswith("https://x/") for tag, attributes in page.tags if tag == "a")
        marked = re.sub(r"\\[\\`*\[\]<>~#_]", "", made[Form.MARKDOWN].heading + made[Form.MARKDOWN].body)
        assert not re.search(r"[<>`~]", re.sub(r"\]\([^)]*\)", "", marked))
        assert set(re.findall(r"\]\(([^)]*)\)", marked)) <= {forms.safe_url(words.parts[0].links[0][1])
                                                            if words.parts[0].links else ""}  # fmt: skip
        assert len(made[Form.SHORT].body) <= forms.SHORT_LENGTH
        assert "\n" not in made[Form.SHORT].body


def plugin(formats: Any = "text", body: int = 32768, title: int = 250, override: str = "") -> Any:
    """What is looked at of a plugin of Apprise's."""
    of = {name: SimpleNamespace(value=name) for name in ("text", "markdown", "html")}
    declared = tuple(of[name] for name in formats.split()) if " " in formats else of[formats]

    def resolve(asked: str | None) -> Any:
        names = formats.split()
        return of[override if override in names else asked if asked in names else names[0]]

    return SimpleNamespace(body_maxlen=body, title_maxlen=title, notify_format=declared, resolve_format=resolve,
                           overflow_amalgamate_title=False)  # fmt: skip


OFFERED = dict.fromkeys(("text", "short", "markdown", "html"))


@pytest.mark.parametrize(
    ("service", "form"),
    [
        (plugin(body=160, title=0), "short"),
        (plugin("html text"), "html"),
        (plugin("markdown text"), "markdown"),
        (plugin("text markdown"), "markdown"),
        (plugin("html markdown"), "markdown"),
        (plugin("text markdown html"), "text"),
        (plugin("text markdown html", override="html"), "html"),
        (plugin("html text", override="text"), "text"),
        (plugin(), "text"),
    ],
)
def test_a_service_gets_the_form_that_it_shows(service: Any, form: str) -> None:
    """SMS a line, mail HTML, chats Markdown, what passes text on text; the URL's ?format= counts."""
    assert fitting.form_of(service, "", OFFERED) == form
    assert fitting.form_of(service, "short", OFFERED) == "short"
    assert fitting.form_of(service, "html", {"text": None}) == "text"


def test_a_service_without_titles_has_the_heading_in_its_body() -> None:
    """Apprise would put the title there unescaped."""
    made = {"heading": "**a \\<b\\>**", "body": "c"}
    assert fitting.fitted(plugin("markdown", title=0), "markdown", "a <b>", made) == ("", "**a \\<b\\>**\n\nc")
    assert fitting.fitted(plugin("markdown"), "markdown", "[a](b)", made) == ("[a]\u200b(b)", "c")


@given(st.text("ab \n\\*", max_size=300), st.integers(20, 200))
def test_a_long_body_fits(body: str, room: int) -> None:
    """It is never longer than its room, ends with an ellipsis if cut, and never with half an escape."""
    cut = fitting.shortened(body, room)
    assert len(cut) <= room
    assert cut == body or (cut.endswith("…") and not cut.endswith("\\…"))
