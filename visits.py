"""Who is here: which browser opened which session, which pages are open, and what is forgotten when one is left.

Gradio's session hash alone opens a session, so each is bound to the first cookie that used it. And Gradio keeps the
chat of 10,000 left sessions in memory; here it is gone a while after the page is closed, long enough for a phone that
was locked to find its conversation again. Knows nothing of what is said.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

CAPACITY = 10_000
GRACE_SECONDS = 600.0
SWEEP_SECONDS = 15.0


class Visits:
    """Sessions by their hash. All methods may be called from any thread."""

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.grace = grace
        self._owners: OrderedDict[str, str] = OrderedDict()
        self._open: Counter[str] = Counter()
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def admit(self, session: str, cookie: str) -> bool:
        """Notes that a session is used, and returns whether this cookie's browser may: the first one may."""
        with self._lock:
            owner = self._owners.setdefault(session, cookie)
            self._owners.move_to_end(session)
            while len(self._owners) > CAPACITY:
                gone, _ = self._owners.popitem(last=False)
                self._seen.pop(gone, None)
            self._seen[session] = time.monotonic()
            return owner == cookie

    def belongs(self, session: str, cookie: str) -> bool:
        """Whether this session was opened by this cookie's browser; asking does not keep it alive."""
        with self._lock:
            return self._owners.get(session) == cookie

    def opened(self, session: str) -> None:
        """A page of this session is open."""
        with self._lock:
            self._open[session] += 1

    def closed(self, session: str) -> None:
        """A page of this session was closed, or lost its connection."""
        with self._lock:
            self._open[session] -= 1
            self._seen[session] = time.monotonic()
            if self._open[session] <= 0:
                del self._open[session]

    def left(self) -> list[str]:
        """Returns the sessions that nobody came back to."""
        before = time.monotonic() - self.grace
        with self._lock:
            return [name for name, seen in self._seen.items() if seen < before and name not in self._open]

    def sweep(self, forget: Callable[[str], bool]) -> None:
        """Calls `forget` for each session that was left, for ever, in a thread of its own.

        One that it declines to forget, by returning False, is in use: its time begins anew.
        """

        def work() -> None:
            while True:
                time.sleep(min(SWEEP_SECONDS, max(self.grace, 0.1)))
                for name in self.left():
                    self._note(name, used=not forget(name))

        threading.Thread(target=work, name="visits", daemon=True).start()

    def _note(self, session: str, *, used: bool) -> None:
        with self._lock:
            if used:
                self._seen[session] = time.monotonic()
            else:
                self._seen.pop(session, None)
                self._owners.pop(session, None)
