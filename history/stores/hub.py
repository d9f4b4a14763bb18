"""What both of the Hub's stores share: a client with time limits, what its failures mean, and where documents lie.

The client library sets no time limits of its own: a call whose answer never comes would block for ever, and everything
behind it. Here each read has one, and each piece of work has a deadline after which no further request leaves.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import _http

from history.documents import OWNER
from history.stores import AwayError, ConflictError

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 30.0
WORK_SECONDS = 60.0  # for one piece of work, of several requests
START_SECONDS = 10.0  # for the look at the start: the server must not wait longer for the Hub
FOLDER = "v1"

log = logging.getLogger("remanso.history")
T = TypeVar("T")
_deadline = threading.local()


def hub_api(token: str, endpoint: str | None) -> HfApi:
    """Returns a client of the Hub; every request of this process has time limits from now on."""
    set_client_factory(_client)
    return HfApi(token=token or None, endpoint=endpoint, library_name="remanso")


def _client() -> httpx2.Client:
    return httpx2.Client(
        event_hooks={"request": [_before, _http.hf_request_event_hook]},  # the second is what the default client has
        follow_redirects=True,
        timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
    )


def _before(_request: httpx2.Request) -> None:
    if time.monotonic() > getattr(_deadline, "at", float("inf")):
        raise AwayError("it takes too long")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Returns what the work does, in a thread that is left behind when it hangs and sends nothing more then.

    Raises:
        AwayError: it failed, or took too long.
        ConflictError: as the work says, or the Hub with 412.
    """
    done: list[T] = []
    failed: list[AwayError | ConflictError] = []

    def run() -> None:
        _deadline.at = time.monotonic() + seconds
        try:
            with told():
                done.append(work())
        except (AwayError, ConflictError) as problem:
            failed.append(problem)

    thread = threading.Thread(target=run, name="history-hub", daemon=True)
    thread.start()
    thread.join(seconds + 1)
    if failed:
        raise failed[0]
    if not done:
        raise AwayError("it takes too long")
    return done[0]


@contextmanager
def told() -> Iterator[None]:
    """Turns every failure into one that names its kind alone: the client's own texts can hold what was sent."""
    try:
        yield
    except (AwayError, ConflictError):
        raise
    except HfHubHTTPError as problem:
        status = problem.response.status_code if problem.response is not None else 0
        if status == 412:
            raise ConflictError("another process was faster") from None
        raise AwayError(f"{type(problem).__name__} {status}") from None
    except Exception as problem:  # the client and its upload library raise many kinds
        raise AwayError(type(problem).__name__) from None


def place(owner: str, id: str = "") -> str:
    """Returns where a person's document lies, or their folder.

    Raises:
        AwayError: one of them is no key of ours, and could lead elsewhere.
    """
    if not OWNER.fullmatch(owner) or not (id or "0").isalnum() or not (id or "0").isascii():
        raise AwayError("no such place")
    return f"{FOLDER}/{owner}/{id}.json" if id else f"{FOLDER}/{owner}"


def look(check: Callable[[], bool], what: str) -> None:
    """Looks at the start whether a repository is there and private.

    Raises:
        SystemExit: it is public, or not there for this token. When the Hub is away, the first write looks again.
    """
    try:
        private = within(START_SECONDS, check)
    except (AwayError, ConflictError) as problem:
        if any(status in str(problem) for status in ("401", "403", "404")):
            raise SystemExit(
                f"HISTORY_URL: {what} cannot be read with HF_TOKEN ({problem}). Create it as private, and a "
                "fine-grained token that may write to it alone."
            ) from None
        log.warning("the history's store is away: %s", problem)
        return
    if not private:
        raise SystemExit(f"HISTORY_URL: {what} is public: everyone could read what people say. Make it private.")
