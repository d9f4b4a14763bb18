"""Messages as they are said, and rows as they lie: sealed on the way in, opened on the way out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from history.cipher import Cipher
from history.conversation import Conversation, Message, from_row, to_row
from history.documents import Document, Row
from history.transfer import Parcel, Rating

TITLE_FROM = 60  # characters of the first message that stand for a title


@dataclass(frozen=True)
class Summary:
    """A kept conversation in a list; `excerpt` is where the words of a search stand."""

    id: str
    title: str
    created: datetime
    updated: datetime
    messages: int
    excerpt: str = ""


class Sealer:
    """What a cipher makes of messages, and of documents; opening raises `RemansoError` (`history_locked`)."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def text(self, words: str) -> str:
        """Returns words as they are to lie."""
        return self._cipher.seal(words.encode("utf-8", "replace").decode())

    def row(self, message: Message) -> Row:
        """Returns a message as it is to lie."""
        row = to_row(message)
        return {**row, "text": self.text(row["text"]), "aside": self.text(row["aside"])}

    def messages(self, document: Document) -> list[Message]:
        """Returns the messages of a document as they were said."""
        return [self._message(row) for row in document.messages]

    def _message(self, row: Row) -> Message:
        return from_row({**row, "text": self._cipher.open(row["text"]), "aside": self._cipher.open(row["aside"])})

    def parcel(self, document: Document) -> Parcel:
        """Returns a document as it travels."""
        ratings = {one["message"]: Rating(one["up"], self._cipher.open(one["word"])) for one in document.ratings}
        return Parcel(Conversation(self.messages(document)), self._cipher.open(document.title), ratings)

    def summary(self, document: Document) -> Summary:
        """Returns what stands of a document in a list; without a title, the person's first words."""
        title = self._cipher.open(document.title)
        if not title and (said := next((row for row in document.messages if row["role"] == "user"), None)):
            title = first_words([self._message(said)])
        created, updated = (datetime.fromisoformat(text) for text in (document.created, document.updated))
        return Summary(document.id, title, created, updated, len(document.messages))


def first_words(messages: Sequence[Message]) -> str:
    """Returns how the person began, in place of a title."""
    words = next((" ".join(message.text.split()) for message in messages if message.role == "user"), "")
    return words if len(words) <= TITLE_FROM else words[:TITLE_FROM].rsplit(" ", 1)[0] + "…"


def digest(message: Message) -> bytes:
    """Returns what tells that a message has changed, without holding its words in memory."""
    said = "\0".join((message.role, message.text, message.aside, message.finish or ""))
    return hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=16).digest()
