"""The four stores: one suite over all, and what is each one's own."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import huggingface_hub.constants
import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from history import Message, Store, open_store
from history.stores import AwayError, Change, ConflictError
from history.stores.datasets import DatasetStore
from history.stores.hub import _before, told, within
from history.stores.sql import HEAD, MIGRATIONS, _engine, metadata, migrate
from tests.services.hub import Fault
from tests.services.places import NAME, Place
from tests.services.stores import TOKEN, Dataset, StoreHub

pytest_plugins = ["tests.services.places"]
ANA, BEA = "a" * 64, "b" * 64
ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    store = place.store()
    yield store
    store.close()


def put(store: Store, owner: str, **texts: str) -> None:
    store.append([Change(owner, id, text, "") for id, text in texts.items()])


def texts(store: Store, owner: str) -> dict[str, str]:
    return {id: one.text for id, one in store.load(owner).items()}


def test_what_is_written_is_read_back(store: Store) -> None:
    assert store.load(ANA) == {} and store.owners() == []
    put(store, ANA, **{ONE: "«á»\n🙂", TWO: "b"})
    assert texts(store, ANA) == {ONE: "«á»\n🙂", TWO: "b"}
    assert store.load(ANA, [TWO, "3" * 32]).keys() == {TWO}
    assert store.load(BEA) == {} and store.owners() == [ANA]


def test_a_document_is_replaced_by_whoever_saw_it_last_alone(store: Store) -> None:
    put(store, ANA, **{ONE: "a"})
    seen = store.load(ANA)[ONE].version
    store.append([Change(ANA, ONE, "b", seen)])
    for late in (Change(ANA, ONE, "c", seen), Change(ANA, ONE, "c", ""), Change(ANA, ONE, None, seen)):
        with pytest.raises(ConflictError):
            store.append([late])
    assert texts(store, ANA) == {ONE: "b"}


def test_nothing_is_written_when_one_of_several_has_changed(store: Store) -> None:
    put(store, ANA, **{ONE: "a"})
    with pytest.raises(ConflictError):
        store.append([Change(ANA, ONE, "b", ""), Change(ANA, TWO, "new", "")])
    with pytest.raises(ConflictError):
        store.append([Change(ANA, ONE, "a", "99", same=True), Change(ANA, TWO, "new", "")])
    assert texts(store, ANA) == {ONE: "a"}


def test_what_has_to_stay_as_it_is_is_left_as_it_is(store: Store) -> None:
    put(store, ANA, **{ONE: "a"})
    seen = store.load(ANA)[ONE]
    store.append([Change(ANA, ONE, seen.text, seen.version, same=True), Change(ANA, TWO, "b", "")])
    assert store.load(ANA)[ONE] == seen and texts(store, ANA)[TWO] == "b"


def test_what_is_deleted_can_be_read_nowhere(store: Store, place: Place) -> None:
    put(store, ANA, **{ONE: "alpaca", TWO: "b"})
    put(store, BEA, **{ONE: "c"})
    for _ in range(2):  # a second time does no harm
        store.delete(ANA, [ONE])
        assert store.left(ANA, [ONE]) == [] and texts(store, ANA) == {TWO: "b"}
    if place.hub:
        for repo in place.hub.datasets.values():
            repo.collect()
    assert place.kind == "bucket" or b"alpaca" not in place.at_rest()
    store.delete(ANA)
    assert store.left(ANA) == [] and store.owners() == [BEA] and texts(store, BEA) == {ONE: "c"}


@pytest.mark.parametrize("place", ["sqlite", "postgresql", "dataset"], indirect=True)  # a bucket has no locks
def test_of_many_writers_of_one_document_each_is_told_the_truth(store: Store, place: Place) -> None:
    put(store, ANA, **{ONE: ""})
    done = []

    def work(letter: str) -> None:
        mine = place.store()
        while True:
            seen = mine.load(ANA)[ONE]
            try:
                mine.append([Change(ANA, ONE, seen.text + letter, seen.version)])
            except ConflictError:
                continue
            done.append(letter)
            return

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(store, ANA)[ONE]) == sorted(done) == list("abcdef")


@pytest.mark.parametrize("owner", ["../../etc", "a" * 63 + "/", "A" * 64, "", "%2e%2e"])
def test_no_path_leads_out_of_a_store_on_the_hub(hub_place: Place, owner: str) -> None:
    store = hub_place.store()
    for id in (ONE, "../x", "a/b", ""):
        with pytest.raises(AwayError):
            store.append([Change(owner, id, "x", "")])
    with pytest.raises(AwayError):
        store.append([Change(ANA, "../x", "x", "")])


def test_a_public_place_is_refused_at_the_start_and_before_each_write(hub_place: Place) -> None:
    assert hub_place.hub
    store = hub_place.store()
    for repo in (hub_place.hub.datasets[NAME], hub_place.hub.buckets[NAME]):
        repo.private = False
    with pytest.raises(AwayError, match="public"):
        put(store, ANA, **{ONE: "a"})
    assert store.load(ANA) == {} and "PUBLIC" in store.describe()
    with pytest.raises(SystemExit, match="is public"):
        hub_place.store()


def test_a_place_that_the_token_does_not_open_stops_the_start(hub_place: Place) -> None:
    with pytest.raises(SystemExit, match="cannot be read with HF_TOKEN"):
        open_store(hub_place.settings(hf_token="hf_stranger"))


@pytest.mark.parametrize("url", ["mysql://a/b", "hf://models/a/b", "hf://datasets/a", "sqlite://", "file.db"])
def test_a_wrong_address_stops_the_start(sqlite_place: Place, url: str) -> None:
    with pytest.raises(SystemExit, match="HISTORY_URL"):
        open_store(sqlite_place.settings(history_url=url))


def test_a_wrong_address_does_not_show_its_password(sqlite_place: Place) -> None:
    for url in ("mysql://me:secreto@host/x", "postgresql://me:secreto@host:port/x"):
        with pytest.raises(SystemExit) as stopped:
            open_store(sqlite_place.settings(history_url=url))
        assert "secreto" not in str(stopped.value)


def test_the_server_starts_while_the_hub_is_away(hub_place: Place) -> None:
    hub_place.fail(Fault("api", "status", times=1, code=500))
    assert hub_place.store().owners() == []


@pytest.mark.parametrize("fault", [("status", 429), ("status", 500), ("drop", 0), ("drop_after", 0), ("truncate", 0)])
def test_what_the_hub_does_to_a_write_is_told_by_its_kind_alone(
    hub_place: Place, fault: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"history.stores.{hub_place.kind}s.WORK_SECONDS", 0.5)  # the library tries again for 23 s
    store = hub_place.store()
    hub_place.fail(Fault(hub_place.documents_request(), fault[0], times=100, code=fault[1]))
    with pytest.raises((AwayError, ConflictError)) as told:
        put(store, ANA, **{ONE: "alpaca"})
    assert "alpaca" not in str(told.value) and told.value.__cause__ is None


LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset("owner/kept", split="train", token="hf_known", cache_dir=sys.argv[1])
print(json.dumps([row["messages"][0]["text"] for row in rows] + [rows.column_names]))
"""


@pytest.mark.parametrize("hub_place", ["dataset"], indirect=True)
def test_a_dataset_opens_with_the_library_that_people_use(hub_place: Place, tmp_path: Path) -> None:
    assert hub_place.hub
    archive = hub_place.archive()
    ana = archive.owner(secret=archive.new_secret())
    archive.consent(ana, True)
    for text in ("hola", "adiós"):  # the first without a reply, the second with one: both have the same types
        answer = [Message("assistant", "te leo", finish="stop")] if text == "adiós" else []
        assert archive.record(ana, uuid4().hex, None, [Message("user", text), *answer])
    assert archive.close(20)
    environment = {**os.environ, "HF_ENDPOINT": hub_place.hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD, str(tmp_path / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, columns = json.loads(done.stdout)
    assert sorted(said) == ["adiós", "hola"] and {"title", "messages", "ratings"} <= set(columns)


def test_a_person_whose_files_are_large_is_deleted_with_their_large_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StoreHub(tmp_path, regular_bytes=100) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        repo = hub.datasets[NAME] = Dataset()
        store = DatasetStore(NAME, TOKEN)
        put(store, ANA, **{ONE: "x" * 1000})
        assert repo.large
        store.delete(ANA)
        assert store.left(ANA) == [] and not any(row["size"] == 1000 for row in repo.large.values())


@pytest.mark.parametrize("hub_place", ["dataset"], indirect=True)
def test_a_deletion_is_not_believed_while_another_revision_holds_the_file(hub_place: Place) -> None:
    assert hub_place.hub
    store, repo = hub_place.store(), hub_place.hub.datasets[NAME]
    put(store, ANA, **{ONE: "a"})
    repo.refs["backup"] = repo.refs["main"]
    store.delete(ANA)
    assert [place.split(":")[1] for place in store.left(ANA)] == [f"v1/{ANA}/{ONE}.json"]


def test_two_processes_may_open_an_empty_database_at_once(sql_place: Place) -> None:
    stores = [sql_place.store() for _ in range(4)]
    threads = [
        threading.Thread(target=put, args=(store, ANA), kwargs={str(i) * 32: "x"}) for i, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts(stores[0], ANA)) == 4


def test_the_migrations_make_the_schema_that_the_code_uses(sql_place: Place) -> None:
    engine = _engine(sql_place.url)
    migrate(engine)
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD
    with engine.begin() as connection:
        connection.execute(sql.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(AwayError):  # a newer program has been here: nothing is changed
        sql_place.store().load(ANA)
    engine.dispose()


def test_a_failure_of_the_hub_s_client_is_told_without_its_text() -> None:
    with pytest.raises(AwayError) as failed, told():
        raise ValueError("alpaca")
    assert str(failed.value) == "ValueError" and failed.value.__suppress_context__


def test_work_that_hangs_is_left_behind_and_sends_nothing_more() -> None:
    later: list[str] = []

    def work() -> None:
        time.sleep(1.5)
        try:
            _before(httpx2.Request("GET", "http://127.0.0.1:9"))
        except AwayError:
            later.append("refused")

    began = time.monotonic()
    with pytest.raises(AwayError, match="too long"):
        within(0.1, work)
    assert time.monotonic() - began < 1.4
    time.sleep(0.7)
    assert later == ["refused"]


def test_a_database_s_error_is_told_without_the_row(sql_place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store, engine = sql_place.store(), _engine(sql_place.url)
    put(store, ANA, **{ONE: "a"})
    with engine.begin() as connection:  # PostgreSQL puts the whole row into what it says about these
        connection.execute(sql.text("DROP TABLE documents"))
        connection.execute(
            sql.text(
                "CREATE TABLE documents (owner VARCHAR(64), id VARCHAR(32), version INTEGER, text TEXT, "
                "extra TEXT NOT NULL, CHECK (length(text) < 3))"
            )
        )
    for text in ("alpaca", "al"):
        with pytest.raises((AwayError, ConflictError)) as failed:
            put(store, ANA, **{ONE: text})
        assert "al" not in str(failed.value).replace("already", "") and failed.value.__suppress_context__
    with engine.begin() as connection:
        connection.execute(sql.text("DROP TABLE documents"))
    with pytest.raises(AwayError) as failed:
        put(store, ANA, **{ONE: "alpaca"})
    assert str(failed.value).isidentifier() and "alpaca" not in caplog.text  # its kind alone, and no statement
    engine.dispose()
