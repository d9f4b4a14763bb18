"""What a person keeps: with their consent, by their key, until they delete it. The page and the endpoints ask here.

    record -> journal (on this disk, at once) -> mover (in the background) -> store (`HISTORY_URL`)

What is read is what the store holds, with what only the journal holds so far applied to it. Nothing here waits for a
network unless a person asked for what lies there, and then for a limited time. Without `HISTORY_URL`, and without a
person's consent, nothing is written anywhere. Knows nothing of pages and models.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from errors import RemansoError
from history.cipher import Cipher
from history.conversation import ID, Conversation, Message
from history.documents import Document, Holding, Kind, Person, Record, Row, now_text
from history.ending import finishing
from history.eraser import Eraser, Receipt
from history.identity import new_secret, owner_key, read_salt
from history.mover import Mover
from history.people import People
from history.reading import Reader
from history.sealing import Sealer, Summary, digest, first_words
from history.search import find
from history.stores import open_store
from history.transfer import WORD_CHARS, Parcel, Rating, pack, plain, plain_title, unpack
from sentences import Language

if TYPE_CHECKING:
    from config import Settings
    from history.journal import Journal

CONSENT_VERSION = "1"  # of the words that a person consents to; with new words, everyone is asked again
CONVERSATIONS_KNOWN = 5_000
PERSONAL = ("consent", "delete", "forget")  # records that change what is known of a person


@dataclass(frozen=True)
class Consent:
    """When a person said yes, and to which version of the words."""

    time: datetime
    version: str


class Archive:
    """All methods may be called from any thread, and none from an event loop: they may wait for a disk.

    Raises:
        SystemExit: a setting of the history is wrong; the message names it.
    """

    def __init__(self, settings: "Settings", now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now, self._latest = now, datetime.min.replace(tzinfo=UTC)
        self._lock, self._ending = threading.RLock(), threading.Lock()
        self._closed = threading.Event()
        self._said: OrderedDict[tuple[str, str], dict[str, bytes]] = OrderedDict()  # what is recorded already
        self._sealer = Sealer(Cipher(settings.history_key))
        self._salt = read_salt(settings)
        self._store = open_store(settings)
        self.enabled = self._store is not None
        self.days = settings.history_days
        if self._store:
            self._journal = _journal(settings)
            self._journal.adopt()
            self._reader = Reader(self._store, self._journal)
            self._people = People(lambda owner: self._reader.holding(owner, set()).person)
            self._mover = Mover(self._journal, self._store)
            self._mover.start()
            self._eraser = Eraser(self._reader, self._mover, self._write, now)
            if self.days:
                self._eraser.retain(self.days, self._closed)

    @property
    def away(self) -> str:
        """What keeps the store away (a kind of failure, no words), or nothing; what is recorded waits on the disk."""
        return self._mover.away if self._store else ""

    def close(self, timeout: float = 10.0) -> bool:
        """Stores what it can within this time; what it cannot stays in the journal. Returns whether it was all."""
        with self._ending:
            if not self._store or self._closed.is_set():
                return True
            self._closed.set()
            done = self._mover.close(timeout)
            self._journal.close()
            self._store.close()
            return done

    def serving(self, timeout: float = 10.0) -> AbstractContextManager[None]:
        """Closes when the block ends, and when the process is asked to end (SIGTERM). Main thread only."""
        return finishing(lambda: self.close(timeout))

    # Who it is

    def new_secret(self) -> str:
        """Returns a new secret for somebody's browser: 43 characters, 256 random bits."""
        return new_secret()

    def owner(self, secret: str | None = None, login: str | None = None) -> str:
        """Returns the key that a person's conversations lie under; neither secret nor login can be told from it.

        Args:
            secret: what the person's browser holds.
            login: the `sub` of their login, which survives a new user name.

        Raises:
            RemansoError: `history_key`: the secret is none.
        """
        return owner_key(self._salt, secret, login)

    # Consent

    def consented(self, owner: str) -> Consent | None:
        """Returns a person's consent to the present words, or None: there is none, or it cannot be known now."""
        person = self._person(owner)
        if person is None or not person.yes or person.version != CONSENT_VERSION:
            return None
        return Consent(datetime.fromisoformat(person.since), person.version)

    def consent(self, owner: str, yes: bool) -> Consent | None:
        """Keeps a person's consent, or its withdrawal, which ends all writing at once and deletes nothing.

        Raises:
            RemansoError: `history_full`.
        """
        self._person(owner)
        self._write(owner, "consent", {"yes": yes, "version": CONSENT_VERSION}, epoch=uuid4().hex)
        return self.consented(owner)

    # What is said

    def record(
        self,
        owner: str,
        conversation: str,
        title: str | None,
        messages: Sequence[Message],
        known: Collection[str] | None = None,
    ) -> bool:
        """Keeps a conversation as it now stands; when it returns True, that is on the disk.

        Args:
            conversation: its id, 32 hexadecimal digits (`uuid4().hex`), made by whoever begins it.
            messages: all of them; what was recorded before and is here no more was undone, and is removed.
            known: ids of all that the caller has ever held of it, where others (a second tab, another device) may add
                to the same conversation: what the caller never held, it cannot have undone. None: everything.

        Returns:
            False where there is no consent, the conversation was deleted or the server is ending: nothing is kept.

        Raises:
            RemansoError: `history_missing` for an impossible id; `history_full` when the disk is: the words are then
                in memory, and are stored if the process lives until the store has them.
        """
        if not ID.fullmatch(conversation):
            raise RemansoError("history_missing")
        person = self._person(owner) if self.consented(owner) else None
        if person is None or conversation in person.deleted or self._closed.is_set():
            return False
        told = [message for message in messages if message.role != "system"]
        digests = {message.id: digest(message) for message in told}
        with self._lock:
            before = self._said.get((owner, conversation), {})
            add = [self._sealer.row(message) for message in told if before.get(message.id) != digests[message.id]]
            others = {id: one for id, one in before.items() if known is not None and id not in known}
            gone = before or dict.fromkeys(known or ())  # after a restart, what is held tells what was undone
            drop = [id for id in gone if id not in digests and id not in others]
            self._remember(owner, conversation, others | digests)
            if add or drop or title:
                name = self._sealer.text(plain_title(title or ""))
                data = {"add": add, "drop": drop, "title": name}
                self._write(owner, "turn", data, conversation, person.epochs[-1])
        return True

    def rename(self, owner: str, conversation: str, title: str) -> None:
        """Gives a conversation a title; an empty one brings the first words back in its place.

        Raises:
            RemansoError: `history_missing`, `history_off` without consent, `history_away`, `history_full`.
        """
        self._document(owner, conversation)
        person = self._consenting(owner)
        self._write(owner, "title", {"title": self._sealer.text(plain_title(title))}, conversation, person.epochs[-1])

    def rate(self, owner: str, conversation: str, message: str, up: bool | None, word: str = "") -> None:
        """Keeps a thumb up or down for a message, with a word; None takes it back. Raises as `rename`."""
        person = self._consenting(owner)
        if not ID.fullmatch(conversation) or not ID.fullmatch(message):
            raise RemansoError("history_missing")
        sealed = self._sealer.text(plain(word)[:WORD_CHARS])
        data = {"message": message, "up": up, "word": sealed}
        self._write(owner, "rate", data, conversation, person.epochs[-1])

    # Finding it again

    def summaries(self, owner: str) -> list[Summary]:
        """Returns a person's conversations, the last changed first.

        Raises:
            RemansoError: `history_away`, `history_locked`.
        """
        return [self._sealer.summary(document) for document in self._documents(owner)]

    def search(self, owner: str, words: str) -> list[Summary]:
        """Returns the conversations in which all of these words occur, whatever their accents and capitals."""
        found = []
        for document in self._documents(owner):
            summary = self._sealer.summary(document)
            texts = [summary.title, *(message.shown for message in self._sealer.messages(document))]
            if (excerpt := find(texts, words)) is not None:
                found.append(replace(summary, excerpt=excerpt))
        return found

    def open(self, owner: str, conversation: str) -> Conversation:
        """Returns one conversation, to read or to go on with under the same id.

        Raises:
            RemansoError: `history_missing` (there is none, or it is another person's), `history_away`,
                `history_locked`.
        """
        messages = self._sealer.messages(self._document(owner, conversation))
        self._remember(owner, conversation, {message.id: digest(message) for message in messages})
        return Conversation(messages)

    def ratings(self, owner: str, conversation: str) -> dict[str, Rating]:
        """Returns a conversation's ratings by message id; raises as `open`."""
        return self._sealer.parcel(self._document(owner, conversation)).ratings

    # Taking it along

    def export(self, owner: str, conversation: str, form: Literal["md", "json"], language: Language) -> str:
        """Returns one conversation, in the forms of `export_all`; raises as `open`."""
        return pack([self._sealer.parcel(self._document(owner, conversation))], form, language)

    def export_all(self, owner: str, form: Literal["md", "json"], language: Language) -> str:
        """Returns all conversations, the oldest first, as Markdown or as JSON that `import_` reads back."""
        return pack([self._sealer.parcel(document) for document in reversed(self._documents(owner))], form, language)

    def import_(self, owner: str, text: str) -> list[Summary]:
        """Keeps what was exported, each conversation as a new one.

        Raises:
            RemansoError: `import_bad`, `import_large`, `history_off` without consent, `history_full`.
        """
        parcels = unpack(text)
        self._consenting(owner)
        ids = {uuid4().hex: parcel for parcel in parcels}
        for id, parcel in ids.items():
            self.record(owner, id, parcel.title or None, parcel.conversation.messages)
            for message, rating in parcel.ratings.items():
                self.rate(owner, id, message, rating.up, rating.word)
        return [
            Summary(
                id, one.title or first_words(one.conversation.messages), *_times(one), len(one.conversation.messages)
            )
            for id, one in ids.items()
        ]

    # Letting it go

    def delete(self, owner: str, conversation: str) -> Receipt:
        """Deletes one conversation, from the history of the store too, and reads again that it is gone.

        Raises:
            RemansoError: `history_missing` for an impossible id; `history_full`.
        """
        if not ID.fullmatch(conversation):
            raise RemansoError("history_missing")
        return self._erase(owner, "delete", {}, conversation)

    def delete_all(self, owner: str) -> Receipt:
        """Deletes everything of a person, their consent with it, so that nothing is kept until they consent again."""
        person = self._person(owner)
        return self._erase(owner, "forget", {"epochs": person.epochs if person else None})

    def purge(self, days: int | None = None) -> int:
        """Deletes what has not changed for so many days, and consents without conversations as old; returns how many.

        Raises:
            AwayError: the store does not answer.
        """
        days = self.days if days is None else days
        return self._eraser.purge(days) if self._store and days else 0

    # Inside

    def _erase(self, owner: str, kind: Kind, data: Row, conversation: str = "") -> Receipt:
        if not self._store:
            return Receipt(0, True, "nothing")
        with self._lock:
            for key in [key for key in self._said if key[0] == owner and conversation in ("", key[1])]:
                del self._said[key]
        return self._eraser.erase(owner, kind, data, conversation)

    def _write(self, owner: str, kind: Kind, data: Row, conversation: str = "", epoch: str = "") -> None:
        """Puts a record into the journal, and what is known of the person in step with it."""
        if not self._store:
            return
        with self._lock:
            person = self._people.peek(owner)
            self._latest = max(self._now(), self._latest + timedelta(microseconds=1))
            record = Record("", 0, kind, owner, now_text(self._latest), epoch, conversation, data)
            try:
                self._journal.append([record])
            finally:  # also when the disk is full: it is in memory then, and on its way
                if kind in PERSONAL:
                    holding = Holding(person)
                    holding.apply(one for one in self._journal.pending(owner) if one.kind in PERSONAL)
                    self._people.know(owner, holding.person, time.monotonic())
                self._mover.wake()

    def _remember(self, owner: str, conversation: str, digests: dict[str, bytes]) -> None:
        with self._lock:
            self._said[owner, conversation] = digests
            self._said.move_to_end((owner, conversation))
            while len(self._said) > CONVERSATIONS_KNOWN:
                self._said.popitem(last=False)

    def _person(self, owner: str) -> Person | None:
        return self._people.get(owner) if self._store else None

    def _documents(self, owner: str) -> list[Document]:
        return self._reader.documents(owner) if self._store else []

    def _document(self, owner: str, conversation: str) -> Document:
        if not self._store:
            raise RemansoError("history_missing")
        return self._reader.document(owner, conversation)

    def _consenting(self, owner: str) -> Person:
        person = self._person(owner)
        if person is None or not self.consented(owner):
            raise RemansoError("history_off")
        return person


def _times(parcel: Parcel) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return min([now, *(message.time for message in parcel.conversation.messages)]), now


def _journal(settings: "Settings") -> "Journal":
    """Opens the journal of this store: another store's records wait for that one."""
    try:
        from history.journal import Journal  # noqa: PLC0415 - locks files as no Windows does

        name = hashlib.sha256(settings.history_url.encode()).hexdigest()[:12]
        return Journal(settings.history_journal / name)
    except (OSError, ImportError) as problem:
        raise SystemExit(f"HISTORY_JOURNAL cannot be used: {type(problem).__name__}") from None
