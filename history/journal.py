"""The local journal: what was done is on disk before anyone is told so, and stays there until a store has it.

One file for each process, of JSON lines, locked by the process for as long as it lives. The system frees the lock
when the process dies, however it dies; the next one then takes the file over and replays it. Applying a record twice
changes nothing (`documents.py`), so a file that is replayed once too often does no harm; the lock only keeps two
processes from replaying at the same time. The folder has to lie on a local disk: not every network disk can lock.

Knows nothing of stores, and of what a record says only whose it is.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from errors import RemansoError
from history.documents import Record, from_line, to_line

MAX_BYTES = 512 * 2**20  # of what waits for a store that is away
SHRINK_BYTES = 2**20  # a file this long, most of which is done, is written anew
SUFFIX = ".jsonl"

log = logging.getLogger("remanso.history")


class Journal:
    """What waits to be stored. Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._own = _File.create(folder)
        self._files = [self._own]
        self._seq = 0

    def append(self, records: Sequence[Record]) -> list[Record]:
        """Writes records down, numbered; when it returns, they are on the disk.

        Raises:
            RemansoError: `history_full`. They are kept in memory and will be stored if the process lives that long.
        """
        with self._lock:
            numbered = []
            for record in records:
                self._seq += 1
                numbered.append(replace(record, journal=self._own.id, seq=self._seq))
            self._own.append(numbered)
            return numbered

    def pending(self, owner: str | None = None) -> list[Record]:
        """Returns what is not stored yet, of one person or of all, in order."""
        with self._lock:
            records = [record for file in self._files for record in file.pending]
        return [record for record in records if owner in (None, record.owner)]

    def done(self, records: Iterable[Record], *, shrink: bool = False) -> None:
        """Removes what is stored now; with `shrink` its words leave the disk at once."""
        gone = {(record.journal, record.seq) for record in records}
        with self._lock:
            for file in [*self._files]:
                file.remove(gone, shrink=shrink)
                if file is not self._own and not file.pending:
                    file.close()
                    self._files.remove(file)

    def adopt(self) -> int:
        """Takes over the files of dead processes, and returns how many records they hold."""
        found = 0
        with self._lock:
            known = {file.id for file in self._files}
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                if path.stem not in known and (file := _File.take(path)):
                    found += len(file.pending)
                    if file.pending:
                        self._files = sorted([*self._files, file], key=lambda one: one.path.name)
                    else:
                        file.close()
        return found

    def close(self) -> None:
        """Lets the files go. What is pending stays on the disk for the next process."""
        with self._lock:
            for file in self._files:
                file.close()


class _File:
    """One file of a journal, locked while it is open."""

    def __init__(self, path: Path, handle: int, pending: list[Record]) -> None:
        self.path, self.id, self.pending = path, path.stem, pending
        self._handle = handle
        self._unwritten: list[Record] = []  # pending too, and not on the disk, which was full
        self._torn = False

    @classmethod
    def create(cls, folder: Path) -> "_File":
        """Makes a file whose name sorts behind those that are there: order must not depend on a clock.

        Raises:
            OSError: the folder cannot be written to, or its disk knows no locks.
        """
        for _ in range(20):
            last = max((path.name[:8] for path in folder.glob(f"*{SUFFIX}")), default="0")
            path = folder / f"{int(last) + 1:08d}-{uuid4().hex}{SUFFIX}"
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
            if _locked(handle, path):
                _keep_name(path)
                return cls(path, handle, [])
            os.close(handle)  # another process looked at it in this very moment, and removes it
        raise OSError(f"no file in {folder} can be locked")

    @classmethod
    def take(cls, path: Path) -> "_File | None":
        """Returns the file if its process is dead."""
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError:
            return None
        if not _locked(handle, path):
            os.close(handle)
            return None
        return cls(path, handle, _read(path))

    def append(self, records: list[Record]) -> None:
        self.pending += records
        self._unwritten += records
        data = "".join(to_line(record) for record in self._unwritten).encode("utf-8", "replace")
        start = 0
        try:
            start = os.fstat(self._handle).st_size
            if start + len(data) > MAX_BYTES:
                raise OSError("the journal has grown too long")
            _write(self._handle, (b"\n" if self._torn else b"") + data)
        except OSError as problem:
            self._cut(start)
            log.error("the journal cannot be written: %s", type(problem).__name__)
            raise RemansoError("history_full") from None
        self._unwritten, self._torn = [], False

    def remove(self, gone: set[tuple[str, int]], *, shrink: bool) -> None:
        left = [record for record in self.pending if (record.journal, record.seq) not in gone]
        if len(left) == len(self.pending):
            return
        self.pending = left
        self._unwritten = [record for record in self._unwritten if record in left]
        if not left:
            os.ftruncate(self._handle, 0)
        elif shrink or (os.fstat(self._handle).st_size > SHRINK_BYTES and len(left) < 100):
            self._shrink()

    def _shrink(self) -> None:
        """Puts a file with the pending records alone in the place of this one, locked before anyone can see it."""
        new = self.path.with_suffix(".new")
        data = "".join(to_line(record) for record in self.pending).encode("utf-8", "replace")
        handle = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_APPEND, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(handle, data)
            os.replace(new, self.path)
            _keep_name(self.path)
        except OSError as problem:
            log.warning("the journal cannot be shortened: %s", type(problem).__name__)
            os.close(handle)
            new.unlink(missing_ok=True)
            return
        os.close(self._handle)
        self._handle, self._unwritten, self._torn = handle, [], False

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._handle, size)
        except OSError:
            self._torn = True  # the next record starts on a line of its own

    def close(self) -> None:
        if not self.pending:
            self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = -1  # the number may soon be another file's


def _locked(handle: int, path: Path) -> bool:
    """Locks an open file, and returns whether that worked and the path still leads to it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = os.stat(path)
    except OSError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)


def _read(path: Path) -> list[Record]:
    """Returns the records of a file. A last line without its end was never acknowledged, and is left out."""
    *lines, _half = path.read_bytes().split(b"\n")
    records, broken = [], 0
    for line in lines:
        try:
            if line:
                records.append(from_line(line.decode("utf-8")))
        except (ValueError, TypeError):
            broken += 1
    if broken:
        log.error("%d lines of the journal %s cannot be read", broken, path.name)
    return records


def _keep_name(path: Path) -> None:
    """Makes the name of a new file outlive a power cut."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
