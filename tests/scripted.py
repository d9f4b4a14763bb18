"""The real server with a model that counts its replies, a sentence at a time: `python -m tests.scripted`.

For tests of what surrounds the model, which start and kill servers: it is up sooner than with real weights, and whoever
says `despacio` is answered slowly.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import app
from model import ChatMessage, Delta, Sampling
from tests.fakes import FakeModel

SENTENCES, SLOW_SECONDS = 6, 0.5


class Counting(FakeModel):
    """Answers the third message with `Respuesta 3.`, and more sentences after it."""

    def stream(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        stop: threading.Event | None = None,
        *,
        conversation: str | None = None,
    ) -> Iterator[Delta]:
        number = sum(message.role == "user" for message in messages)
        self.seconds = SLOW_SECONDS if "despacio" in messages[-1].text else 0.0
        self.enqueue(f"Respuesta {number}. ", *[f"Sigo contigo, parte {part}. " for part in range(2, SENTENCES + 1)])
        return super().stream(messages, sampling, stop, conversation=conversation)


def loaded(*_: Any) -> Counting:
    return Counting()


if __name__ == "__main__":
    app.load = loaded  # type: ignore[assignment, attr-defined]
    app.main()
