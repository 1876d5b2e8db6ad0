"""Slack with a bot's token: one problem, one message. What a group of alerts comes to is written into the message that
began it; what is news is a reply to it, so that somebody hears it.

The URL is ``slackbot://xoxb-TOKEN@CHANNEL_ID``; the bot needs ``chat:write``. https://docs.slack.dev/reference/methods
"""

from __future__ import annotations

import html
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from anvil_monitor.targets import Channel

from . import forms
from .letters import Letter
from .messages import Part, Story, story
from .outbox import Outbox, OutboxError
from .outcomes import Outcome, describe
from .posting import Poster

logger = logging.getLogger(__name__)

PREFIX: Final = "slackbot://"
URL: Final = re.compile(r"slackbot://(?P<token>xox[a-z]-[A-Za-z0-9-]{10,200})@(?P<channel>[A-Z0-9]{5,30})/?")
API: Final = "https://slack.com/api"
LARGEST: Final = 64 * 1024
# Of Slack's errors: those that pass, and those that say that there is nothing to be updated any more.
PASSING: Final = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout",
     "message_limit_exceeded", "team_added_to_org"}
)  # fmt: skip
GONE: Final = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"})


class Threads(Protocol):
    """Remembers, by channel and topic, the message that an open group is told in."""

    def get(self, channel: str, topic: str) -> str: ...

    def put(self, channel: str, topic: str, reference: str) -> None:
        """Empty: the group is over."""


class KeptThreads:
    """Kept in the outbox, over restarts."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def get(self, channel: str, topic: str) -> str:
        found = self._outbox.rows("SELECT reference FROM threads WHERE channel = ? AND topic = ?", channel, topic)
        return str(found[0]["reference"]) if found else ""

    def put(self, channel: str, topic: str, reference: str) -> None:
        try:
            if reference:
                self._outbox.execute("INSERT OR REPLACE INTO threads VALUES (?, ?, ?)", channel, topic, reference)
            else:
                self._outbox.execute("DELETE FROM threads WHERE channel = ? AND topic = ?", channel, topic)
        except OutboxError as error:  # it was sent: to send it again would be worse than a message of its own next time
            logger.error("channel %s: its next message will not be an update: %s", channel, error)


class NoThreads:
    """Remembers nothing: for a test message."""

    def get(self, channel: str, topic: str) -> str:
        return ""

    def put(self, channel: str, topic: str, reference: str) -> None: ...


class SlackError(Exception):
    """Slack said no. ``outcome`` is what that means; ``code`` is Slack's word for it, or empty."""

    def __init__(self, outcome: Outcome, code: str = "") -> None:
        super().__init__(outcome.reason)
        self.outcome, self.code = outcome, code


def is_bot(url: str) -> bool:
    return url.startswith(PREFIX)


def refused(url: str) -> str:
    """Why ``url`` is none of a bot, without a word of it; empty where it is one."""
    return "" if URL.fullmatch(url) else "is no Slack bot: write slackbot://xoxb-TOKEN@CHANNEL_ID"


class SlackSender:
    """Posts, updates and replies."""

    def __init__(
        self, poster: Poster, threads: Threads, clock: Callable[[], float] = time.time, api: str = API
    ) -> None:
        self._poster, self._threads, self._clock, self._api = poster, threads, clock, api

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        """Send one message. Cancelled in between, it has at most updated what it will update again."""
        import httpx

        match = URL.fullmatch(url)
        if match is None:
            return Outcome(False, False, f"its URL {refused(url)}")
        topic = letter.message.topic
        try:
            open_ = self._threads.get(channel.name, topic)
            if open_ and not await self._updated(match, open_, letter):
                open_ = ""
            if not open_:
                open_ = await self._call(match, "chat.postMessage", text=text(letter))
            self._threads.put(channel.name, topic, "" if letter.kind == "success" or letter.told is None else open_)
        except SlackError as error:
            return error.outcome
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Outcome(False, True, describe(error))
        return Outcome(True)

    async def _updated(self, match: re.Match[str], open_: str, letter: Letter) -> bool:
        """Write the letter into the open message and reply to it; ``False`` where that message is gone."""
        told = letter.told
        try:
            await self._call(match, "chat.update", ts=open_, text=text(letter, whole=True))
            # That it still goes on is no news.
            if told is not None and (told.firing or told.resolved or told.acknowledged):
                await self._call(
                    match,
                    "chat.postMessage",
                    thread_ts=open_,
                    reply_broadcast=bool(told.firing),
                    text=escaped(forms.short(letter.words) if letter.words else letter.title),
                )
        except SlackError as error:
            if error.code in GONE:
                return False
            raise
        return True

    async def _call(self, match: re.Match[str], method: str, **arguments: Any) -> str:
        """Call a method; the ``ts`` of the message. Raises :class:`SlackError`."""
        body = json.dumps({"channel": match["channel"], "unfurl_links": False, **arguments}).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "Authorization": f"Bearer {match['token']}"}
        answer = await self._poster.post(f"{self._api}/{method}", body, headers, LARGEST)
        outcome = answer.outcome(self._clock())
        if not outcome.delivered:
            raise SlackError(outcome)
        try:
            content = json.loads(answer.body)
            good, code, ts = content["ok"] is True, str(content.get("error", "")), str(content.get("ts", ""))
        except (ValueError, TypeError, KeyError):
            raise SlackError(Outcome(False, True, "Slack's answer cannot be read")) from None
        if good:
            return ts
        word = code if re.fullmatch(r"[a-z_]{1,60}", code) else "no"
        raise SlackError(Outcome(False, word in PASSING, f"Slack says {word}"), word)


def text(letter: Letter, whole: bool = False) -> str:
    """The message in Slack's own markup. ``whole``: what is open, also where it only tells who looks after it."""
    words = letter.words
    if whole and words is not None and letter.told is not None and letter.told.acknowledged:
        words = replace(story(replace(letter.told, news=())), title=words.title)
    if words is None:
        return f"*{escaped(letter.title)}*\n{escaped(letter.message.body)}"
    return mrkdwn(words)


def mrkdwn(words: Story) -> str:
    """https://docs.slack.dev/messaging/formatting-message-text: three characters are escaped, the rest is harmless."""
    paragraphs = [f"*{escaped(words.title)}*", *map(_part, words.parts)]
    if words.more:
        paragraphs.append(f"… and {words.more} more")
    if words.links:
        paragraphs.append(_links(words.links))
    return "\n\n".join(paragraphs)


def _part(part: Part) -> str:
    lines = [part.headline, *part.sentences, *(f"{name}: {value}" for name, value in part.details)]
    shown = [escaped(line) for line in lines]
    return "\n".join([*shown, _links(part.links)] if part.links else shown)


def _links(links: tuple[tuple[str, str], ...]) -> str:
    return " · ".join(
        f"<{forms.safe_url(url)}|{escaped(name)}>" if forms.is_address(url) else f"{escaped(name)}: {escaped(url)}"
        for name, url in links
    )


def escaped(words: str) -> str:
    return html.escape(words, quote=False)
