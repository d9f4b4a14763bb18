"""Joins what several threads want to have read by a model into common passes.

Knows nothing of models: what a pass is, is handed in. Knows nothing of text or sampling.
"""

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from errors import ModelError
from model.cache import Kept

log = logging.getLogger("remanso.model")

PROMPT_TOKENS = 384  # most tokens of prompts in a pass: those who speak meanwhile wait for it, 0.3 s on two cores
# How long a pass waits for those of the last one, whose next token is on its way: a share of what that one took.
LINGER, LEAST_LINGER = 0.25, 0.01
CLOSING_SECONDS = 1.0


class Stopped(Exception):
    """Raised in a reply's thread when it was stopped before its tokens were read."""


@dataclass(eq=False)
class Turn:
    """A reply in the making: its place in the order of arrival, its stop signal and its cache."""

    number: int
    stop: threading.Event
    kept: Kept


@dataclass(eq=False)
class Read:
    """Token ids that a turn wants read, and how the next one is picked; afterwards that one, or what went wrong."""

    turn: Turn
    ids: list[int]
    pick: Callable[[torch.Tensor], int]
    token: int = 0
    problem: Exception | None = None
    over: threading.Event = field(default_factory=threading.Event)


_all: weakref.WeakSet["Passes"] = weakref.WeakSet()


class Passes:
    """Common passes for several threads, each of which waits for its own next token.

    A thread of its own does the work while any turn is open and ends with the last one, so that idle costs nothing.
    The next turn starts another, also where one has died.
    """

    def __init__(self, forward: Callable[[Sequence[Read]], None]) -> None:
        """Makes passes with `forward`, which sets the tokens of its reads, or raises and leaves caches as they were."""
        self._forward = forward
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._turns: dict[int, Turn] = {}
        self._waiting: list[Read] = []
        self._expected: set[Turn] = set()
        self._linger = LEAST_LINGER
        self._count = 0
        _all.add(self)

    def close(self) -> None:
        """Stops every turn and waits for the end of the thread, but not long for one that nobody listens to."""
        with self._changed:
            for turn in self._turns.values():
                turn.stop.set()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSING_SECONDS)

    @contextmanager
    def turn(self, kept: Kept, stop: threading.Event) -> Iterator[None]:
        """Opens a turn for as long as a reply takes."""
        with self._changed:
            self._count += 1
            turn = self._turns[id(kept)] = Turn(self._count, stop, kept)
        try:
            yield
        finally:
            with self._changed:
                del self._turns[id(kept)]
                self._expected.discard(turn)
                self._waiting = [read for read in self._waiting if read.turn is not turn]
                self._changed.notify_all()

    def read(self, ids: list[int], kept: Kept, pick: Callable[[torch.Tensor], int]) -> int:
        """Has `ids` read into the cache of an open turn, and returns what `pick` chooses by the logits after them.

        It is called in the thread of the passes: in those of replies torch would start helpers for each of them.

        Raises:
            Stopped: the turn was stopped before they were read.
            Exception: what the pass failed with.
        """
        with self._changed:
            read = Read(self._turns[id(kept)], ids, pick)
            self._waiting.append(read)
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="passes", daemon=True)
                thread.start()  # it waits for the lock; where none can be started, this raises and none is noted
                self._thread = thread
            self._changed.notify_all()
        read.over.wait()
        if read.problem is not None:
            raise read.problem
        return read.token

    def _work(self) -> None:
        reads: list[Read] = []
        try:
            while reads := self._next():
                start = time.monotonic()
                self._do(reads)
                self._linger = max(LEAST_LINGER, LINGER * (time.monotonic() - start))
                _end(reads)
                reads.clear()  # no cache is held by who only waits
        except BaseException as problem:
            log.error("the thread of the passes died: %s", type(problem).__name__)
            with self._changed:
                self._thread = None
                reads, self._waiting = [*reads, *self._waiting], []
            _end(reads, ModelError("reply_failed", kind=type(problem).__name__))

    def _next(self) -> list[Read]:
        """Waits for what the next pass has to read, and takes it; empty when no turn is open any more."""
        until = time.monotonic() + self._linger
        with self._changed:
            while self._turns:
                self._refuse_stopped()
                left = until - time.monotonic()
                if self._waiting and (left <= 0 or self._expected <= {read.turn for read in self._waiting}):
                    return self._taken()
                self._changed.wait(left if self._waiting else None)
            self._thread = None
            return []

    def _refuse_stopped(self) -> None:
        stopped = [read for read in self._waiting if read.turn.stop.is_set()]
        self._waiting = [read for read in self._waiting if read not in stopped]
        _end(stopped, Stopped())

    def _taken(self) -> list[Read]:
        """Takes every single token, and as much of prompts as there is room for, in the order of arrival."""
        self._waiting.sort(key=lambda read: (len(read.ids) > 1, read.turn.number))
        taken: list[Read] = []
        room = PROMPT_TOKENS
        for read in self._waiting:
            if len(read.ids) > 1:
                if len(read.ids) > room and room < PROMPT_TOKENS:
                    continue
                room -= len(read.ids)
            taken.append(read)
        self._waiting = [read for read in self._waiting if read not in taken]
        self._expected = {read.turn for read in taken}
        return taken

    def _do(self, reads: Sequence[Read]) -> None:
        """Makes one pass. Where it fails, each is read alone, so that only what cannot be read fails."""
        try:
            self._forward(reads)
        except Exception as problem:
            if len(reads) > 1:
                for read in reads:
                    self._do([read])
            else:
                reads[0].problem = problem


def _end(reads: Sequence[Read], problem: Exception | None = None) -> None:
    for read in reads:
        read.problem = read.problem or problem
        read.over.set()


@atexit.register
def _close_all() -> None:
    """A thread that is inside of torch when Python ends aborts the process."""
    for passes in list(_all):
        passes.close()
