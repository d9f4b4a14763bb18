"""What a person can do with what they keep, over all four stores; and what goes wrong meanwhile."""

import json
import logging
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from errors import RemansoError
from history import Archive, Conversation, Message, Receipt, from_json, to_json
from history import mover as mover_module
from history.journal import Journal
from history.mover import Mover
from tests.services.hub import Fault
from tests.services.places import NAME, Place

pytest_plugins = ["tests.services.places"]


def said(*texts: str) -> list[Message]:
    return [
        Message("user", text) if i % 2 == 0 else Message("assistant", text, finish="stop")
        for i, text in enumerate(texts)
    ]


def someone(archive: Archive, *, yes: bool = True) -> str:
    owner = archive.owner(secret=archive.new_secret())
    if yes:
        archive.consent(owner, True)
    return owner


def kept(archive: Archive, owner: str, *texts: str, title: str | None = None) -> str:
    """Keeps a conversation and returns its id."""
    id = uuid4().hex
    assert archive.record(owner, id, title, said(*texts))
    return id


def texts(archive: Archive, owner: str, id: str) -> list[str]:
    return [message.text for message in archive.open(owner, id).messages]


def settle(archive: Archive, seconds: float = 30) -> None:
    assert archive._mover.flush(seconds)


def stored_for_good(archive: Archive) -> None:
    """Waits until the journal is empty: in a bucket, until what was written was seen there a while later."""
    deadline = time.monotonic() + 30
    while archive._journal.pending() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert archive._journal.pending() == []


# Consent


def test_without_consent_nothing_is_written_anywhere(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive, yes=False)
    assert archive.consented(ana) is None
    assert not archive.record(ana, uuid4().hex, None, said("alpaca"))
    with pytest.raises(RemansoError, match="history_off"):
        archive.import_(ana, to_json(Conversation(said("alpaca"))))
    assert archive.close(10) and b"alpaca" not in place.at_rest() and place.documents() == {}


def test_consent_is_a_record_with_its_time_and_version(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    consent = archive.consented(ana)
    assert consent and consent.version == "1" and abs(consent.time - datetime.now(UTC)) < timedelta(minutes=1)
    settle(archive)
    stored = place.documents()[f"{ana}/person"]
    assert stored["yes"] and stored["since"] == consent.time.isoformat(timespec="microseconds")


def test_withdrawn_consent_ends_all_writing_and_deletes_nothing(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    id = kept(archive, ana, "hola")
    assert archive.consent(ana, False) is None
    assert not archive.record(ana, id, None, said("hola", "alpaca"))
    with pytest.raises(RemansoError, match="history_off"):
        archive.rename(ana, id, "alpaca")
    with pytest.raises(RemansoError, match="history_off"):
        archive.rate(ana, id, "0" * 32, True, "alpaca")
    settle(archive)
    assert texts(archive, ana, id) == ["hola"] and b"alpaca" not in place.at_rest()
    archive.consent(ana, True)
    assert archive.record(ana, id, None, [*archive.open(ana, id).messages, *said("otra")])
    assert texts(archive, ana, id) == ["hola", "otra"]


def test_consent_that_was_withdrawn_elsewhere_stops_what_is_still_on_its_way(place: Place) -> None:
    here, there = place.archive(), place.archive()
    ana = someone(here)
    id = kept(here, ana, "hola")
    settle(here)
    assert there.consented(ana)  # and knows it for a minute
    here.consent(ana, False)
    settle(here)
    there.record(ana, id, None, [*said("alpaca")])
    settle(there)
    assert b"alpaca" not in json.dumps(place.documents()).encode()


def test_words_that_have_changed_need_a_new_consent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = place.archive()
    ana = someone(archive)
    monkeypatch.setattr("history.archive.CONSENT_VERSION", "2")
    assert archive.consented(ana) is None and not archive.record(ana, uuid4().hex, None, said("a"))
    assert archive.consent(ana, True)


def test_without_an_address_there_is_no_history() -> None:
    from config import Settings  # noqa: PLC0415

    archive = Archive(Settings(history_url=""))
    ana = archive.owner(secret=archive.new_secret())
    assert not archive.enabled and archive.consent(ana, True) is None and archive.summaries(ana) == []
    assert not archive.record(ana, uuid4().hex, None, said("a"))
    assert archive.delete_all(ana).confirmed and archive.close()


# Keeping and finding


def test_a_reload_right_after_a_reply_finds_it(place: Place) -> None:
    archive = place.archive(history_commit_seconds=3600)
    ana = someone(archive)
    settle(archive)  # from here on, a dataset's next commit is an hour away
    id = kept(archive, ana, "hola", "te leo")
    assert texts(archive, ana, id) == ["hola", "te leo"]
    assert [summary.title for summary in archive.summaries(ana)] == ["hola"]


def test_a_restarted_server_finds_it_again(place: Place) -> None:
    first = place.archive()
    secret = first.new_secret()
    ana = first.owner(secret=secret)
    first.consent(ana, True)
    messages = [
        *said("hola", "te leo"),
        Message("user", "¿y ahora?"),
        Message("assistant", "…", aside="☎ 024", finish="length"),
    ]
    id = uuid4().hex
    first.record(ana, id, None, messages)
    assert first.close(20)
    second = place.archive()
    assert second.owner(secret=secret) == ana and second.consented(ana)
    opened = second.open(ana, id).messages
    assert opened == messages and [m.id for m in opened] == [m.id for m in messages]


def test_undo_retry_and_edit_leave_no_trace_of_what_was_undone(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    messages, id = said("a", "b", "alpaca", "d"), uuid4().hex
    archive.record(ana, id, None, messages)
    archive.rate(ana, id, messages[3].id, True, "alpaca")
    settle(archive)
    archive.record(ana, id, None, [*messages[:2], *said("c2", "d2")])
    settle(archive)
    assert texts(archive, ana, id) == ["a", "b", "c2", "d2"] and archive.ratings(ana, id) == {}
    assert b"alpaca" not in json.dumps(place.documents()).encode()


def test_only_what_is_new_goes_into_the_journal(sqlite_place: Place) -> None:
    archive = sqlite_place.archive()
    ana = someone(archive)
    settle(archive)
    messages, id, lengths = said(*["palabra " * 100] * 40), uuid4().hex, []
    for count in range(2, 41, 2):
        archive.record(ana, id, None, messages[:count])
        lengths.append(len(archive._journal.pending()[-1].data["add"]) if archive._journal.pending() else 2)
    assert set(lengths) == {2} and len(texts(archive, ana, id)) == 40


def test_another_device_and_a_list_with_the_last_changed_first(place: Place) -> None:
    phone, laptop = place.archive(), place.archive()
    ana = phone.owner(login="sub-7")
    assert ana == laptop.owner(login="sub-7") != laptop.owner(login="sub-8")
    phone.consent(ana, True)
    ids = [kept(phone, ana, f"conversación {i}") for i in range(3)]
    settle(phone)
    assert [one.id for one in laptop.summaries(ana)] == ids[::-1]
    laptop.record(ana, ids[0], None, [*laptop.open(ana, ids[0]).messages, *said("sigo")])
    settle(laptop)
    first = phone.summaries(ana)[0]
    assert (first.id, first.messages, first.title) == (ids[0], 2, "conversación 0")


def test_two_devices_in_one_conversation_lose_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("history.stores.buckets.SETTLE_SECONDS", 1.0)
    phone, laptop = place.archive(), place.archive()
    ana = someone(phone)
    id = kept(phone, ana, "hola", "te leo")
    settle(phone)
    here, there = phone.open(ana, id).messages, laptop.open(ana, id).messages
    phone.record(ana, id, None, [*here, *said("desde el móvil")])
    laptop.record(ana, id, None, [*there, *said("desde el portátil")])
    stored_for_good(phone)
    stored_for_good(laptop)
    assert sorted(texts(phone, ana, id)) == sorted(["hola", "te leo", "desde el móvil", "desde el portátil"])


def test_a_title_is_one_line_and_can_be_taken_back(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    id = kept(archive, ana, "una primera frase que es bastante más larga que un título de verdad")
    assert archive.summaries(ana)[0].title == "una primera frase que es bastante más larga que un título…"
    archive.rename(ana, id, "  Mi\ntítulo\x00 \u202e ")
    assert archive.summaries(ana)[0].title == "Mi título"
    archive.rename(ana, id, "")
    assert archive.summaries(ana)[0].title.startswith("una primera frase")


def test_search_finds_words_whatever_their_accents_and_capitals(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    one = kept(archive, ana, "Anoche lloré " + "mucho " * 50 + "por la CANCIÓN de mi abuela", "Eso duele.")
    kept(archive, ana, "otra cosa")
    (found,) = archive.search(ana, "cancion ABUELA")
    assert found.id == one and "CANCIÓN de mi abuela" in found.excerpt and found.excerpt.startswith("…")
    assert len(found.excerpt) < 200
    assert archive.search(ana, "canción perro") == [] and archive.search(ana, "  ") == []


def test_a_thumb_is_kept_with_its_word_replaced_and_taken_back(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    messages, id = said("a", "b"), uuid4().hex
    archive.record(ana, id, None, messages)
    archive.rate(ana, id, messages[1].id, True, "me ayudó")
    archive.rate(ana, id, messages[1].id, False, "ya no")
    archive.rate(ana, id, "f" * 32, True)  # no such message
    settle(archive)
    ((about, rating),) = archive.ratings(ana, id).items()
    assert about == messages[1].id and not rating.up and rating.word == "ya no"
    archive.rate(ana, id, about, None)
    assert archive.ratings(ana, id) == {}


# Taking along


def test_everything_is_exported_and_imports_back_unchanged(place: Place) -> None:
    archive = place.archive()
    ana, bea = someone(archive), someone(archive)
    messages, id = said("«hola»\n- una", "te leo", "=1+1"), uuid4().hex
    archive.record(ana, id, "Un título", messages)
    archive.rate(ana, id, messages[1].id, True, "bien")
    kept(archive, ana, "segunda")
    exported = archive.export_all(ana, "json", "es")
    imported = archive.import_(bea, exported)
    assert [one.title for one in imported] == ["Un título", "segunda"]
    assert archive.export_all(bea, "json", "es") == exported
    assert archive.open(bea, imported[0].id).messages == messages and archive.ratings(bea, imported[0].id)
    assert {one.id for one in archive.summaries(ana)}.isdisjoint(one.id for one in archive.summaries(bea))
    readable = archive.export_all(ana, "md", "en")
    assert "# Un título" in readable and "**Me**" in readable and "segunda" in readable


def test_one_conversation_s_export_imports_too(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    conversation = Conversation(said("a", "b"))
    (one,) = archive.import_(ana, to_json(conversation))
    assert archive.open(ana, one.id).messages == conversation.messages == from_json(to_json(conversation)).messages


def test_an_export_from_before_messages_had_ids_imports() -> None:
    data = json.loads(to_json(Conversation(said("a", "b"))))
    for row in data["messages"]:
        del row["id"]
    first, second = from_json(json.dumps(data)).messages
    assert first.text == "a" and first.id != second.id


# Letting go


def test_what_is_deleted_is_gone_and_stays_gone(place: Place) -> None:
    archive, elsewhere = place.archive(), place.archive()
    ana = someone(archive)
    one, two = kept(archive, ana, "alpaca", title="alpaca"), kept(archive, ana, "b")
    settle(archive)
    opened = elsewhere.open(ana, one).messages
    receipt = archive.delete(ana, one)
    assert (receipt.deleted, receipt.confirmed) == (1, True)
    assert receipt.remains == ("collection" if place.kind == "dataset" else "nothing")
    with pytest.raises(RemansoError, match="history_missing"):
        archive.open(ana, one)
    elsewhere.record(ana, one, None, [*opened, *said("y más")])  # by somebody who did not know
    elsewhere._mover.flush(20)
    assert [summary.id for summary in elsewhere.summaries(ana)] == [two]
    if place.hub:
        for repo in place.hub.datasets.values():
            repo.collect()
    assert place.kind == "bucket" or b"alpaca" not in place.at_rest()


def test_everything_of_a_person_is_deleted_with_their_consent(place: Place) -> None:
    archive, elsewhere = place.archive(), place.archive()
    ana, bea = someone(archive), someone(archive)
    ids = [kept(archive, ana, f"alpaca {i}") for i in range(3)]
    kept(archive, bea, "b")
    settle(archive)
    assert elsewhere.consented(ana)
    elsewhere.record(ana, ids[0], None, said("alpaca"))  # on its way when the rest is deleted
    receipt = archive.delete_all(ana)
    elsewhere._mover.flush(20)
    again = archive.delete_all(ana)
    assert receipt.confirmed and receipt.deleted == 3 and again.confirmed
    assert archive.consented(ana) is None and archive.summaries(ana) == []
    assert [path for path in place.documents() if path.startswith(ana)] == []
    assert len(archive.summaries(bea)) == 1
    archive.consent(ana, True)  # a new beginning is not touched by what is left of the old one
    kept(archive, ana, "nueva")
    settle(archive)
    assert [one.title for one in archive.summaries(ana)] == ["nueva"]


def test_a_deletion_that_is_replayed_spares_a_new_beginning(place: Place) -> None:
    archive = place.archive()
    ana = someone(archive)
    kept(archive, ana, "vieja")
    settle(archive)
    epochs = archive._person(ana).epochs  # type: ignore[union-attr]
    archive.delete_all(ana)
    archive.consent(ana, True)
    kept(archive, ana, "nueva")
    settle(archive)
    archive._write(ana, "forget", {"epochs": epochs})  # as a crash between store and journal would have it done again
    settle(archive)
    assert [one.title for one in archive.summaries(ana)] == ["nueva"]


def test_words_deleted_while_the_store_is_away_leave_the_disk_at_once(hub_place: Place) -> None:
    archive = hub_place.archive()
    ana = someone(archive)
    settle(archive)
    hub_place.fail(Fault("api", "status", times=10**6, code=400))
    for deletion in ("delete", "delete_all"):
        id = kept(archive, ana, "alpaca")
        assert b"alpaca" in hub_place.at_rest()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("history.reading.WAIT_SECONDS", 0.5)
            receipt = archive.delete(ana, id) if deletion == "delete" else archive.delete_all(ana)
        assert not receipt.confirmed and b"alpaca" not in hub_place.at_rest()
    assert hub_place.hub
    hub_place.hub.faults.clear()
    settle(archive)
    assert hub_place.documents() == {}


def test_what_nobody_touched_for_so_many_days_is_deleted(place: Place) -> None:
    today = datetime.now(UTC)
    old = place.archive(now=lambda: today - timedelta(days=40))
    ana, bea = someone(old), someone(old)
    stale, touched = kept(old, ana, "vieja"), kept(old, ana, "vieja, pero seguida")
    kept(old, bea, "vieja")
    assert old.close(20)
    archive = place.archive(history_days=30)
    archive.record(ana, touched, None, [*archive.open(ana, touched).messages, *said("sigo")])
    settle(archive)
    assert archive.purge() == 2
    assert [one.id for one in archive.summaries(ana)] == [touched] and stale not in str(place.documents().keys())
    assert [path for path in place.documents() if path.startswith(bea)] == []  # nor a consent that nothing is kept by


# What goes wrong


FAULTS = [("status", 429), ("status", 500), ("status", 412), ("drop", 0), ("drop_after", 0), ("truncate", 0)]


@pytest.fixture
def marked(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Everything that is logged or printed in this test, at every level, holds no word of a person."""
    caplog.set_level(logging.DEBUG)
    yield
    shown = capfd.readouterr()
    assert "alpaca" not in caplog.text + shown.out + shown.err


@pytest.mark.usefixtures("marked")
@pytest.mark.parametrize("fault", FAULTS)
def test_every_message_is_stored_once_whatever_the_hub_does(
    hub_place: Place, fault: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover_module, "FIRST_WAIT", 0.02)
    archive = hub_place.archive()
    ana = someone(archive)
    id, messages = uuid4().hex, []
    for i in range(2):
        hub_place.fail(Fault(hub_place.documents_request(), fault[0], times=1, code=fault[1]))
        messages += said(f"alpaca {i}")
        began = time.monotonic()
        assert archive.record(ana, id, "alpaca", messages)
        assert time.monotonic() - began < 0.5  # nobody waits for the Hub
        settle(archive)
    stored = hub_place.documents()[f"{ana}/{id}"]
    assert [row["text"] for row in stored["messages"]] == [f"alpaca {i}" for i in range(2)]
    assert hub_place.hub and hub_place.hub.faults[-1].times == 0
    assert texts(hub_place.archive(), ana, id) == [f"alpaca {i}" for i in range(2)]


@pytest.mark.usefixtures("marked")
def test_a_hub_that_hangs_holds_nobody_up(hub_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover_module, "FIRST_WAIT", 0.02)
    archive = hub_place.archive()
    ana = someone(archive)
    settle(archive)
    for module in ("history.stores.datasets", "history.stores.buckets"):
        monkeypatch.setattr(f"{module}.WORK_SECONDS", 1.0)
    monkeypatch.setattr("history.reading.WAIT_SECONDS", 0.3)
    hub_place.fail(Fault("api", "delay", times=3, seconds=4))
    began = time.monotonic()
    id = kept(archive, ana, "alpaca")
    assert archive.consented(ana) and time.monotonic() - began < 0.5
    time.sleep(0.3)  # the mover hangs now
    with pytest.raises(RemansoError, match="history_away"):
        archive.open(ana, id)
    assert time.monotonic() - began < 2
    monkeypatch.setattr("history.reading.WAIT_SECONDS", 20)
    settle(archive)
    assert texts(archive, ana, id) == ["alpaca"] and archive.away == ""


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.usefixtures("marked")
def test_a_hub_that_is_away_for_an_hour_is_not_pestered_and_loses_nothing(
    hub_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = hub_place.archive()
    ana = someone(archive)
    settle(archive)
    archive.close(1)
    clock, tries, store, journal = Clock(), [], hub_place.store(), Journal(hub_place.folder / "journal" / "x")

    class Ours(Mover):
        def _sleep(self, seconds: float) -> None:
            clock.now += seconds
            if clock.now - 1000 > 3600 and hub_place.hub:
                hub_place.hub.faults.clear()
            self._closing = clock.now - 1000 > 3800

    def load(*given: object) -> object:
        tries.append(clock.now)
        return real(*given)  # type: ignore[arg-type]

    real = store.load
    monkeypatch.setattr(store, "load", load)
    monkeypatch.setattr(mover_module, "time", clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "_journal", journal)
        patch.setattr(archive, "_closed", threading.Event())
        ids = [kept(archive, ana, f"alpaca {i}") for i in range(20)]
    hub_place.fail(Fault("api", "status", times=10**6, code=400))
    Ours(journal, store)._work()
    assert 50 < len([at for at in tries if at < 4600]) < 80  # once a minute, after the first few
    stored = hub_place.documents()
    assert [stored[f"{ana}/{id}"]["messages"][0]["text"] for id in ids] == [f"alpaca {i}" for i in range(20)]
    assert journal.pending() == []


@pytest.mark.parametrize("hub_place", ["dataset"], indirect=True)
def test_commits_are_far_apart_and_hold_what_many_people_said(hub_place: Place) -> None:
    place = hub_place
    assert place.hub
    archive = place.archive(history_commit_seconds=2)
    people = [someone(archive) for _ in range(5)]
    began = time.monotonic()
    while time.monotonic() - began < 3.5:
        for ana in people:
            kept(archive, ana, "hola")
        time.sleep(0.2)
    commits = [line for line in place.hub.log if "/commit/" in line]
    assert 1 <= len(commits) <= 3
    assert archive.close(20)
    assert sum(len(archive_again.summaries(ana)) for archive_again in [place.archive()] for ana in people) >= 50


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A real filesystem of 1 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount the small filesystem")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.usefixtures("marked")
def test_a_full_disk_is_told_and_what_was_said_is_stored_all_the_same(
    hub_place: Place, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover_module, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(mover_module, "LONGEST_WAIT", 0.05)
    with tiny_disk(tmp_path_factory.mktemp("disk")) as disk:
        archive = hub_place.archive(history_journal=disk / "journal")
        ana = someone(archive)
        settle(archive)
        hub_place.fail(Fault("api", "status", times=10**6, code=400))
        id, messages = uuid4().hex, said("alpaca 0")
        archive.record(ana, id, None, messages)
        filler = (disk / "filler").open("wb", buffering=0)
        with pytest.raises(OSError):
            while True:
                filler.write(b"x" * 4096)
        messages += said("alpaca 1 " * 3000)
        with pytest.raises(RemansoError, match="history_full"):
            archive.record(ana, id, None, messages)
        again = Journal(disk / "journal" / "other")._folder.parent  # nothing torn was left behind
        lines = [line for path in again.rglob("*.jsonl") for line in path.read_bytes().splitlines()]
        assert all(json.loads(line) for line in lines)
        filler.truncate(0)
        messages += said("alpaca 2")
        assert archive.record(ana, id, None, messages)  # with room again, both are on the disk
        pending = "".join(path.read_text() for path in disk.rglob("*.jsonl"))
        assert "alpaca 1" in pending and "alpaca 2" in pending
        assert hub_place.hub
        hub_place.hub.faults.clear()
        settle(archive)
        assert texts(archive, ana, id) == [message.text for message in messages]
        archive.close(5)


def test_a_half_written_last_line_is_left_out_and_the_rest_is_replayed(hub_place: Place) -> None:
    archive = hub_place.archive()
    ana = someone(archive)
    settle(archive)
    hub_place.fail(Fault("api", "status", times=10**6, code=400))
    id = kept(archive, ana, "hola", "te leo")
    (path,) = (hub_place.folder / "journal").rglob("*.jsonl")
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[-1][:-20])
    archive._journal._own.pending.clear()  # as if the process had died: nothing is tidied up
    archive._journal._own.close = lambda: None  # type: ignore[method-assign]
    archive.close(0)
    os.close(archive._journal._own._handle)
    assert hub_place.hub
    hub_place.hub.faults.clear()
    again = hub_place.archive()
    assert texts(again, ana, id) == ["hola", "te leo"]
    settle(again)
    assert texts(again, ana, id) == ["hola", "te leo"]


def test_a_clock_that_jumps_reorders_nothing_and_deletes_nothing(sqlite_place: Place) -> None:
    today = datetime.now(UTC)
    jumps = iter([0, 400, -400, 3, -3, 4000, 0, 0] + [0] * 50)
    archive = sqlite_place.archive(now=lambda: today + timedelta(days=next(jumps)), history_days=30)
    ana = someone(archive)
    id, messages, seen = uuid4().hex, list[Message](), list[datetime]()
    for i in range(6):
        messages += said(f"{i}")
        archive.record(ana, id, None, messages)
        seen.append(archive.summaries(ana)[0].updated)
    assert texts(archive, ana, id) == [str(i) for i in range(6)] and seen == sorted(seen) and len(set(seen)) == 6
    settle(archive)
    late = sqlite_place.archive(history_days=30)
    late._eraser._now = lambda: today + timedelta(days=9000)  # it jumps while the server runs
    assert late.purge() == 0


def test_a_document_that_somebody_spoilt_stops_nobody_else(place: Place) -> None:
    from history.stores import Change  # noqa: PLC0415

    archive = place.archive()
    ana, bea = someone(archive), someone(archive)
    id = kept(archive, ana, "hola")
    settle(archive)
    store = place.store()
    store.append([Change(ana, id, '{"schema": "other"}', store.load(ana)[id].version)])
    archive.record(ana, id, None, said("más"))
    other = kept(archive, bea, "sigo")
    settle(archive)
    assert texts(archive, bea, other) == ["sigo"]
    with pytest.raises(RemansoError, match="history_away"):
        archive.open(ana, id)


@pytest.mark.parametrize("hub_place", ["bucket"], indirect=True)
def test_what_another_process_overwrote_in_a_bucket_is_written_again(
    hub_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("history.stores.buckets.SETTLE_SECONDS", 1.0)
    assert hub_place.hub
    archive = hub_place.archive()
    ana = someone(archive)
    id = kept(archive, ana, "hola")
    stored_for_good(archive)
    files = hub_place.hub.buckets[NAME].files
    before = dict(files)
    archive.record(ana, id, None, [*archive.open(ana, id).messages, *said("más")])
    settle(archive)
    files.update(before)  # another process had read it earlier, and writes it now
    assert texts(archive, ana, id) == ["hola", "más"]  # from the journal, which still has it
    stored_for_good(archive)
    assert [row["text"] for row in hub_place.documents()[f"{ana}/{id}"]["messages"]] == ["hola", "más"]


@pytest.mark.parametrize("hub_place", ["bucket"], indirect=True)
def test_what_is_written_to_a_bucket_while_everything_is_deleted_elsewhere_is_deleted_too(hub_place: Place) -> None:
    archive, elsewhere = hub_place.archive(), hub_place.archive()
    ana = someone(archive)
    kept(archive, ana, "hola")
    settle(archive)
    bucket: Any = archive._store
    real, receipts = bucket._api.batch_bucket_files, list[Receipt]()

    def batch(*given: object, **more: object) -> None:
        if not receipts:  # between the look at what is there and the write
            receipts.append(elsewhere.delete_all(ana))
        real(*given, **more)

    bucket._api.batch_bucket_files = batch
    kept(archive, ana, "alpaca")
    settle(archive)
    assert receipts[0].confirmed and hub_place.documents() == {}


def test_what_was_undone_before_a_restart_does_not_stay(place: Place) -> None:
    first = place.archive()
    ana = someone(first)
    id, messages = uuid4().hex, said("a", "alpaca")
    first.record(ana, id, None, messages)
    assert first.close(20)
    second = place.archive()
    held = {message.id for message in messages}
    second.record(ana, id, None, [*messages[:1], *said("", "b")[1:]], known=held)
    assert texts(second, ana, id) == ["a", "b"]


def test_a_purge_spares_who_begins_to_talk_meanwhile(sqlite_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC)
    old = sqlite_place.archive(now=lambda: today - timedelta(days=40))
    ana = someone(old)
    kept(old, ana, "vieja")
    assert old.close(20)
    archive = sqlite_place.archive(history_days=30)
    real, begun = archive._eraser._write, list[str]()

    def write(*given: Any, **more: Any) -> None:
        if given[1] != "turn" and not begun:  # after the purge has read what is there
            begun.append(kept(archive, ana, "nueva"))
        real(*given, **more)

    monkeypatch.setattr(archive._eraser, "_write", write)
    archive.purge()
    settle(archive)
    assert [one.title for one in archive.summaries(ana)] == ["nueva"] and archive._reader.holding(ana).person


@pytest.mark.usefixtures("marked")
@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_database_that_is_restarted_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.server
    monkeypatch.setattr(mover_module, "FIRST_WAIT", 0.05)
    archive = place.archive()
    ana = someone(archive)
    settle(archive)
    place.server.stop()
    try:
        began = time.monotonic()
        id = kept(archive, ana, "alpaca")
        assert time.monotonic() - began < 0.5
        with pytest.raises(RemansoError, match="history_away"):
            archive.open(ana, id)
        time.sleep(0.2)
        assert archive.away and "alpaca" not in archive.away
    finally:
        place.server.start()
    settle(archive)
    assert texts(archive, ana, id) == ["alpaca"] and archive.away == ""


def test_a_locked_database_holds_nobody_up(sqlite_place: Place) -> None:
    archive = sqlite_place.archive()
    ana = someone(archive)
    settle(archive)
    other = sqlite3.connect(sqlite_place.folder / "kept.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    id = kept(archive, ana, "hola")
    assert time.monotonic() - began < 0.5
    other.execute("COMMIT")
    other.close()
    settle(archive)
    assert texts(archive, ana, id) == ["hola"]
