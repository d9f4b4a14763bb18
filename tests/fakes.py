"""A model that says what it is told to: put at the one seam, `stream`. Reads as a conversation in a test."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import cast

from model import ChatMessage, ChatModel, Delta, Description, Sampling
from model.host import Host

Script = Sequence["str | Exception"]


class FakeModel:
    """Streams the pieces of `enqueue`, and remembers what it was asked."""

    def __init__(self, *, context_length: int = 1000, seconds: float = 0.0, demonstration: bool = True) -> None:
        self.context_length = context_length
        self.demonstration = demonstration  # a small one, which says nothing in a crisis
        self.seconds = seconds  # per piece
        self.prompts: list[list[tuple[str, str]]] = []
        self.running = 0
        self.most_running = 0
        self.forgotten: list[str] = []
        self._scripts: deque[tuple[Script, str]] = deque()
        self._lock = threading.Lock()

    def enqueue(self, *pieces: "str | Exception", finish: str = "stop") -> None:
        """Sets what the next reply is made of; an exception is raised in its place."""
        self._scripts.append((pieces, finish))

    def stream(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        stop: threading.Event | None = None,
        *,
        conversation: str | None = None,
    ) -> Iterator[Delta]:
        self.prompts.append([(message.role, message.text) for message in messages])
        pieces, finish = self._scripts.popleft() if self._scripts else (("Te ", "leo."), "stop")
        self._count(1)
        try:
            for piece in pieces:
                time.sleep(self.seconds)
                if stop and stop.is_set():
                    finish = "cancelled"
                    break
                if isinstance(piece, Exception):
                    raise piece
                yield Delta(piece)
            yield Delta("", finish)  # type: ignore[arg-type]
        finally:
            self._count(-1)

    def count(self, messages: Sequence[ChatMessage]) -> int:
        return sum(len(message.text.split()) for message in messages)

    def describe(self) -> Description:
        return Description("fake", "", "none", "cpu", 0, demonstration=self.demonstration)

    def forget(self, conversation: str, *, in_use: bool = False) -> None:
        self.forgotten.append(conversation)

    def _count(self, change: int) -> None:
        with self._lock:
            self.running += change
            self.most_running = max(self.most_running, self.running)


def host_of(model: FakeModel) -> Host:
    """Returns a host that has loaded this model."""
    host = Host(lambda _progress: cast(ChatModel, model))
    host.start()
    host.wait(5)
    return host
