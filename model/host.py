"""Loads the model once, in the background, and says how far it is: the page is up long before the model is."""

import gc
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from errors import ModelError
from model.embedded import Progress
from model.engine import ChatModel

log = logging.getLogger("remanso.model")
Loader = Callable[[Progress], ChatModel]


class Loading(NamedTuple):
    """How far loading is: a stage (`assemble`, `convert`, `read`) and the share done, 0 to 1."""

    stage: str
    share: float


class Host:
    """Holds the model, or what keeps it from being there. Loading again after a failure is one call of `start`."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.model: ChatModel | None = None
        self.error: ModelError | None = None
        self.loading = Loading("assemble", 0.0)

    def start(self) -> None:
        """Begins to load, unless the model is there or on its way."""
        with self._lock:
            if self.model is None and (self._thread is None or not self._thread.is_alive()):
                self.error = None
                self.loading = Loading("assemble", 0.0)
                self._thread = threading.Thread(target=self._load, name="model-loader", daemon=True)
                self._thread.start()

    def load(self) -> None:
        """Loads at once, in this thread."""
        self._load()

    def wait(self, seconds: float | None = None) -> ChatModel | None:
        """Waits for the end of loading and returns the model, or nothing if it failed or the time is over."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.model

    def _load(self) -> None:
        try:
            self.model = self._loader(self._report)
            log.info("model ready: %s", self.model.describe())
            gc.collect()
            gc.freeze()  # the weights' Python objects live for ever; collecting over them stalls every stream
        except ModelError as problem:
            self.error = problem
            cause = type(problem.__cause__).__name__
            log.error("model not loaded: %s %s, caused by %s", problem.code, problem.values, cause)
        except Exception as problem:
            self.error = ModelError("model_failed", kind=type(problem).__name__)
            log.exception("model not loaded")

    def _report(self, stage: str, share: float) -> None:
        self.loading = Loading(stage, share)
