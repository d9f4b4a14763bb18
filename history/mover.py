"""Moves records from the journal to the store, in a thread of its own, so that nobody waits for a network.

A record leaves the journal only after the store has said that it holds it, or, where two processes can overwrite
each other's documents (`Store.settle`), after it was seen there a while later. What a store may or may not have done
(a lost answer, a crash) is done again from what lies there, and changes nothing when it was done. Knows nothing of
what is said.
"""

import logging
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from history.documents import PERSON, Document, Holding, Record, dump, load_document, load_person, seen
from history.journal import Journal
from history.stores import AwayError, Change, ConflictError, Store, Stored

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # between two tries while the store is away
ADOPT_SECONDS = 30.0  # how often it is looked whether another process has died
CONFLICTS = 20  # tries before other processes are left to go first
PEOPLE = 200  # whose records are moved in one call
ERASING = ("delete", "forget")

log = logging.getLogger("remanso.history")


@dataclass
class Batch:
    """What is moved in one call.

    Attributes:
        records: the records; `lasting` are those that leave a mark on a document.
        changes: what they make of what lies there.
        erased: whose documents are deleted, and which; None: all of this person's.
    """

    records: list[Record] = field(default_factory=list)
    lasting: list[Record] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    erased: dict[str, set[str] | None] = field(default_factory=dict)


class Mover:
    """The thread, and what waits for it."""

    def __init__(self, journal: Journal, store: Store) -> None:
        self.journal, self.store = journal, store
        self.away = ""  # what kind of failure keeps the store away, if one does
        self._wake = threading.Condition()
        self._urgent = self._closing = self._news = False
        self._flushes = 0
        self._settling: list[tuple[float, Record]] = []
        self._parked: set[tuple[str, int]] = set()  # cannot be applied, and wait for somebody to look at them
        self._last = -1e9
        self._thread = threading.Thread(target=self._work, name="history", daemon=True)

    def start(self) -> None:
        """Begins to move."""
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something to move."""
        with self._wake:
            self._news = True
            self._wake.notify_all()

    def flush(self, seconds: float, owner: str | None = None) -> bool:
        """Moves what is pending now, whatever the store's pace; returns whether it all was within the time."""
        wanted = {(record.journal, record.seq) for record in self.journal.pending(owner)}
        deadline = time.monotonic() + seconds
        with self._wake:
            self._urgent = True
            self._flushes += 1
            self._wake.notify_all()
            while wanted & self._unstored(owner):
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._wake.wait(min(left, 0.5))
        return True

    def close(self, seconds: float) -> bool:
        """Moves what it can within the time and ends; the rest stays in the journal."""
        done = self.flush(seconds)
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(1.0)
        return done

    def _unstored(self, owner: str | None = None) -> set[tuple[str, int]]:
        """Returns what the store does not hold yet; what only settles is held."""
        settling = {(record.journal, record.seq) for _, record in self._settling}
        return {(record.journal, record.seq) for record in self.journal.pending(owner)} - settling - self._parked

    def _work(self) -> None:
        wait, adopted = FIRST_WAIT, time.monotonic()
        while not self._closing:
            try:
                moved = self._step()
                self.away, wait = "", FIRST_WAIT
                pause = 0.0 if moved or self._urgent else self._pause()
            except (AwayError, ConflictError) as problem:
                if self.away != str(problem):
                    log.warning("the history's store is away: %s", problem)
                self.away, pause, wait = str(problem), wait, min(2 * wait, LONGEST_WAIT)
            except Exception as problem:  # a bug must not end the thread; its text can hold words
                self.away, pause = type(problem).__name__, LONGEST_WAIT
                log.error("history: %s at %s", self.away, _place(problem))
            if time.monotonic() - adopted > ADOPT_SECONDS:
                adopted = time.monotonic()
                self.journal.adopt()
            self._sleep(pause)

    def _pause(self) -> float:
        """Returns how long there is nothing to do unless somebody wakes us."""
        waits = [ADOPT_SECONDS]
        if self._unstored():
            waits.append(self._last + self.store.pace - time.monotonic())
        waits += [due - time.monotonic() for due, _ in self._settling]
        return max(0.01, min(waits))

    def _sleep(self, seconds: float) -> None:
        """Waits, unless somebody flushes; what is new is no reason to ask a store again that is away."""
        with self._wake:
            self._wake.notify_all()  # for whoever waits in `flush`
            before = self._flushes
            self._wake.wait_for(
                lambda: self._closing or self._flushes != before or (self._news and not self.away), seconds
            )
            self._news = False

    def _step(self) -> bool:
        """Moves one batch, if it is time to, and returns whether it did."""
        self._settle()
        waiting = self._waiting()
        if not waiting:
            self._urgent = False
            return False
        if not self._urgent and time.monotonic() - self._last < self.store.pace:
            return False
        for _ in range(CONFLICTS):
            try:
                batch = self._batch(waiting)
                if batch.changes:
                    self.store.append(batch.changes)
                break
            except ConflictError:
                continue
        else:
            raise ConflictError("other processes change the same documents")
        self._last = time.monotonic()
        for owner, ids in batch.erased.items():
            self.store.delete(owner, ids)
        self._finish(batch)
        return True

    def _waiting(self) -> list[Record]:
        unstored = self._unstored()
        records = [record for record in self.journal.pending() if (record.journal, record.seq) in unstored]
        people = list(dict.fromkeys(record.owner for record in records))[:PEOPLE]
        return [record for record in records if record.owner in people]

    def _batch(self, records: list[Record]) -> Batch:
        """Reads what lies there, applies the records to it, and returns what has to change."""
        batch = Batch()
        for owner in dict.fromkeys(record.owner for record in records):
            mine = [record for record in records if record.owner == owner]
            ids = None
            if all(record.kind != "forget" for record in mine):
                ids = {PERSON, *(record.conversation for record in mine if record.conversation)}
            stored = self.store.load(owner, ids)
            try:
                self._add(batch, owner, mine, stored)
            except (KeyError, TypeError, ValueError, AttributeError) as problem:
                self._parked |= {(record.journal, record.seq) for record in mine}
                log.error("history: documents cannot be read: %s at %s", type(problem).__name__, _place(problem))
        return batch

    def _add(self, batch: Batch, owner: str, mine: list[Record], stored: dict[str, Stored]) -> None:
        holding = held(stored)
        holding.apply(mine)
        batch.changes += changes(owner, holding, stored)
        batch.records += mine
        batch.lasting += [record for record in mine if holding.shows(record)]
        if holding.forgotten:
            batch.erased[owner] = None
        elif gone := {record.conversation for record in mine if record.kind == "delete"}:
            batch.erased[owner] = {id for id in gone if holding.documents.get(id) is None}

    def _finish(self, batch: Batch) -> None:
        due, settling = time.monotonic() + self.store.settle, batch.lasting if self.store.settle else []
        with self._wake:
            self._settling += [(due, record) for record in settling]
        done = [record for record in batch.records if record not in settling]
        self.journal.done(done, shrink=any(record.kind in ERASING for record in done))

    def _settle(self) -> None:
        """Looks again at what was written a while ago: what is there is done, what was overwritten is moved again."""
        now = time.monotonic()
        due = [record for when, record in self._settling if when <= now]
        for owner in {record.owner for record in due}:
            mine = [record for record in due if record.owner == owner]
            stored = self.store.load(owner, {PERSON, *(record.conversation for record in mine if record.conversation)})
            self.journal.done([record for record in mine if _holds(stored, record)])
        with self._wake:
            self._settling = [(when, record) for when, record in self._settling if record not in due]


def held(stored: dict[str, Stored]) -> Holding:
    """Reads a person's documents.

    Raises:
        ValueError, KeyError, TypeError: one of them is something else.
    """
    person = load_person(stored[PERSON].text) if PERSON in stored else None
    return Holding(person, {id: load_document(one.text) for id, one in stored.items() if id != PERSON})


def changes(owner: str, holding: Holding, stored: dict[str, Stored]) -> list[Change]:
    """Returns what has to change so that what lies there becomes this.

    Documents without a consent, or that were deleted, are deleted: another process can have written one late. Where
    the consent itself stays as it is, it must not change under the rest.
    """
    person, wanted = holding.person, dict[str, Document | None](holding.documents)
    for id in wanted:
        if person is None or id in person.deleted:
            wanted[id] = None
    texts = {id: dump(document) if document else None for id, document in wanted.items()}
    found = [_change(owner, id, text, stored) for id, text in texts.items()]
    needed = [change for change in found if not change.same]
    consent = _change(owner, PERSON, dump(person) if person else None, stored)
    return [consent, *needed] if needed or not consent.same else []


def _change(owner: str, id: str, text: str | None, stored: dict[str, Stored]) -> Change:
    before = stored.get(id)
    same = text == (before.text if before else None)
    return Change(owner, id, text, before.version if before else "", same)


def _holds(stored: dict[str, Stored], record: Record) -> bool:
    """Whether a record was applied to what lies there, or can no longer be."""
    about = stored.get(record.conversation or PERSON)
    if PERSON not in stored:
        return True
    if about is None:
        return record.conversation in load_person(stored[PERSON].text).deleted
    return seen(about.text, record)


def _place(problem: BaseException) -> str:
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
