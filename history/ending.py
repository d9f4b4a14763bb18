"""Finishing something when the process is asked to end (SIGTERM), which Python alone does not do."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def finishing(finish: Callable[[], object]) -> Iterator[None]:
    """Calls `finish` when the block ends, and when the process is asked to end, which it then does. Main thread only.

    Not with `atexit`: no thread can be started by then, and the Hub's client needs some.
    """
    done = threading.Event()

    def end() -> None:
        finish()
        done.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def asked(*_: object) -> None:
        if done.is_set():
            sys.exit(0)
        # In a thread of its own: the main one may hold a lock in this very moment.
        threading.Thread(target=end, name="history-end", daemon=True).start()

    before = signal.signal(signal.SIGTERM, asked)
    try:
        yield
    finally:
        finish()
        signal.signal(signal.SIGTERM, before)
