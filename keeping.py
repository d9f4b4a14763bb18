"""What a visit does with what is kept: whose it is, recording as it goes, finding again, taking along, deleting.

The same for the page and for the endpoints. Recording happens in threads of its own: nobody waits for a disk or a
network to read a reply. Every other method may wait for the store, and belongs into a thread. Knows nothing of layout;
what is kept where, and how, is `history.Archive`'s.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Literal

from chat import Chat
from errors import RemansoError
from history import Archive, Conversation, Rating, Receipt, Summary
from sentences import Language
from session import Session, Shelf
from speaker import Update

Form = Literal["md", "json"]
RECORDERS = 8  # threads; each may wait a moment for a consent that is not known yet

log = logging.getLogger("remanso.keeping")


class Keeping:
    """What sessions may do with one archive."""

    def __init__(self, chat: Chat, archive: Archive) -> None:
        self._chat, self._archive = chat, archive
        self._pool = ThreadPoolExecutor(RECORDERS, thread_name_prefix="keeping")

    @property
    def on(self) -> bool:
        """Whether this service keeps anything at all."""
        return self._archive.enabled

    @property
    def away(self) -> bool:
        """Whether the store does not answer at the moment."""
        return bool(self._archive.away)

    def owner(self, key: str, login: str = "") -> str:
        """Returns whose conversations a login or else a key opens, or nothing where there is neither.

        Raises:
            RemansoError: `history_key`.
        """
        if not self.on or not (key or login):
            return ""
        return self._archive.owner(key or None, login or None)

    def new_key(self) -> str:
        """Returns a new key, for a caller who has no browser to make one."""
        return self._archive.new_secret()

    # As it goes

    def note(self, session: Session) -> None:
        """Has the conversation recorded as it now stands, in the background. Never waits, never raises."""
        if self._set_aside(session):
            self._pool.submit(self.record, session)

    async def along(self, session: Session, updates: AsyncGenerator[Update, None]) -> AsyncGenerator[Update, None]:
        """Passes a turn's updates on, and has the conversation recorded when it begins and however it ends."""
        noted = False
        try:
            async with aclosing(updates):
                async for update in updates:
                    if not noted:
                        noted = True
                        self.note(session)  # what a person says is kept before it is answered
                    yield update
        finally:
            self.note(session)

    def record(self, session: Session) -> None:
        """Records what waits, in this thread; whoever reads afterwards finds it."""
        shelf = session.shelf
        with shelf.lock:
            while shelf.waiting:
                conversation, (owner, messages, held) = shelf.waiting.popitem()
                shelf.state = self._recorded(owner, conversation, messages, held)

    def _set_aside(self, session: Session) -> bool:
        shelf, messages = session.shelf, list(session.conversation.messages)
        if not self.on or not shelf.owner or not (messages or shelf.held):
            return False
        shelf.held |= {message.id for message in messages}
        shelf.waiting[shelf.conversation] = (shelf.owner, messages, shelf.held)
        return True

    def _recorded(
        self, owner: str, conversation: str, messages: list[Any], held: set[str]
    ) -> Literal["", "kept", "away", "full"]:
        try:
            if not self._archive.record(owner, conversation, None, messages, known=frozenset(held)):
                return ""
        except RemansoError as problem:
            return "full" if problem.code == "history_full" else ""
        except Exception as problem:  # its text can hold words
            log.error("a conversation could not be recorded: %s", type(problem).__name__)
            return "full"
        return "away" if self.away else "kept"

    # Consent

    def consents(self, owner: str) -> bool:
        return bool(owner) and self._archive.consented(owner) is not None

    def consent(self, session: Session, owner: str, yes: bool) -> bool:
        """Notes a consent, from which on the running conversation is kept, or its withdrawal; returns what stands.

        Raises:
            RemansoError: `history_none`, `history_full`.
        """
        if not self.on:
            if yes:
                raise RemansoError("history_none")
            return False
        session.shelf.owner = owner
        if not yes or not self.consents(owner):  # a consent that cannot be looked up now may be withdrawn, too
            self._archive.consent(owner, yes)
        if yes and self._set_aside(session):
            self.record(session)
        return self.consents(owner)

    def arrive(self, session: Session, owner: str, conversation: str, shown: Sequence[tuple[str, str]]) -> None:
        """Begins to keep a visit's conversation, and goes on with the one that its tab had.

        Args:
            session: the visit's.
            owner: whose it is, or nothing.
            conversation: id of the one that the tab remembers, or nothing.
            shown: what the page shows of it: after a restart of the server, all that there is.

        Raises:
            RemansoError: `still_replying`; `history_away`.
        """
        was, session.shelf.owner = session.shelf.owner, owner
        if not conversation or not self.consents(owner) or (was == owner and session.conversation.messages):
            return
        if session.busy:
            session.shelf.owner = was
            raise RemansoError("still_replying")
        try:
            stored = self._archive.open(owner, conversation)
        except RemansoError as problem:
            if problem.code == "history_missing":
                return
            raise
        self._join(session, conversation, stored, shown)
        self.note(session)

    def _join(
        self, session: Session, conversation: str, stored: Conversation, shown: Sequence[tuple[str, str]]
    ) -> None:
        if session.conversation.messages:
            session.conversation.recall(stored.messages)
        else:
            session.conversation = stored
            if shown:
                session.conversation.keep(shown)
        session.shelf.begin(conversation)

    # Finding again

    def conversations(self, session: Session, owner: str) -> list[Summary]:
        """Returns what somebody keeps, the last changed first; what is empty is left out.

        Raises:
            RemansoError: `history_away`, `history_locked`, `history_keyless`, `history_unknown`.
        """
        self.record(session)
        found = self._archive.summaries(self._someone(owner))
        if not found and not self.consents(owner):
            raise RemansoError("history_unknown")
        return [one for one in found if one.messages]

    def search(self, owner: str, words: str) -> list[Summary]:
        """Returns the conversations that hold all of these words; raises as `conversations`."""
        if not self.consents(self._someone(owner)):
            self.conversations(Session(), owner)
        return [one for one in self._archive.search(owner, words) if one.messages]

    def open(self, session: Session, owner: str, conversation: str) -> dict[str, Rating]:
        """Puts a kept conversation in the place of the running one, to go on with; returns its ratings by message.

        Raises:
            RemansoError: `still_replying`, `history_missing`, `history_away`, `history_keyless`.
        """
        if session.busy:
            raise RemansoError("still_replying")
        self.record(session)
        stored = self._archive.open(self._someone(owner), conversation)
        ratings = self._archive.ratings(owner, conversation)
        self._chat.new(session)
        session.conversation, session.shelf.owner = stored, owner
        session.shelf.begin(conversation)
        session.shelf.held |= {message.id for message in stored.messages}
        session.shelf.state = "kept"
        return ratings

    def rename(self, session: Session, owner: str, conversation: str, title: str) -> None:
        """Gives a conversation a title; an empty one brings its first words back. Raises as `open`."""
        self.record(session)
        self._archive.rename(self._someone(owner), conversation, title)

    def rate(self, session: Session, owner: str, message: str, up: bool | None, word: str = "") -> None:
        """Keeps a thumb for a reply of the running conversation, with a word; None takes it back.

        Raises:
            RemansoError: `history_off` without consent; `history_missing`: there is no such reply.
        """
        if not any(one.id == message and one.role == "assistant" for one in session.conversation.messages):
            raise RemansoError("history_missing")
        self.record(session)
        self._archive.rate(self._someone(owner), session.shelf.conversation, message, up, word)

    # Taking along

    def export(self, session: Session, owner: str, conversation: str, form: Form, language: Language) -> str:
        """Returns one kept conversation with its title and ratings, or all of them (`""`), to read or to import."""
        self.record(session)
        if conversation:
            return self._archive.export(self._someone(owner), conversation, form, language)
        self.conversations(session, owner)
        return self._archive.export_all(owner, form, language)

    def import_(self, owner: str, text: str) -> list[Summary]:
        """Keeps what was exported, each conversation as a new one.

        Raises:
            RemansoError: `import_bad`, `import_large`, `history_off`, `history_full`, `history_keyless`.
        """
        return self._archive.import_(self._someone(owner), text)

    # Letting go

    def delete(self, session: Session, owner: str, conversation: str = "") -> Receipt:
        """Deletes one kept conversation, or everything; where the running one is among it, that is begun anew.

        Raises:
            RemansoError: `still_replying`, `history_missing`, `history_full`, `history_keyless`.
        """
        if session.busy:
            raise RemansoError("still_replying")
        if not conversation or conversation == session.shelf.conversation:
            session.shelf.waiting.clear()
        if conversation:
            receipt = self._archive.delete(self._someone(owner), conversation)
            if receipt.confirmed and not receipt.deleted:
                raise RemansoError("history_missing")
        else:
            receipt = self._archive.delete_all(owner) if owner else Receipt(0, True, "nothing")
        if not conversation or conversation == session.shelf.conversation:
            self._chat.new(session)
        return receipt

    def _someone(self, owner: str) -> str:
        if not self.on:
            raise RemansoError("history_none")
        if not owner:
            raise RemansoError("history_keyless")
        return owner


def told(found: Sequence[Summary]) -> list[dict[str, Any]]:
    """Returns conversations as the page and the endpoints tell of them; times in ISO 8601, UTC."""
    return [{**asdict(one), "created": one.created.isoformat(), "updated": one.updated.isoformat()} for one in found]


def standing(shelf: Shelf) -> dict[str, Any]:
    """Returns which conversation a visit is in, and what became of recording it."""
    return {"conversation": shelf.conversation, "state": shelf.state}
