"""`python -m history check | purge | export --pseudonymise`: for whoever runs the service. Reads the same settings.

`check` opens the store and says what it is and what it holds; `purge` deletes what is older than `HISTORY_DAYS`;
`export` writes conversations as JSON lines for research, with what could name a person replaced. What the export
cannot do stands in `research.py`, and is printed with it.
"""

import argparse
import json
import logging
import os
import random
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from config import Settings, read_settings
from history import Archive, Store, open_store
from history.cipher import Cipher
from history.documents import Document
from history.mover import held
from history.stores import AwayError

SCHEMA = "remanso.research/1"
LIMITS = (
    "Names, phones, e-mails, addresses and identity numbers were replaced by rules. Rare names, nicknames, places, "
    "jobs, dates and what happened are still there: this is no anonymisation. Have a person read it before anyone else "
    "gets it."
)


def check(store: Store) -> None:
    """Prints what the store is and what it holds."""
    people = store.owners()
    holdings = [held(store.load(owner)) for owner in people]
    conversations = sum(len(holding.documents) for holding in holdings)
    consenting = sum(1 for holding in holdings if holding.person and holding.person.yes)
    print(f"{store.describe()}\n{len(people)} people, {consenting} of them consenting, {conversations} conversations")


def export(store: Store, cipher: Cipher, out: IO[str]) -> int:
    """Writes the conversations of everyone who consents, one a line, in no order; returns how many."""
    from history.research import Pseudonyms  # noqa: PLC0415 - not everyone has it installed

    people = store.owners()
    random.SystemRandom().shuffle(people)
    count = 0
    for number, owner in enumerate(people, 1):
        holding, pseudonyms = held(store.load(owner)), Pseudonyms()
        if not holding.person or not holding.person.yes:
            continue
        for document in filter(None, holding.documents.values()):
            if document.id not in holding.person.deleted:
                line = {"schema": SCHEMA, "person": number, **_row(document, cipher, pseudonyms)}
                print(json.dumps(line, ensure_ascii=False), file=out)
                count += 1
    return count


def _row(document: Document, cipher: Cipher, pseudonyms: Any) -> dict[str, Any]:
    """Returns a conversation without ids, title and dates: each message has the seconds since the first."""
    times = [datetime.fromisoformat(row["time"]) for row in document.messages]
    rated = {rating["message"]: rating for rating in document.ratings}
    return {
        "messages": [
            {
                "role": row["role"],
                "text": pseudonyms.replace(cipher.open(row["text"])),
                "finish": row["finish"] or None,
                "seconds": round((time - times[0]).total_seconds()),
                "up": rated[row["id"]]["up"] if row["id"] in rated else None,
                "word": pseudonyms.replace(cipher.open(rated[row["id"]]["word"])) if row["id"] in rated else "",
            }
            for row, time in zip(document.messages, times, strict=True)
        ]
    }


def _lines(settings: Settings, store: Store, path: Path | None) -> Iterator[str]:
    print(LIMITS, file=sys.stderr)
    cipher = Cipher(settings.history_key)
    if path is None:
        yield f"{export(store, cipher, sys.stdout)} conversations"
        return
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        yield f"{export(store, cipher, out)} conversations in {path}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m history", description="Looks after the kept conversations.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="open the store, and say what it is and what it holds")
    commands.add_parser("purge", help="delete what has not changed for HISTORY_DAYS days")
    out = commands.add_parser("export", help="write the conversations as JSON lines, for research")
    out.add_argument("--pseudonymise", action="store_true", required=True, help="replace names, phones, addresses…")
    out.add_argument("--out", type=Path, help="the file; without it, standard output")
    wanted = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    settings = read_settings()
    try:
        if wanted.command == "purge":
            archive = Archive(settings)
            print(f"{archive.purge()} conversations deleted")
            archive.close()
            return
        store = open_store(settings)
        if not store:
            sys.exit("HISTORY_URL is not set: nothing is kept.")
        if wanted.command == "check":
            check(store)
        else:
            for line in _lines(settings, store, wanted.out):
                print(line, file=sys.stderr)
    except AwayError as problem:
        sys.exit(f"The store does not answer: {problem}")


if __name__ == "__main__":
    main()
