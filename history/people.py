"""Who consents, as far as it is known here: looked up in the background, and never waited for long.

Knows nothing of what people say.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from history.documents import Person
from history.stores import AwayError

WAIT_SECONDS = 3.0  # for somebody who is not known yet
FRESH_SECONDS = 60.0  # after which somebody who is known is looked up again, in the background
KEPT = 10_000

log = logging.getLogger("remanso.history")


@dataclass(frozen=True)
class _Known:
    person: Person | None
    read: float  # when; of two that were read at once, the later counts


class People:
    """A memory of people by owner. All methods may be called from any thread.

    Args:
        read: reads a person from the store, and may take its time; raises `AwayError`.
    """

    def __init__(self, read: Callable[[str], Person | None]) -> None:
        self._read = read
        self._lock = threading.RLock()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asked: dict[str, threading.Event] = {}

    def get(self, owner: str) -> Person | None:
        """Returns what is known of a person, after a short wait where nothing is."""
        with self._lock:
            known = self._known.get(owner)
            if known:
                self._known.move_to_end(owner)
        if known and time.monotonic() - known.read < FRESH_SECONDS:
            return known.person
        asked = self._look_up(owner)
        if not known:
            asked.wait(WAIT_SECONDS)
            known = self._known.get(owner)
        return known.person if known else None

    def peek(self, owner: str) -> Person | None:
        """Returns what is known of a person now."""
        known = self._known.get(owner)
        return known.person if known else None

    def know(self, owner: str, person: Person | None, read: float) -> None:
        """Keeps what was read of a person at that moment, unless something newer is known already."""
        with self._lock:
            if owner in self._known and self._known[owner].read > read:
                return
            self._known[owner] = _Known(person, read)
            self._known.move_to_end(owner)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)

    def _look_up(self, owner: str) -> threading.Event:
        """Reads a person in the background, and returns what tells that they were read, or cannot be."""
        with self._lock:
            if owner in self._asked:
                return self._asked[owner]
            asked = self._asked[owner] = threading.Event()

        def work() -> None:
            began = time.monotonic()
            try:
                self.know(owner, self._read(owner), began)
            except AwayError as problem:
                log.warning("a consent cannot be looked up: %s", problem)
            finally:
                with self._lock:
                    del self._asked[owner]
                asked.set()

        threading.Thread(target=work, name="history-consent", daemon=True).start()
        return asked
