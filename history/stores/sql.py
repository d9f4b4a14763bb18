"""Documents in SQLite or PostgreSQL, through SQLAlchemy; the schema is made and changed by Alembic's migrations.

Several processes may use one database: a change is made only where the version is still the one that was read, and
all changes of a call in one transaction. SQLite overwrites what is deleted (`secure_delete`); PostgreSQL's old rows
are unreadable to every query and their place is used again after its vacuum.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import sqlalchemy as sql
except ImportError:
    raise SystemExit(
        "HISTORY_URL names a database, which needs sqlalchemy and alembic: pip install -r requirements-sql.txt"
    ) from None
from sqlalchemy.engine import make_url

from history.stores import AwayError, Change, ConflictError, Remains, Stored

HEAD = "0001"  # the last of history/migrations/versions
WAIT_SECONDS = 10  # for a lock, a connection, or a statement
MIGRATIONS = Path(__file__).parents[1] / "migrations"
LOCK = 0x52454D41  # PostgreSQL's advisory lock under which one process at a time migrates

metadata = sql.MetaData()
documents = sql.Table(
    "documents",
    metadata,
    sql.Column("owner", sql.String(64), primary_key=True),
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("text", sql.Text, nullable=False),
)


class SqlStore:
    """One table of documents.

    Raises:
        SystemExit: the address is wrong, or its driver is missing.
    """

    pace = 0.0
    settle = 0.0
    remains: Remains = "nothing"

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._ready = False

    def load(self, owner: str, ids: Collection[str] | None = None) -> dict[str, Stored]:
        wanted = sql.select(documents.c.id, documents.c.text, documents.c.version).where(documents.c.owner == owner)
        if ids is not None:
            wanted = wanted.where(documents.c.id.in_(ids))
        with self._connected(writes=False) as connection:
            return {row.id: Stored(row.text, str(row.version)) for row in connection.execute(wanted)}

    def append(self, changes: Sequence[Change]) -> None:
        with self._connected() as connection:
            # One order for all processes: two that change the same documents then wait, and do not lock each other.
            for change in sorted(changes, key=lambda one: (one.owner, one.id)):
                _change(connection, change)

    def delete(self, owner: str, ids: Collection[str] | None = None) -> None:
        gone = sql.delete(documents).where(documents.c.owner == owner)
        if ids is not None:
            gone = gone.where(documents.c.id.in_(ids))
        with self._connected() as connection:
            connection.execute(gone)

    def left(self, owner: str, ids: Collection[str] | None = None) -> list[str]:
        return [f"documents:{owner}/{id}" for id in self.load(owner, ids)]

    def owners(self) -> list[str]:
        with self._connected(writes=False) as connection:
            return list(connection.scalars(sql.select(documents.c.owner).distinct().order_by(documents.c.owner)))

    def describe(self) -> str:
        with self._connected(writes=False) as connection:
            count = connection.scalar(sql.select(sql.func.count()).select_from(documents))
        return f"{self._engine.dialect.name}, schema {HEAD}, {count} documents; who may read it, its server decides"

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _connected(self, *, writes: bool = True) -> Iterator[sql.Connection]:
        """Yields a connection in a transaction, to a database with our schema."""
        try:
            if not self._ready:
                migrate(self._engine)
                self._ready = True
            engine = self._engine.execution_options(writes=writes)
            with engine.begin() as connection:
                yield connection
        except sql.exc.IntegrityError:
            raise ConflictError("a document is there already") from None
        except (sql.exc.SQLAlchemyError, OSError) as problem:
            raise AwayError(_kind(problem)) from None


def _change(connection: sql.Connection, change: Change) -> None:
    here = (documents.c.owner == change.owner) & (documents.c.id == change.id)
    if change.version:
        here &= documents.c.version == int(change.version)
    if change.same:
        found = connection.execute(sql.select(documents.c.id).where(here).with_for_update(read=True)).first()
        if bool(found) != bool(change.version):
            raise ConflictError("a document has changed")
    elif change.text is None:
        done = connection.execute(sql.delete(documents).where(here))
        if not done.rowcount and change.version:
            raise ConflictError("a document has changed")
    elif change.version:
        after = {"version": int(change.version) + 1, "text": change.text}
        if not connection.execute(sql.update(documents).where(here).values(after)).rowcount:
            raise ConflictError("a document has changed")
    else:
        row = {"owner": change.owner, "id": change.id, "version": 1, "text": change.text}
        connection.execute(sql.insert(documents).values(row))


def _engine(url: str) -> sql.Engine:
    try:
        address = make_url(url)
        if address.drivername == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        settings: dict[str, Any] = {"timeout": WAIT_SECONDS}
        if address.get_backend_name() == "postgresql":
            limit = f"-c statement_timeout={WAIT_SECONDS}s -c lock_timeout={WAIT_SECONDS}s"
            settings = {"connect_timeout": WAIT_SECONDS, "options": limit, "tcp_user_timeout": WAIT_SECONDS * 1000}
        elif address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        # Not cached: a cached statement holds the values that it was first run with, which are somebody's words.
        engine = sql.create_engine(
            address, connect_args=settings, pool_pre_ping=True, hide_parameters=True, query_cache_size=0
        )
    except (sql.exc.ArgumentError, ValueError, ImportError, OSError) as problem:
        raise SystemExit(f"HISTORY_URL cannot be opened: {_kind(problem)}") from None
    if engine.dialect.name == "sqlite":
        sql.event.listen(engine, "connect", _set_up_sqlite)
        sql.event.listen(engine, "begin", _begin)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own; ours take the lock at once
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: sql.Connection) -> None:
    """Begins a transaction that may write with the lock for it: one that asks later can be refused at once."""
    kind = "IMMEDIATE" if connection.get_execution_options().get("writes", True) else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {kind}")


def migrate(engine: sql.Engine) -> None:
    """Brings a database to our schema; several processes may do so at once.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached, or was made by a newer version of this program.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sql.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        if _revision(connection) == HEAD:
            return
        from alembic import command  # noqa: PLC0415 - slow to import, and rarely needed
        from alembic.config import Config  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except Exception as problem:  # Alembic's own errors are of many kinds
            raise sql.exc.InvalidRequestError(f"the schema cannot be migrated: {_kind(problem)}") from None


def _revision(connection: sql.Connection) -> str | None:
    if not sql.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sql.text("SELECT version_num FROM alembic_version")).scalar()
    return str(found) if found else None


def _kind(problem: BaseException) -> str:
    """Returns what kind of failure it is: the text of a database's error can hold the row."""
    inner = getattr(problem, "orig", None)
    return type(inner or problem).__name__
