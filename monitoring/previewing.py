"""What ``anvil-monitor notify --preview`` shows: an example of each alert, in a channel's form, sent to nobody."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from anvil_monitor.alerts import examples, fitting, hooks, slackbot
from anvil_monitor.alerts.forms import Form
from anvil_monitor.alerts.letters import Letter, Writer
from anvil_monitor.targets import Channel, Configuration, ConfigurationError, Secret

from .asking import wrong

HEAD: Final = '<!doctype html><meta charset="utf-8"><title>Preview of messages</title>'


def preview(
    configuration: Configuration, channel: Channel | None, form: str, out: Path | None, environ: dict[str, str]
) -> int:
    """Print the examples, or write them to ``out``. Raises :class:`ConfigurationError` for a template that is wrong."""
    writer = Writer(configuration, examples.history)
    if writer.problems:
        raise ConfigurationError(writer.problems)
    to = channel or Channel("preview", Secret("env:NONE", "preview"))
    chosen = Form(form or (of_channel(channel, environ) if channel is not None else "text"))
    letters = []
    for example in examples.examples(configuration, time.time()):
        letter = writer.write(to, replace(example.message, channel=to.name))
        letters.append((example.name, letter))
    text = _page(writer, letters) if chosen is Form.HTML else _text(chosen, letters)
    if out is None:
        print(text)
        return 0
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise wrong(f"{out} cannot be written: {error.strerror}") from None
    print(f"wrote {len(letters)} examples as {chosen} to {out}")
    return 0


def of_channel(channel: Channel, environ: dict[str, str]) -> str:
    """The form that ``channel`` gets: its own, or what its service can show."""
    if channel.format:
        return channel.format
    try:
        url = channel.url.reveal(environ)
    except LookupError as error:
        raise wrong(f"channel {channel.name!r}: {error}", "set it, or say --form") from None
    if hooks.is_hook(url):
        return Form.TEXT
    if slackbot.is_bot(url):
        return Form.MARKDOWN  # nearly
    import apprise

    plugin = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if plugin is None:
        raise wrong(f"channel {channel.name!r}: its URL is none that Apprise understands", "mend it, or say --form")
    return fitting.form_of(plugin, "", dict.fromkeys(Form))


def _text(form: Form, letters: list[tuple[str, Letter]]) -> str:
    blocks = []
    for name, letter in letters:
        title = [] if form is Form.SHORT else [letter.title]
        blocks.append("\n".join([f"--- {name}", *title, letter.forms[form].body]))
    return "\n\n".join(blocks)


def _page(writer: Writer, letters: list[tuple[str, Letter]]) -> str:
    blocks = []
    for name, letter in letters:
        picture = writer.picture(letter)
        source = f'<p><img alt="the last hour" src="data:image/png;base64,{base64.b64encode(picture).decode()}"></p>'
        body = letter.forms[Form.HTML].body.replace(fitting.PLOT_MARK, source if picture else "")
        blocks.append(f"<hr><p><small>{name}</small></p>\n{body}")
    return "\n".join([HEAD, *blocks])
