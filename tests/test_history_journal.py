"""The local journal: on the disk when it says so, taken over when its process is dead, and free of what is stored."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import RemansoError
from history import journal as journal_module
from history.documents import Document, Holding, Person, Record, dump, from_line, load_document, load_person, to_line
from history.journal import Journal
from tests.conftest import ROOT

OWNER, OTHER = "a" * 64, "b" * 64
AT = "2026-01-01T00:00:00.000000+00:00"


def record(text: str = "x", owner: str = OWNER, kind: str = "turn", conversation: str = "1" * 32) -> Record:
    row = {"id": text.ljust(32, "0")[:32], "role": "user", "text": text, "time": AT, "finish": None, "aside": ""}
    return Record("", 0, kind, owner, AT, "e", conversation, {"add": [row], "drop": [], "title": ""})  # type: ignore[arg-type]


def said(journal: Journal) -> list[str]:
    return [one.data["add"][0]["text"] for one in journal.pending()]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def dead(journal: Journal) -> None:
    """What the system does when a process dies: its locks go, its files stay."""
    for file in journal._files:
        os.close(file._handle)
        file._handle = os.open(os.devnull, os.O_RDWR)


def test_a_record_is_on_the_disk_when_it_was_taken(journal: Journal, tmp_path: Path) -> None:
    first, second = journal.append([record("á\n"), record("b")])
    assert (first.seq, second.seq) == (1, 2) and first.journal == second.journal
    assert [from_line(line) for line in on_disk(tmp_path).decode().splitlines()] == [first, second] == journal.pending()
    assert next(tmp_path.iterdir()).stat().st_mode & 0o077 == 0  # nobody else's business


def test_what_is_stored_leaves_the_disk(journal: Journal, tmp_path: Path) -> None:
    one, two = journal.append([record("alpaca"), record("llama", OTHER)])
    journal.done([one])
    assert said(journal) == ["llama"]
    journal.done([two])
    assert on_disk(tmp_path) == b""


def test_words_leave_the_disk_at_once_when_they_have_to(journal: Journal, tmp_path: Path) -> None:
    one, _ = journal.append([record("alpaca"), record("llama", OTHER)])
    journal.done([one], shrink=True)
    assert b"alpaca" not in on_disk(tmp_path) and b"llama" in on_disk(tmp_path)
    journal.append([record("vicuña")])
    dead(journal)
    again = Journal(tmp_path)
    assert again.adopt() == 2 and said(again) == ["llama", "vicuña"]
    again.close()


def test_a_dead_process_s_file_is_taken_over_by_one_and_a_living_one_s_by_none(tmp_path: Path) -> None:
    old = Journal(tmp_path)
    old.append([record("a"), record("b")])
    one, two = Journal(tmp_path), Journal(tmp_path)
    assert (one.adopt(), two.adopt()) == (0, 0)
    dead(old)
    assert (one.adopt(), two.adopt(), one.adopt()) == (2, 0, 0) and said(one) == ["a", "b"]
    one.append([record("c")])
    assert said(one) == ["a", "b", "c"]
    one.done(one.pending())
    assert len(list(tmp_path.iterdir())) == 2  # their own, empty
    one.close()
    two.close()
    assert list(tmp_path.iterdir()) == []


def test_another_process_cannot_take_what_this_one_holds(journal: Journal, tmp_path: Path) -> None:
    journal.append([record("a")])
    code = "import sys, pathlib, history.journal as j; print(j.Journal(pathlib.Path(sys.argv[1])).adopt())"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "0" and said(journal) == ["a"]


def test_the_order_of_several_dead_processes_is_that_of_their_beginning(tmp_path: Path) -> None:
    for number, text in enumerate("abc"):
        old = Journal(tmp_path)
        old.append([record(text)])
        (path,) = [file.path for file in old._files]
        os.utime(path, (1e9 - number, 1e9 - number))  # the clock went backwards meanwhile
        dead(old)
    new = Journal(tmp_path)
    assert new.adopt() == 3 and said(new) == ["a", "b", "c"]
    new.close()


def test_lines_that_cannot_be_read_cost_nobody_else_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = Journal(tmp_path)
    one, two = old.append([record("alpaca"), record("b")])
    dead(old)
    path = old._own.path
    whole, other = to_line(one).encode(), to_line(two).encode()
    path.write_bytes(b"\xff\xfe\n" + whole[:40] + b"\n{}\n" + other + whole[:-1])
    new = Journal(tmp_path)
    assert new.adopt() == 1 and said(new) == ["b"]
    assert "3 lines" in caplog.text and "alpaca" not in caplog.text
    new.close()


@pytest.fixture
def limit() -> Iterator[None]:
    """No file of this process may grow beyond 4 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_did_not_fit_is_taken_with_the_next_that_does(
    journal: Journal, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = journal.append([record("a")])
    whole = on_disk(tmp_path)
    request.getfixturevalue("limit")
    with pytest.raises(RemansoError, match="history_full"):
        journal.append([record("b" * 9000)])
    assert on_disk(tmp_path) == whole and len(journal.pending()) == 2  # cut back, and kept in memory
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    journal.append([record("c")])
    assert [from_line(line).seq for line in on_disk(tmp_path).decode().splitlines()] == [1, 2, 3]
    journal.done(first)


def test_a_torn_line_that_cannot_be_cut_back_spoils_no_other(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(handle: int, data: bytes) -> None:
        os.write(handle, data[:30])
        raise OSError

    def refuse(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_write", torn)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(RemansoError, match="history_full"):
            journal.append([record("a")])
    journal.append([record("b")])
    dead(journal)
    again = Journal(tmp_path)
    assert again.adopt() == 2 and said(again) == ["a", "b"]
    again.close()


def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Journal(tmp_path / "file" / "journal")


# Applying records


def holding() -> Holding:
    return Holding(Person(True, AT, "1", ["e"]))


def numbered(*records: Record) -> list[Record]:
    return [Record("j", seq, *list(vars(one).values())[2:]) for seq, one in enumerate(records, 1)]


def test_applying_records_again_changes_nothing() -> None:
    records = numbered(record("a"), record("b"), Record("", 0, "title", OWNER, AT, "e", "1" * 32, {"title": "t"}))
    once, again = holding(), holding()
    once.apply(records)
    again.apply([*records, *records, *records[1:]])
    assert once == again and once.documents["1" * 32]
    assert [row["text"] for row in once.documents["1" * 32].messages] == ["a", "b"]


def test_a_record_that_is_replayed_late_does_not_bring_back_what_was_undone_since() -> None:
    first, second = numbered(record("a"), record("b"))
    gone = {"add": [], "drop": [second.data["add"][0]["id"]], "title": ""}
    undo = Record("another", 1, "turn", OWNER, AT, "e", "1" * 32, gone)
    here = holding()
    here.apply([first, second, undo, first, second])
    document = here.documents["1" * 32]
    assert document and [row["text"] for row in document.messages] == ["a"]


def test_a_late_record_of_another_epoch_or_of_a_deleted_conversation_changes_nothing() -> None:
    deleted = Person(True, AT, "1", ["e"], ["1" * 32])
    for person in (None, Person(True, AT, "1", ["new"]), Person(False, AT, "1", ["e"]), deleted):
        here = Holding(person)
        here.apply(numbered(record("a")))
        assert here.documents == {}


def test_documents_come_back_as_they_were() -> None:
    here = holding()
    rated = {"message": "á".ljust(32, "0"), "up": True, "word": "w"}
    here.apply(numbered(record("á"), Record("", 0, "rate", OWNER, AT, "e", "1" * 32, rated)))
    document = here.documents["1" * 32]
    assert document and here.person and document.ratings
    again = load_document(dump(document))
    assert [row["finish"] for row in again.messages] == [""]
    assert dump(again) == dump(document) and load_person(dump(here.person)) == here.person
    with pytest.raises(ValueError):
        load_document(dump(Document("x")).replace("stored/1", "stored/2"))
