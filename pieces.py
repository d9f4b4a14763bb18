"""A reply on its way out: the model's text through the guard, in a thread of its own, into the event loop.

Knows nothing of sessions, nor of what is shown beside a reply.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import NamedTuple, cast

from counters import Counters
from history import Finish
from model import Delta
from model import Finish as ModelFinish
from safety.guard import Guarded


class Piece(NamedTuple):
    """Text that may be shown, and at the end how the reply ended."""

    text: str
    finish: Finish | None = None


def guarded(deltas: Iterator[Delta], guard: Callable[[Iterator[str]], Guarded], counters: Counters) -> Iterator[Piece]:
    """Passes the text of the deltas through a guard, and keeps how they ended."""
    finish: ModelFinish = "stop"

    def texts() -> Iterator[str]:
        nonlocal finish
        with closing(cast(Generator[Delta], deltas)):  # what the guard reads no further, the model need not compute
            for delta in deltas:
                finish = delta.finish or finish
                yield delta.text

    checked = guard(texts())
    for text in checked:
        yield Piece(text)
    if checked.blocked:
        counters.add(f"blocked.{checked.blocked}")
    yield Piece("", "blocked" if checked.blocked else finish)


def in_thread(pieces: Iterator[Piece], done: Callable[[], None]) -> AsyncGenerator[Piece, None]:
    """Runs an iterator in a thread of its own and yields what it yields, joined where the consumer was slower.

    `done` is called in the event loop when the thread has ended, which can be later than the consumer: a seat in the
    line is free only when the model really is.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()

    def run() -> None:
        end: BaseException | None = None
        with suppress(RuntimeError):  # the loop is closed: the server stops, and nobody listens
            try:
                for piece in pieces:
                    loop.call_soon_threadsafe(queue.put_nowait, piece)
            except BaseException as problem:
                end = problem
            loop.call_soon_threadsafe(queue.put_nowait, end)
            loop.call_soon_threadsafe(done)

    async def receive() -> AsyncGenerator[Piece, None]:
        last: Piece | BaseException | None = Piece("")
        while isinstance(last, Piece):
            items = [await queue.get()]
            while not queue.empty():
                items.append(queue.get_nowait())
            last = items[-1]
            if pieces := [item for item in items if isinstance(item, Piece)]:
                yield Piece("".join(piece.text for piece in pieces), pieces[-1].finish)
        if last is not None:
            raise last

    # The request's context goes along: on ZeroGPU it holds whose quota is spent.
    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="reply", daemon=True).start()
    return receive()
