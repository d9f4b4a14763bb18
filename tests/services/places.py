"""The four places where conversations can be kept, as fixtures: real SQLite, real PostgreSQL, the Hub's two stores."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import sqlalchemy as sql

from config import Settings
from history import Archive, Store, open_store
from history.stores import buckets
from tests.services.hub import Fault
from tests.services.postgres import Postgres, running_postgres
from tests.services.stores import TOKEN, Bucket, Dataset, StoreHub

KINDS = ("sqlite", "postgresql", "dataset", "bucket")
SALT = "a salt for the tests, long enough"
NAME = "owner/kept"
MEMORY = "/dev/shm"


@dataclass
class Place:
    """One store, and a way to look into it from outside."""

    kind: str
    url: str
    folder: Path
    hub: StoreHub | None = None
    server: Postgres | None = None
    open: list[Archive] = field(default_factory=list)

    def settings(self, **more: Any) -> Settings:
        values = {"history_url": self.url, "history_salt": SALT, "history_journal": self.folder / "journal",
                  "history_commit_seconds": 0, "hf_token": TOKEN, **more}  # fmt: skip
        return Settings(**values)

    def archive(self, now: Callable[[], Any] | None = None, **more: Any) -> Archive:
        """Opens an archive, which the fixture closes."""
        archive = Archive(self.settings(**more), **({"now": now} if now else {}))
        self.open.append(archive)
        return archive

    def store(self) -> Store:
        store = open_store(self.settings())
        assert store
        return store

    def documents(self) -> dict[str, Any]:
        """Returns every document by `owner/id`, as it lies there."""
        store = self.store()
        found = {f"{o}/{id}": json.loads(one.text) for o in store.owners() for id, one in store.load(o).items()}
        store.close()
        return found

    def at_rest(self) -> bytes:
        """Returns everything that lies on disks and on the Hub, for a search after words."""
        parts = [path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()]
        if self.hub:
            parts += [data for repo in self.hub.datasets.values() for data in repo.blobs.values()]
        if self.server:
            engine = sql.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
            with engine.connect() as connection:
                if sql.inspect(connection).has_table("documents"):
                    parts += [str(row).encode() for row in connection.execute(sql.text("SELECT * FROM documents"))]
            engine.dispose()
        return b"\n".join(parts)

    def fail(self, *faults: Fault) -> None:
        assert self.hub
        self.hub.faults += faults

    def documents_request(self) -> str:
        """Returns what the request that writes looks like."""
        return "POST /api/datasets/.*/commit/" if self.kind == "dataset" else "POST /api/buckets/.*/batch"


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one: these tests sync to the disk thousands of times."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


def make_place(kind: str, folder: Path, request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Yields a place of this kind, and closes what was opened there."""
    if kind == "sqlite":
        place = Place(kind, f"sqlite:///{folder}/kept.db", folder)
        yield place
    elif kind == "postgresql":
        server = request.getfixturevalue("postgres")
        place = Place(kind, server.database(), folder, server=server)
        yield place
    else:
        (folder / "hub").mkdir()
        with StoreHub(folder / "hub") as hub:
            hub.datasets[NAME], hub.buckets[NAME] = Dataset(), Bucket()
            patch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
            patch.setattr(buckets, "PACE_SECONDS", 0.0)
            place = Place(kind, f"hf://{kind}s/{NAME}", folder, hub=hub)
            yield place
            hub.faults.clear()
            close(place)
    close(place)


def close(place: Place) -> None:
    for archive in place.open:
        archive.close(0.2)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Each of the four."""
    yield from make_place(request.param, quick_folder, request, monkeypatch)


@pytest.fixture(params=("dataset", "bucket"))
def hub_place(request: pytest.FixtureRequest, quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Each of the two on the Hub."""
    yield from make_place(request.param, quick_folder, request, monkeypatch)


@pytest.fixture(params=("sqlite", "postgresql"))
def sql_place(request: pytest.FixtureRequest, quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Each of the two databases."""
    yield from make_place(request.param, quick_folder, request, monkeypatch)


@pytest.fixture
def sqlite_place(
    request: pytest.FixtureRequest, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    yield from make_place("sqlite", quick_folder, request, monkeypatch)
