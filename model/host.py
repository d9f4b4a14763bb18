"""Loads the model once, in the background, and says how far it is: the page is up long before the model is.

What fails for a passing reason (the Hub away, a full disk) is tried again by itself; everything else when someone asks.
"""

import gc
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from errors import ModelError
from model.embedded import Progress
from model.engine import ChatModel
from model.faults import PASSING, hint

log = logging.getLogger("remanso.model")
Loader = Callable[[Progress], ChatModel]
FIRST_WAIT, LONGEST_WAIT = 15.0, 300.0  # seconds between two tries; doubled each time


class Loading(NamedTuple):
    """How far loading is: a stage (`assemble`, `convert`, `read`) and the share done, 0 to 1."""

    stage: str
    share: float


class Host:
    """Holds the model, or what keeps it from being there. Loading again after a failure is one call of `start`."""

    def __init__(self, loader: Loader, *, own_thread: bool = True) -> None:
        """Makes a host that does not load yet.

        Args:
            own_thread: load in a thread of its own. Without it, who calls `work` lends the thread: on ZeroGPU only the
                main one can place weights.
        """
        self._loader = loader
        self._own_thread = own_thread
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked = threading.Event()
        self._tried = threading.Event()
        self.model: ChatModel | None = None
        self.error: ModelError | None = None
        self.loading = Loading("assemble", 0.0)

    def start(self) -> None:
        """Begins to load, unless the model is there or on its way."""
        with self._lock:
            if self.model is not None or (self._thread is not None and self.error is None):
                return
            self._tried.clear()
            self.error, self.loading = None, Loading("assemble", 0.0)
            self._asked.set()
            if self._thread is None and self._own_thread:
                self._thread = threading.Thread(target=self.work, name="model-loader", daemon=True)
                self._thread.start()

    def work(self) -> None:
        """Loads in this thread until the model is there; after a failure it waits to be asked, or tries by itself."""
        pause = FIRST_WAIT
        while not self.load():
            passing = self.error is not None and self.error.code in PASSING
            self._asked.clear()
            self._asked.wait(pause if passing else None)
            pause = min(2 * pause, LONGEST_WAIT)

    def load(self) -> bool:
        """Tries once, at once, in this thread, and returns whether the model is there."""
        self._tried.clear()
        self.error = None
        try:
            self.model = self._loader(self._report)
            log.info("model ready: %s", self.model.describe())
            gc.collect()
            gc.freeze()  # the weights' Python objects live for ever; collecting over them stalls every stream
        except ModelError as problem:
            self.error = problem
            cause = type(problem.__cause__).__name__ if problem.__cause__ else "nothing else"
            log.error("model not loaded: %s (caused by %s)", hint(problem), cause)
        except Exception as problem:
            self.error = ModelError("model_failed", kind=type(problem).__name__)
            log.exception("model not loaded")
        self._tried.set()
        return self.model is not None

    def wait(self, seconds: float | None = None) -> ChatModel | None:
        """Waits for the end of loading and returns the model, or nothing if it failed or the time is over."""
        self._tried.wait(seconds)
        return self.model

    def _report(self, stage: str, share: float) -> None:
        self.loading = Loading(stage, share)
