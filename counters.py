"""How often what happened, by day: help cards, notices, openings of the help button, replies that the guard took back.

Counts alone: no text, no session, no address, no hour. A count of a day and a category can be small, and one event of
a day stays one event: whoever knows that a certain person was here that day could guess that it was theirs. So before
an export is given to others, counts below five are better joined into months.

`python -m counters` prints what `COUNTERS_FILE` holds. Without that setting the counts are gone with the process. Knows
nothing of what is counted: a name is made of parts joined by points, `card.crisis.suicide`.
"""

import argparse
import contextlib
import csv
import json
import logging
import os
import sys
import tempfile
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from config import read_settings

SCHEMA = "remanso.counters/1"
Days = dict[str, Counter[str]]

log = logging.getLogger("remanso.counters")


class Counters:
    """Counts by UTC day and name, in memory, and merged into a file when there is one. Any thread may count.

    A file that cannot be read as counts is set aside under its name with `.broken`; one that cannot be written is
    tried again at the next event, and nothing is lost meanwhile.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file if file and file.name else None
        self._new: Days = {}  # what the file does not hold yet
        self._lock = threading.Lock()

    def add(self, name: str) -> None:
        """Counts one event of today. Never raises: no turn may fail because of a count."""
        with self._lock:
            self._new.setdefault(datetime.now(UTC).date().isoformat(), Counter())[name] += 1
            if not self._file:
                return
            try:
                _write(self._file, _merged(_read(self._file), self._new))
            except OSError as problem:
                log.warning("the counters cannot be kept in %s: %s", self._file, type(problem).__name__)
            else:
                self._new = {}

    def days(self) -> Days:
        """Returns the counts of each day, those of the file with them.

        Raises:
            OSError: the file is there and cannot be opened.
        """
        with self._lock:
            return _merged(_read(self._file) if self._file else {}, self._new)


def to_json(days: Days) -> str:
    """Returns the counts as JSON of the schema `remanso.counters/1`."""
    rows = {day: dict(sorted(names.items())) for day, names in sorted(days.items())}
    return json.dumps({"schema": SCHEMA, "days": rows}, indent=2)


def rows(days: Days) -> list[tuple[str, str, int]]:
    """Returns the counts as rows of day, name and count."""
    return [(day, name, count) for day, names in sorted(days.items()) for name, count in sorted(names.items())]


def _merged(one: Days, other: Days) -> Days:
    return {day: one.get(day, Counter()) + other.get(day, Counter()) for day in {*one, *other}}


def _read(file: Path) -> Days:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ValueError(SCHEMA)
        return {_day(day): Counter({str(k): int(v) for k, v in names.items()}) for day, names in data["days"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError):
        aside = file.with_name(f"{file.name}.broken")
        log.warning("%s holds no counts: it is kept as %s", file, aside.name)
        file.replace(aside)
        return {}


def _day(text: str) -> str:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()


def _write(file: Path, days: Days) -> None:
    """Replaces the file at once: whoever reads it finds the old counts or the new ones, never a part of them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as new:
            new.write(to_json(days) + "\n")
        os.replace(name, file)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the anonymous counts that COUNTERS_FILE holds.")
    parser.add_argument("--csv", action="store_true", help="rows of day, name and count, in place of JSON")
    wanted = parser.parse_args()
    file = read_settings().counters_file
    if not file or not file.name:
        sys.exit("COUNTERS_FILE is not set: the counts are in the memory of the running server alone.")
    days = Counters(file).days()
    if wanted.csv:
        csv.writer(sys.stdout).writerows([("day", "name", "count"), *rows(days)])
    else:
        print(to_json(days))


if __name__ == "__main__":
    main()
