"""What was said: messages, a conversation, the context window, and its export. Knows nothing of the model or the page.

A `Message` is a value without identity; ids and owners belong to whoever stores it.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sentences import Language, say

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "cancelled", "blocked", "error"]
SCHEMA = "remanso.conversation/1"
PAGE_MESSAGES = 400  # the newest that are taken over from a page
ROOM_KEPT = 0.75  # share of the window that is left filled when turns are dropped, so that not every turn drops some


@dataclass(frozen=True)
class Message:
    """One message: who spoke, the words, when (UTC), how a reply ended, and what code put in front of it.

    `aside` is shown above the words (a help card, a notice, an error) and never read by the model.
    """

    role: Role
    text: str
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    finish: Finish | None = None
    aside: str = ""

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
        model. The person's words are theirs in any case. Other roles are dropped.
        """
        said: dict[tuple[str, str], Message] = {(m.role, _squeezed(m.shown)): m for m in self.messages}
        kept: list[Message] = []
        for role, text in shown[-PAGE_MESSAGES:]:
            if known := said.get((role, _squeezed(text))):
                kept.append(known)
            elif role == "user":
                kept.append(Message("user", text))
            elif role == "assistant":
                kept.append(Message("assistant", "", aside=text))
        self.messages = kept
        self.dropped = min(self.dropped, len(kept))

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
    rows = [{**asdict(message), "time": message.time.isoformat()} for message in conversation.messages]
    return json.dumps({"schema": SCHEMA, "messages": rows}, ensure_ascii=False, indent=2)


def from_json(text: str) -> Conversation:
    """Reads what `to_json` wrote.

    Raises:
        ValueError: not JSON, another schema, or a message that misses something.
    """
    data: Any = json.loads(text)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"not a conversation of the schema {SCHEMA}")
    try:
        return Conversation([_message(row) for row in data["messages"]])
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError("a message of this conversation cannot be read") from problem


def _squeezed(text: str) -> str:
    """Returns the text as it compares: Gradio strips and dedents what it shows."""
    return " ".join(text.split())


def _message(row: dict[str, Any]) -> Message:
    if row["role"] not in ("user", "assistant"):
        raise ValueError("a conversation holds messages of user and assistant alone")
    return Message(
        row["role"], str(row["text"]), datetime.fromisoformat(row["time"]), row.get("finish"), str(row.get("aside", ""))
    )


def to_markdown(conversation: Conversation, language: Language) -> str:
    """Returns the conversation as Markdown, to read or to take to a professional; times in UTC."""
    parts = [f"# {say(language, 'export.title')}", say(language, "export.note")]
    for message in conversation.messages:
        who = say(language, f"export.{message.role}")
        mark = f" · {say(language, 'export.cut')}" if message.finish in ("cancelled", "length", "error") else ""
        parts.append(f"**{who}** · {message.time:%Y-%m-%d %H:%M} UTC{mark}\n\n{message.shown}")
    return "\n\n".join(parts) + "\n"
