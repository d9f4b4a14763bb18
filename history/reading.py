"""Reads what a person keeps: what the store holds, with what only the journal holds so far applied to it.

Knows nothing of keys: texts stay sealed here.
"""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from errors import RemansoError
from history.conversation import ID
from history.documents import PERSON, Document, Holding
from history.mover import held
from history.stores import AwayError, ConflictError, Store

if TYPE_CHECKING:
    from history.journal import Journal

WAIT_SECONDS = 20.0  # for a store that a person asked something of

log = logging.getLogger("remanso.history")
T = TypeVar("T")


class Reader:
    """What lies in a store, for those who ask."""

    def __init__(self, store: Store, journal: "Journal") -> None:
        self._store, self._journal = store, journal

    def holding(self, owner: str, ids: set[str] | None = None) -> Holding:
        """Returns what is kept of a person, or some of it; what was deleted is None.

        Raises:
            AwayError: the store does not answer, or what lies there is spoilt.
        """
        waiting = self._journal.pending(owner)  # before the store is read: nothing can fall between the two
        try:
            holding = held(self._store.load(owner, None if ids is None else {PERSON, *ids}))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AwayError("a document cannot be read") from None
        holding.apply(one for one in waiting if ids is None or one.kind == "delete" or one.conversation in {"", *ids})
        for id in holding.documents:
            if holding.person is None or id in holding.person.deleted:
                holding.documents[id] = None
        return holding

    def documents(self, owner: str) -> list[Document]:
        """Returns a person's conversations, the last changed first.

        Raises:
            RemansoError: `history_away`.
        """
        found = [document for document in asking(lambda: self.holding(owner)).documents.values() if document]
        return sorted(found, key=lambda document: document.updated, reverse=True)

    def document(self, owner: str, conversation: str) -> Document:
        """Returns one conversation.

        Raises:
            RemansoError: `history_missing`, `history_away`.
        """
        if not ID.fullmatch(conversation):
            raise RemansoError("history_missing")
        document = asking(lambda: self.holding(owner, {conversation})).documents.get(conversation)
        if document is None:
            raise RemansoError("history_missing")
        return document


def asking(ask: Callable[[], T]) -> T:
    """Returns what the store says to a person's question.

    Raises:
        RemansoError: `history_away`.
    """
    if (answer := patiently(ask)) is None:
        raise RemansoError("history_away")
    return answer


def patiently(ask: Callable[[], T], seconds: float | None = None) -> T | None:
    """Returns what the store says, or None where it does not answer in time."""
    answers: list[T] = []

    def work() -> None:
        try:
            answers.append(ask())
        except (AwayError, ConflictError) as problem:
            log.warning("the history's store is away: %s", problem)

    thread = threading.Thread(target=work, name="history-read", daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS if seconds is None else seconds)
    return answers[0] if answers else None
