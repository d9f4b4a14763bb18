"""What the server knows of one visit: the conversation, and what outlives a new one. Knows nothing of models."""

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

import safety
from history import Conversation, Message
from sentences import Language


@dataclass
class Shelf:
    """Where a visit's conversations are kept: under whose key, under which id, and what is on its way there.

    Attributes:
        owner: whose they are; empty where nobody has said.
        held: ids of the messages that this visit has ever held of the conversation.
        waiting: the newest state of each conversation that is not recorded yet: owner, messages, `held`.
        state: what became of the last: nothing was kept, it is on its way to the store, it waits for a store that is
            away, or the disk is full.
    """

    owner: str = ""
    conversation: str = field(default_factory=lambda: uuid4().hex)
    held: set[str] = field(default_factory=set)
    waiting: dict[str, tuple[str, list[Message], set[str]]] = field(default_factory=dict)
    state: Literal["", "kept", "away", "full"] = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, conversation: str = "") -> None:
        """Turns to another conversation, or to a new one."""
        self.conversation, self.held, self.state = conversation or uuid4().hex, set(), ""


@dataclass
class Session:
    """What the server knows of one visit: the conversation, and what must outlive a new conversation."""

    conversation: Conversation = field(default_factory=Conversation)
    language: Language | None = None
    country: str = ""
    spoken: Language | None = None  # the language that the person writes in, which need not be the page's
    level: safety.Level = "none"
    carried: safety.Level = "none"  # the level that earlier conversations of this session ended with
    helped: safety.Level = "none"  # the most urgent help shown so far
    cards: set[str] = field(default_factory=set)  # the whole cards shown so far, by variant; none is shown whole twice
    noticed: float = field(default_factory=time.monotonic)  # when it was last said that this is an AI
    told_minor: bool = False  # that the chat is meant for adults, after something that a minor would say
    busy: bool = False
    answered: bool = False  # whether the model was asked in this conversation: what is asked again gets a new reply
    untouched: bool = False  # since a new conversation, the page has not asked for a reply
    sent: deque[float] = field(default_factory=deque)
    key: str = field(default_factory=lambda: secrets.token_hex(16))  # of the KV cache of this conversation

    def __post_init__(self) -> None:
        self.shelf: Shelf = Shelf()  # no field: Gradio writes a state's fields into the page's configuration

    def __deepcopy__(self, _memo: object) -> "Session":
        """Makes a new one: Gradio copies the first value of a state for each visit, and no two may share a key."""
        return Session()

    def take_over(self, other: "Session") -> None:
        """Goes on with another session's conversation, which keeps its own copy."""
        self.conversation = Conversation(list(other.conversation.messages), other.conversation.dropped)
        self.level, self.carried, self.helped = other.level, other.carried, other.helped
        self.cards = set(other.cards)
        self.spoken, self.country = other.spoken, other.country or self.country
        self.noticed, self.told_minor = other.noticed, other.told_minor
        self.shelf.begin(other.shelf.conversation)
        self.shelf.owner, self.shelf.held, self.shelf.state = (
            other.shelf.owner,
            set(other.shelf.held),
            other.shelf.state,
        )

    def begin(self) -> None:
        """Starts a new conversation; what was seen of danger stays."""
        self.conversation = Conversation()
        self.untouched, self.answered = True, False
        self.carried = self.level
        self.key = secrets.token_hex(16)
        self.shelf.begin()

    def touch(self, shown: list[tuple[str, str]]) -> None:
        """Takes from the page which messages are still there, as role and text of each, before a reply to them."""
        self.untouched = False
        self.conversation.keep(shown)

    @property
    def is_new(self) -> bool:
        """Whether the bubbles of the conversation before may still be on the page, and no others."""
        return self.untouched and not self.conversation.messages
