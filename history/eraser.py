"""Deletes what a person asks to be deleted, and what has grown too old, and reads again that it is gone.

The words leave the journal at once, also when the disk is full; the store, with its older revisions, is waited for a
limited time, and is told again by the journal where it was away. Knows no person but by their key.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from errors import RemansoError
from history import reading
from history.documents import Kind, Record, Row, now_text
from history.mover import Mover
from history.reading import Reader, patiently
from history.stores import AwayError, Remains

COUNT_SECONDS = 3.0  # for how many there are of what is deleted: that is not worth a longer wait
DAY = 86_400.0
PURGE_FIRST = 600.0  # seconds after the start
PURGE_PAUSE = 0.3  # between two people: the Hub allows 1,000 calls in five minutes

log = logging.getLogger("remanso.history")


@dataclass(frozen=True)
class Receipt:
    """What became of a deletion.

    Attributes:
        deleted: conversations that were there.
        confirmed: that the store was read again afterwards, every revision that can be reached, and holds none of
            them. Otherwise the store is away: they can no longer be opened here, and are deleted when it is back.
        remains: `collection` where unreachable revisions lie on the Hub until it collects them.
    """

    deleted: int
    confirmed: bool
    remains: Remains


class Eraser:
    """Deletes by records that `write` puts into the journal: owner, kind, data, conversation."""

    def __init__(
        self, reader: Reader, mover: Mover, write: Callable[[str, Kind, Row, str], None], now: Callable[[], datetime]
    ) -> None:
        self._store, self._journal, self._reader, self._mover = mover.store, mover.journal, reader, mover
        self._write, self._now = write, now
        self._began, self._ticks = now(), time.monotonic()

    def erase(self, owner: str, kind: Kind, data: Row, conversation: str = "") -> Receipt:
        """Deletes one conversation of a person, or everything.

        Raises:
            RemansoError: `history_full`; what waited to be stored is gone all the same.
        """
        ids = {conversation} if conversation else None
        there = patiently(lambda: self._reader.holding(owner, ids), COUNT_SECONDS)
        try:
            self._write(owner, kind, data, conversation)
        finally:  # the disk can be full; the words must leave it all the same
            self._journal.done(self._overtaken(owner, conversation), shrink=True)
        confirmed = self._mover.flush(reading.WAIT_SECONDS, owner)
        left = patiently(lambda: self._store.left(owner, ids)) if confirmed else None
        count = sum(1 for one in there.documents.values() if one) if there else 0
        return Receipt(count, left == [], self._store.remains)

    def purge(self, days: int, pause: float = 0.0) -> int:
        """Deletes what has not changed for so many days, of everyone, with `pause` seconds between two people.

        Raises:
            AwayError: the store does not answer.
        """
        before, found = now_text(self._today() - timedelta(days=days)), 0
        for owner in self._store.owners():
            try:
                found += self._purge_person(owner, before)
            except AwayError as problem:
                log.warning("a person's conversations are not purged: %s", problem)
                continue
            time.sleep(pause)
        self._mover.flush(reading.WAIT_SECONDS)
        return found

    def retain(self, days: int, closed: threading.Event) -> None:
        """Purges once a day, in the background, until the server closes."""
        threading.Thread(target=self._retain, args=(days, closed), name="retention", daemon=True).start()

    def _overtaken(self, owner: str, conversation: str) -> list[Record]:
        """Returns what waits to be stored and was deleted since."""
        waiting = self._journal.pending(owner)
        kinds = ("turn", "title", "rate") if conversation else ("turn", "title", "rate", "consent", "delete")
        last = next((i for i in reversed(range(len(waiting))) if waiting[i].kind in ("delete", "forget")), 0)
        return [one for one in waiting[:last] if one.kind in kinds and conversation in ("", one.conversation)]

    def _purge_person(self, owner: str, before: str) -> int:
        holding = self._reader.holding(owner)
        there = [one for one in holding.documents.values() if one]
        old = [one.id for one in there if one.updated < before]
        for id in old:
            self._write(owner, "delete", {"before": before}, id)
        if holding.person and holding.person.since < before and len(old) == len(there):
            self._write(owner, "forget", {"epochs": holding.person.epochs, "before": before}, "")
        return len(old)

    def _retain(self, days: int, closed: threading.Event) -> None:
        pause = PURGE_FIRST
        while not closed.wait(pause):
            pause = DAY
            try:
                self.purge(days, PURGE_PAUSE)
            except (AwayError, RemansoError) as problem:
                log.warning("nothing was purged: %s", type(problem).__name__)

    def _today(self) -> datetime:
        """Returns the time for deleting by age: a clock that jumps ahead while we run must not delete everything."""
        return min(self._now(), self._began + timedelta(seconds=time.monotonic() - self._ticks))
