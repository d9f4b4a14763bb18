"""What is stored of a person: their consent, and one document for each conversation; and how a record changes them.

A record is one line of a journal: what was done, by whom, in which order. Applying one is idempotent: each document
remembers the last record of each journal that it has seen, by number and not by time, so that a record which is
replayed after a crash, or by another process, changes nothing a second time.

A consent has epochs, random names for the times that it was given. Each record carries one. A record whose epoch is
not among those of the stored consent comes from before everything was deleted, and is ignored; so is one of a
conversation that was deleted. Knows nothing of files, stores or keys: texts are strings, sealed or not.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from history.conversation import ID

SCHEMA = "remanso.stored/1"
PERSON = "person"  # the id of the document that holds a person's consent; no conversation's id looks like it
OWNER = re.compile(r"[0-9a-f]{64}")
NO_ID = "0" * 32
JOURNALS_KEPT = 50  # of a document's memory of journals: each process start makes one
DELETED_KEPT = 2000
Kind = Literal["consent", "turn", "title", "rate", "delete", "forget"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One thing that was done, as a journal keeps it.

    Attributes:
        journal: id of the journal that it was written to.
        seq: its number there; later ones are higher.
        at: when, ISO 8601, UTC.
        epoch: of the consent that it was done under.
        conversation: which one, if one.
        data: by kind. `consent`: yes, version. `turn`: add (rows), drop (message ids), title. `title`: title.
            `rate`: message, up (None takes it back), word. `delete`: before (only what has not changed since), or
            nothing. `forget`: epochs (of what was to be deleted, or None when that was not known), before.
    """

    journal: str
    seq: int
    kind: Kind
    owner: str
    at: str
    epoch: str = ""
    conversation: str = ""
    data: Row = field(default_factory=dict)


@dataclass
class Person:
    """A person's consent: whether it stands, since when, to which words, its epochs, and what they deleted."""

    yes: bool
    since: str
    version: str
    epochs: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    applied: dict[str, int] = field(default_factory=dict)


@dataclass
class Document:
    """One stored conversation: rows as `conversation.to_row` makes them, ratings by message id."""

    id: str
    title: str = ""
    created: str = ""
    updated: str = ""
    messages: list[Row] = field(default_factory=list)
    ratings: list[Row] = field(default_factory=list)
    applied: dict[str, int] = field(default_factory=dict)


@dataclass
class Holding:
    """What is stored of one person, as far as it was read. A document of None is to be deleted."""

    person: Person | None = None
    documents: dict[str, Document | None] = field(default_factory=dict)
    forgotten: bool = False

    def apply(self, records: Iterable[Record]) -> None:
        """Changes it by these records, in their order."""
        for record in records:
            _APPLY[record.kind](self, record)

    def shows(self, record: Record) -> bool:
        """Whether a document here bears the mark of a record: some leave none, because they are too late."""
        about = self.person if record.kind == "consent" else self.documents.get(record.conversation)
        return about is not None and about.applied.get(record.journal, 0) >= record.seq

    def _consent(self, record: Record) -> None:
        yes = bool(record.data["yes"])
        if self.person is None:
            if not yes:
                return
            self.person = Person(yes, record.at, str(record.data["version"]))
        if not _first_time(self.person.applied, record):
            return
        self.person.yes = yes
        if yes:
            self.person.since, self.person.version = record.at, str(record.data["version"])
            if record.epoch not in self.person.epochs:
                self.person.epochs.append(record.epoch)

    def _open(self, record: Record) -> Document | None:
        """Returns the document that a record may change for the first time, if there is one."""
        person = self.person
        if person is None or not person.yes or record.epoch not in person.epochs:
            return None
        if record.conversation in person.deleted:
            return None
        document = self.documents.get(record.conversation)
        if document is None:
            if record.kind != "turn":
                return None
            document = self.documents[record.conversation] = Document(record.conversation)
        if not _first_time(document.applied, record):
            return None
        document.updated = max(record.at, document.updated)
        return document

    def _turn(self, record: Record) -> None:
        if not (document := self._open(record)):
            return
        document.title = record.data.get("title") or document.title
        added = {row["id"]: row for row in record.data["add"]}
        gone = set(record.data["drop"])
        kept = [added.pop(row["id"], row) for row in document.messages if row["id"] not in gone]
        document.messages = kept + list(added.values())
        document.ratings = [rating for rating in document.ratings if rating["message"] not in gone]
        document.created = document.created or min([record.at, *(row["time"] for row in document.messages)])

    def _title(self, record: Record) -> None:
        if document := self._open(record):
            document.title = str(record.data["title"])

    def _rate(self, record: Record) -> None:
        if not (document := self._open(record)):
            return
        about, up = record.data["message"], record.data["up"]
        document.ratings = [rating for rating in document.ratings if rating["message"] != about]
        if up is not None and any(row["id"] == about for row in document.messages):
            word = str(record.data["word"])
            document.ratings.append({"message": about, "up": bool(up), "word": word, "time": record.at})

    def _delete(self, record: Record) -> None:
        document, before = self.documents.get(record.conversation), record.data.get("before")
        if before and (document is None or document.updated >= before):
            return
        self.documents[record.conversation] = None
        if self.person and record.conversation not in self.person.deleted:
            self.person.deleted = [*self.person.deleted, record.conversation][-DELETED_KEPT:]

    def _forget(self, record: Record) -> None:
        epochs = record.data.get("epochs")
        if self.person and epochs is not None and not set(epochs) & set(self.person.epochs):
            return  # it is done already, and the person has begun anew since
        if (before := record.data.get("before")) and self._newer(before):
            return
        self.person, self.forgotten = None, True
        self.documents = dict.fromkeys(self.documents)

    def _newer(self, before: str) -> bool:
        """Whether something here is newer than what was to be deleted for its age."""
        there = [document.updated for document in self.documents.values() if document]
        return max([*there, self.person.since if self.person else ""], default="") >= before


_APPLY = {
    "consent": Holding._consent,
    "turn": Holding._turn,
    "title": Holding._title,
    "rate": Holding._rate,
    "delete": Holding._delete,
    "forget": Holding._forget,
}


def _first_time(applied: dict[str, int], record: Record) -> bool:
    """Notes that a document has seen a record, and returns whether it had not before."""
    if applied.get(record.journal, 0) >= record.seq:
        return False
    applied.pop(record.journal, None)  # the last used is the last in order, and is forgotten last
    applied[record.journal] = record.seq
    while len(applied) > JOURNALS_KEPT:
        del applied[next(iter(applied))]
    return True


def seen(text: str, record: Record) -> bool:
    """Whether a stored document remembers that a record was applied to it."""
    return any(mark["journal"] == record.journal and mark["seq"] >= record.seq for mark in json.loads(text)["applied"])


def dump(what: Person | Document) -> str:
    """Returns a document as JSON. Each field has one type in every document, so that all load as one data set."""
    data = {"schema": SCHEMA, **vars(what)}
    data["applied"] = [{"journal": name, "seq": seq} for name, seq in what.applied.items()]
    if isinstance(what, Document):
        data["messages"] = [{**row, "finish": row["finish"] or ""} for row in what.messages]
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def load_person(text: str) -> Person:
    """Reads what `dump` wrote of a person.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    return Person(**_fields(text))


def load_document(text: str) -> Document:
    """Reads what `dump` wrote of a conversation; raises as `load_person`."""
    return Document(**_fields(text))


def _fields(text: str) -> Row:
    data: Row = json.loads(text)
    if data.pop("schema") != SCHEMA:
        raise ValueError(f"not of the schema {SCHEMA}")
    data["applied"] = {mark["journal"]: int(mark["seq"]) for mark in data["applied"]}
    return data


def to_line(record: Record) -> str:
    """Returns a record as a line of a journal."""
    return json.dumps(vars(record), ensure_ascii=False, separators=(",", ":")) + "\n"


def from_line(line: str) -> Record:
    """Reads what `to_line` wrote; raises as `load_person`."""
    record = Record(**json.loads(line))
    if record.kind not in _APPLY or not OWNER.fullmatch(record.owner) or not ID.fullmatch(record.conversation or NO_ID):
        raise ValueError("it is no record")
    return record


def now_text(moment: datetime) -> str:
    """Returns a time in the one form whose order as text is its order in time."""
    return moment.isoformat(timespec="microseconds")
