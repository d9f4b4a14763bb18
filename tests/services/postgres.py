"""A real PostgreSQL server, thrown away after the tests: Debian's package, on a socket in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sql


def program(name: str) -> str:
    """Returns where one of the server's programs is; Debian keeps them off the PATH.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if found := shutil.which(name) or (str(places[-1]) if places else ""):
        return found
    raise FileNotFoundError(f"{name} is missing: make test installs Debian's package postgresql")


def _run(*command: str) -> None:
    """Runs one of them as the user postgres, since the server refuses to be root."""
    who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **who)


class Postgres:
    """The server, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"

    def start(self) -> None:
        quick = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off -c log_min_messages=panic"
        _run(program("pg_ctl"), "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", quick, "start")

    def stop(self) -> None:
        _run(program("pg_ctl"), "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def database(self) -> str:
        """Makes an empty database and returns its address."""
        name = f"d{uuid4().hex}"
        engine = sql.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sql.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self.url(name).replace("+psycopg", "")

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Yields a running server without databases of its own."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(folder)
    try:
        _run(program("initdb"), "-D", str(server.data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
