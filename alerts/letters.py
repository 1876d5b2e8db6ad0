"""From a message of the outbox to what is sent: all its forms, the user's templates, the picture of the last hour."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from anvil_monitor.targets import Channel, Configuration, Problem

from . import messages, plotting, templateparser, wording
from .forms import Form, Written, as_it_is, values, write
from .model import Alert, Message, Notification
from .templates import Template, TemplateError

logger = logging.getLogger(__name__)

# The values of an alert's target from one time to another, seconds since the epoch; empty where there are none.
History: TypeAlias = Callable[[Alert, float, float], Sequence[tuple[float, float]]]

HOUR: Final = 3600.0
VARIABLES: Final = tuple(
    f"${name}" for name in ("title", "kind", "service", "short", "more", "links", "plot", "alerts")
)
SUFFIX: Final = ".tmpl"  # of the files in [monitor] templates: text.tmpl, short.tmpl, markdown.tmpl, html.tmpl
LARGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Letter:
    """What a sender gets. ``chosen``: the form that the channel is to have; empty: the service's own.

    ``message``, ``told`` and ``words`` are what the forms were made of; the last two are ``None`` for a text without
    its notification.
    """

    message: Message
    forms: Mapping[Form, Written]
    chosen: str = ""
    told: Notification | None = None
    words: messages.Story | None = None
    picture: bytes = field(default=b"", repr=False)

    @property
    def title(self) -> str:
        return self.message.title

    @property
    def kind(self) -> str:
        return self.message.kind


# What a template is tried with when it is loaded.
SAMPLE: Final = Notification(
    "app", HOUR, "new alerts", links=(("Acknowledge", "https://example.com/"),), more=1,
    firing=(Alert({"alertname": "TargetMissed", "service": "app", "target": "memory"},
                  {"title": "Server memory", "value": "6e8", "limit": "5e8", "measure": "mean over 1 min",
                   "unit": "bytes", "routes": "GET /", "dashboard": "https://example.com/"}, 0.0),),
)  # fmt: skip


class Writer:
    """Writes letters. Templates that cannot be used are in :attr:`problems`, and ours stand in for them."""

    def __init__(self, configuration: Configuration, history: History | None = None) -> None:
        self._history = history
        self.problems: list[Problem] = []
        folder = configuration.monitor.templates
        everywhere = {}
        if folder is not None and not folder.is_dir():
            self.problems.append(Problem(f"[monitor] templates = {str(folder)!r} is no folder", todo="make it"))
        elif folder is not None:
            files = {form: folder / f"{form}{SUFFIX}" for form in Form}
            everywhere = {form: path for form, path in files.items() if path.exists()}
            if not everywhere:
                names = ", ".join(path.name for path in files.values())
                todo = f"name them {names}, or take templates out"
                self.problems.append(Problem(f"{folder} holds none of the files that are looked for", todo=todo))
        shared = {form: template for form, path in everywhere.items() if (template := self._load(path, form))}
        self._shared = shared
        self._templates: dict[str, dict[Form, Template]] = {}
        for channel in configuration.channels:
            self._templates[channel.name] = dict(shared)
            if channel.template is not None and channel.format:
                form = Form(channel.format)
                if own := self._load(channel.template, form):
                    self._templates[channel.name][form] = own

    def _load(self, path: Path, form: Form) -> Template | None:
        try:
            text = path.read_text(encoding="utf-8")
            if len(text) > LARGEST:
                raise ValueError(f"it is longer than {LARGEST} characters")
            template = Template(templateparser.parse(text, VARIABLES))
            filled(template, messages.story(SAMPLE), form)
            return template
        except OSError as error:
            self.problems.append(Problem(f"the template cannot be read: {error.strerror}", path))
        except TemplateError as error:
            what = str(error).partition("; allowed: $value")[0]
            self.problems.append(
                Problem(f"the template is wrong: {what}", path, todo=f"there are {', '.join(VARIABLES)}")
            )
        except ValueError as error:
            self.problems.append(Problem(f"the template cannot be used: {error}", path))
        return None

    def write(self, channel: Channel, message: Message) -> Letter:
        """The letter, without its picture."""
        try:
            told = Notification.from_json(message.payload) if message.payload else None
            words = messages.story(told) if told else None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            logger.error(
                "message %d is sent as plain text: its payload is damaged (%s)", message.id, type(error).__name__
            )
            told = words = None
        if words is None:
            return Letter(message, as_it_is(message.title, message.body), channel.format)
        # The title may have been marked since, as that of a drill is.
        words = replace(words, title=wording.plain(message.title, wording.TITLE_LENGTH))
        forms = write(words)
        for form, template in self._templates.get(channel.name, self._shared).items():
            try:
                forms[form] = Written(forms[form].heading, filled(template, words, form))
            except ValueError as error:
                logger.error("channel %s: its template for %s fails, ours is sent: %s", channel.name, form, error)
        return Letter(message, forms, channel.format, told, words)

    def draws(self, letter: Letter) -> bool:
        """Whether there may be a picture for it."""
        return self._history is not None and letter.chosen not in (Form.TEXT, Form.SHORT) and bool(_measuring(letter))

    def picture(self, letter: Letter) -> bytes:
        """A PNG of the hour before the message, or nothing. Asks the history: not for the event loop."""
        found = _measuring(letter)
        if self._history is None or found is None or letter.told is None:
            return b""
        return picture(found, self._history, letter.told.at)


def filled(template: Template, words: messages.Story, form: Form) -> str:
    """Raises ``ValueError`` for what goes wrong while it is filled in."""
    return template.fill({f"${name}": value for name, value in values(words, form).items()}).strip()


def _measuring(letter: Letter) -> Alert | None:
    """The first alert that is about a target: its values are what there is to be drawn."""
    told = letter.told
    alerts = (*told.firing, *told.still, *told.resolved) if told is not None and not told.acknowledged else ()
    return next((alert for alert in alerts if "target" in alert.labels), None)


def picture(alert: Alert, history: History, at: float) -> bytes:
    """A PNG of what the target of ``alert`` measured in the hour before ``at``, with its limit."""
    try:
        limit = float(alert.annotations.get("limit", ""))
    except ValueError:
        limit = math.nan
    points = history(alert, at - HOUR, at)
    return plotting.plot(points, at - HOUR, at, limit, lambda value: wording.in_unit(value, alert))
