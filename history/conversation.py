"""What was said: messages, a conversation, the context window, and its export. Knows nothing of the model or the page.

A message has an id, so that a store can tell it from one with the same words, and holds it once. Two messages are
equal when what was said is; owners, titles and consent belong to whoever stores a conversation.
"""

import json
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from uuid import uuid4

from sentences import Language, say

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "cancelled", "blocked", "error"]
SCHEMA = "remanso.conversation/1"
ID = re.compile(r"[0-9a-f]{32}")  # of messages and of conversations: 122 random bits
PAGE_MESSAGES = 400  # the newest that are taken over from a page
HARMS = (
    (re.compile(r"<(?=[a-zA-Z/!?])"), r"\\<"),  # HTML, and addresses in angle brackets
    (re.compile(r"!\["), r"!\\["),  # a picture is loaded from where it lies, which tells that it was opened
    (re.compile(r"\]\((?!\s*(?:https?://|mailto:|tel:))"), r"]\\("),
    (re.compile(r"^([ \t]{0,3})\[(?=[^\]\n]*\]:)", re.MULTILINE), r"\1\\["),  # a link that is defined further down
    (re.compile(r"^([ \t]*)(?=[=+@]|-[^\s-])", re.MULTILINE), r"\1\\"),  # what a spreadsheet would compute
)
ROOM_KEPT = 0.75  # share of the window that is left filled when turns are dropped, so that not every turn drops some


@dataclass(frozen=True)
class Message:
    """One message: who spoke, the words, when (UTC), how a reply ended, and what code put in front of it.

    `aside` is shown above the words (a help card, a notice, an error) and never read by the model. `id` is 32
    hexadecimal digits, and no part of what makes two messages equal.
    """

    role: Role
    text: str
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    finish: Finish | None = None
    aside: str = ""
    id: str = field(default_factory=lambda: uuid4().hex, compare=False)

    @property
    def shown(self) -> str:
        """What the page and the API show of it."""
        return "\n\n".join(part for part in (self.aside, self.text) if part)


@dataclass
class Conversation:
    """Messages oldest first, and how many of the oldest the model no longer reads."""

    messages: list[Message] = field(default_factory=list)
    dropped: int = 0

    def said(self, role: Role) -> list[str]:
        """Returns everything that one side said, oldest first."""
        return [message.text for message in self.messages if message.role == role]

    def keep(self, shown: Sequence[tuple[str, str]]) -> None:
        """Brings the conversation in step with the page, where undo, retry and edit change what is there.

        What the page sends comes from outside. A reply counts as ours only if this conversation holds it; any other
        text in the assistant's place (forged, or said before a restart) stays visible but is never read by the
        model. The person's words are theirs in any case. Other roles are dropped. Of what is not known, only the
        newest is taken over. Of a reply that was stopped, the page may miss the last words; it is ours all the same.
        """
        known, kept, first = _by_words(self.messages), list[Message](), len(shown) - PAGE_MESSAGES
        for place, (role, text) in enumerate(shown):
            if same := known.get((role, _squeezed(text))):
                kept.append(same.popleft())  # each once: who says the same twice has said two messages
            elif role == "user" and place >= first:
                kept.append(Message("user", text))
            elif role == "assistant" and (late := self._stopped(len(kept), text)) and late not in kept:
                kept.append(late)
            elif role == "assistant" and place >= first:
                kept.append(Message("assistant", "", aside=text))
        self.messages = kept
        self.dropped = min(self.dropped, len(kept))

    def _stopped(self, place: int, begun: str) -> Message | None:
        """Returns the message at this place if it is a stopped reply that begins with these words."""
        here = self.messages[place] if place < len(self.messages) else None
        if here and here.finish == "cancelled" and _squeezed(here.shown).startswith(_squeezed(begun)):
            return here
        return None

    def recall(self, stored: Sequence[Message]) -> None:
        """Puts stored messages in the place of those that show the same: after a restart, replies are ours again."""
        known = _by_words(stored)
        for place, message in enumerate(self.messages):
            if same := known.get((message.role, _squeezed(message.shown))):
                self.messages[place] = same.popleft()

    def context(self) -> list[Message]:
        """Returns what the model may read: no empty replies, and neighbours of one role joined."""
        turns: list[Message] = []
        for message in self.messages[self.dropped :]:
            if not message.text:
                continue
            if turns and turns[-1].role == message.role:
                turns[-1] = replace(message, text=f"{turns[-1].text}\n\n{message.text}")
            else:
                turns.append(message)
        return turns


def fit(conversation: Conversation, system: Message, budget: int, count: Callable[[Sequence[Message]], int]) -> bool:
    """Drops the oldest whole turns until the prompt has room; the system prompt and the last message stay.

    Args:
        budget: tokens that the prompt may have.
        count: tokens of a list of messages.

    Returns:
        Whether turns were dropped for the first time, which is told to the person once.
    """
    if count([system, *conversation.context()]) <= budget:
        return False
    before, room = conversation.dropped, int(budget * ROOM_KEPT)
    starts = [i for i, m in enumerate(conversation.messages) if m.role == "user" and i > before]

    def fits(start: int) -> bool:
        conversation.dropped = start
        return count([system, *conversation.context()]) <= room

    if starts:
        conversation.dropped = starts[min(bisect_left(starts, True, key=fits), len(starts) - 1)]
    return before == 0 and conversation.dropped > 0


def to_json(conversation: Conversation) -> str:
    """Returns the conversation as JSON of the schema `remanso.conversation/1`; times in ISO 8601, UTC."""
    rows = [to_row(message) for message in conversation.messages]
    return json.dumps({"schema": SCHEMA, "messages": rows}, ensure_ascii=False, indent=2)


def to_row(message: Message) -> dict[str, Any]:
    """Returns one message as the schema has it."""
    return {**asdict(message), "time": message.time.isoformat()}


def from_json(text: str) -> Conversation:
    """Reads what `to_json` wrote.

    Raises:
        ValueError: not JSON, another schema, or a message that misses something.
    """
    data: Any = json.loads(text)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"not a conversation of the schema {SCHEMA}")
    try:
        return Conversation([from_row(row) for row in data["messages"]])
    except (KeyError, TypeError, AttributeError, OverflowError) as problem:
        raise ValueError("a message of this conversation cannot be read") from problem


def _by_words(messages: Sequence[Message]) -> dict[tuple[str, str], deque[Message]]:
    """Returns messages by who said them and what they show, the oldest of the same first."""
    found: dict[tuple[str, str], deque[Message]] = {}
    for message in messages:
        found.setdefault((message.role, _squeezed(message.shown)), deque()).append(message)
    return found


def _squeezed(text: str) -> str:
    """Returns the text as it compares: Gradio strips and dedents what it shows."""
    return " ".join(text.split())


def from_row(row: dict[str, Any]) -> Message:
    """Reads what `to_row` wrote; a row without a usable id, as older exports have, gets a new one.

    Raises:
        ValueError, KeyError, TypeError, OverflowError: it is no message of a person or of the assistant.
    """
    if row["role"] not in ("user", "assistant"):
        raise ValueError("a conversation holds messages of user and assistant alone")
    finish, time = row.get("finish"), datetime.fromisoformat(row["time"])
    if finish not in (None, "", *get_args(Finish)):
        raise ValueError("a reply cannot end like this")
    known = str(row.get("id", ""))
    return Message(
        row["role"],
        str(row["text"]),
        time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC),
        finish or None,
        str(row.get("aside", "")),
        known if ID.fullmatch(known) else uuid4().hex,
    )


def to_markdown(conversation: Conversation, language: Language, title: str = "") -> str:
    """Returns the conversation as Markdown, to read or to take to a professional; times in UTC.

    What was said can run or load nothing in a reader of Markdown, and is no formula in a spreadsheet.
    """
    heading = " ".join(harmless(title).split()) or say(language, "export.title")
    parts = [f"# {heading}", say(language, "export.note")]
    for message in conversation.messages:
        who = say(language, f"export.{message.role}")
        mark = f" · {say(language, 'export.cut')}" if message.finish in ("cancelled", "length", "error") else ""
        parts.append(f"**{who}** · {message.time:%Y-%m-%d %H:%M} UTC{mark}\n\n{harmless(message.shown)}")
    return "\n\n".join(parts) + "\n"


def harmless(text: str) -> str:
    """Returns Markdown in which HTML, images, links to programs and formulas are plain text (CommonMark's escapes)."""
    for pattern, put in HARMS:
        text = pattern.sub(put, text)
    return text
