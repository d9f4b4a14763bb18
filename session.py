"""What the server knows of one visit: the conversation, and what outlives a new one. Knows nothing of models."""

import secrets
import time
from collections import deque
from dataclasses import dataclass, field

import safety
from history import Conversation
from sentences import Language


@dataclass
class Session:
    """What the server knows of one visit: the conversation, and what must outlive a new conversation."""

    conversation: Conversation = field(default_factory=Conversation)
    language: Language | None = None
    country: str = ""
    spoken: Language | None = None  # the language that the person writes in, which need not be the page's
    level: safety.Level = "none"
    carried: safety.Level = "none"  # the level that earlier conversations of this session ended with
    helped: safety.Level = "none"  # the most urgent help shown so far; the same is not shown whole again
    noticed: float = field(default_factory=time.monotonic)  # when it was last said that this is an AI
    told_minor: bool = False  # that the chat is meant for adults, after something that a minor would say
    busy: bool = False
    sent: deque[float] = field(default_factory=deque)
    key: str = field(default_factory=lambda: secrets.token_hex(16))  # of the KV cache of this conversation

    def __deepcopy__(self, _memo: object) -> "Session":
        """Makes a new one: Gradio copies the first value of a state for each visit, and no two may share a key."""
        return Session()

    def take_over(self, other: "Session") -> None:
        """Goes on with another session's conversation, which keeps its own copy."""
        self.conversation = Conversation(list(other.conversation.messages), other.conversation.dropped)
        self.level, self.carried, self.helped = other.level, other.carried, other.helped
        self.spoken, self.country = other.spoken, other.country or self.country
        self.noticed, self.told_minor = other.noticed, other.told_minor

    def begin(self) -> None:
        """Starts a new conversation; what was seen of danger stays."""
        self.conversation = Conversation()
        self.carried = self.level
        self.key = secrets.token_hex(16)
