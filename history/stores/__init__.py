"""Where documents are kept, behind one small protocol; `open_store` reads `HISTORY_URL`.

A store holds texts under an owner and an id, with a version each. It knows nothing of what they say, and it never
puts any of it into an exception: what went wrong is told by kind and place alone.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from config import Settings

Remains = Literal["nothing", "collection"]


class AwayError(Exception):
    """The store does not answer, or refuses; what was asked may or may not have been done."""


class ConflictError(Exception):
    """Another process has changed one of the documents since it was read; nothing was done."""


@dataclass(frozen=True)
class Stored:
    """A document as it lies there; `version` changes with each change of it."""

    text: str
    version: str


@dataclass(frozen=True)
class Change:
    """What a document is to become.

    Attributes:
        text: the new text, or None to delete it.
        version: the one that was read, or "" when there was none.
        same: that it only has to be the version that was read still, and is left as it is.
    """

    owner: str
    id: str
    text: str | None
    version: str
    same: bool = False


class Store(Protocol):
    """What each backend does. Every call ends within a time limit; any of them may raise `AwayError`.

    Attributes:
        pace: least seconds between two calls of `append`.
        settle: seconds after which a write is looked at again, where two processes can overwrite each other.
        remains: what can still be read of what was deleted: nothing, or old revisions until the Hub collects them.
    """

    pace: float
    settle: float
    remains: Remains

    def load(self, owner: str, ids: Collection[str] | None = None) -> dict[str, Stored]:
        """Returns a person's documents by id, all or some of them; what is not there is left out."""
        ...

    def append(self, changes: Sequence[Change]) -> None:
        """Makes these changes, all or none where the backend can.

        Raises:
            ConflictError: a version is not the one that lies there.
        """
        ...

    def delete(self, owner: str, ids: Collection[str] | None = None) -> None:
        """Deletes documents of a person, or all of them, from the history of the store too. May be repeated."""
        ...

    def left(self, owner: str, ids: Collection[str] | None = None) -> list[str]:
        """Returns where documents of a person can still be read, in every revision that can be reached."""
        ...

    def owners(self) -> list[str]:
        """Returns who has documents here."""
        ...

    def describe(self) -> str:
        """Returns what it is and who may read it, for an operator."""
        ...

    def close(self) -> None:
        """Lets connections go."""
        ...


def open_store(settings: "Settings") -> Store | None:
    """Opens what `HISTORY_URL` names, or returns None when it is empty.

    Raises:
        SystemExit: the address is wrong, or what it names may be read by anyone.
    """
    url = settings.history_url
    if not url:
        return None
    if hub := re.fullmatch(r"hf://(datasets|buckets)/([\w.-]+/[\w.-]+)", url):
        return _on_the_hub(hub[1], hub[2], settings)
    if url.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
        from history.stores.sql import SqlStore  # noqa: PLC0415 - not everyone has it installed

        return SqlStore(url)
    raise SystemExit(
        "HISTORY_URL is none of hf://datasets/OWNER/NAME, hf://buckets/OWNER/NAME, sqlite:///FILE and "
        f"postgresql://USER:PASSWORD@HOST/NAME: {url.split('@')[-1]!r}"
    )


def _on_the_hub(kind: str, name: str, settings: "Settings") -> Store:
    if kind == "datasets":
        from history.stores.datasets import DatasetStore  # noqa: PLC0415 - imported when used

        return DatasetStore(name, settings.hf_token, pace=settings.history_commit_seconds)
    from history.stores.buckets import BucketStore  # noqa: PLC0415

    return BucketStore(name, settings.hf_token)
