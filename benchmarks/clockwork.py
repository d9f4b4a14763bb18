"""The app with a model that costs nothing and speaks in time: `python -m benchmarks.clockwork`.

Its sentences have twelve words. Those of a reply to `WATCHED` have one, so that the guard, which waits for the end of
one, adds nothing; when each of these words was said stands in the file that CLOCK_FILE names, in milliseconds since
1970, one a line.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import app
from model import ChatMessage, Delta, Description, Sampling

RATE = 30.0  # words a second
WORDS = 150
SENTENCE = 12  # words
WORD = "sigo"
SHORT, WATCHED = "breve", "despacio"  # what is said to get a reply of a few words at once, and one that is noted


class Clockwork:
    """What `ChatModel` is to the rest, without a model."""

    context_length = 1_000_000

    def stream(
        self,
        messages: Sequence[ChatMessage],
        _sampling: Sampling,
        stop: threading.Event | None = None,
        *,
        conversation: str | None = None,  # noqa: ARG002 - the contract's
    ) -> Iterator[Delta]:
        """Yields words in time; how long a conversation is makes no difference."""
        short, watched, times = SHORT in messages[-1].text, WATCHED in messages[-1].text, list[float]()
        due = time.monotonic()
        for _ in range(12 if short else WORDS):
            if stop and stop.is_set():
                break
            times.append(1000 * time.time())
            yield Delta(f"{WORD.title()}. " if watched or len(times) % SENTENCE == 0 else f"{WORD} ")
            due += 0 if short else 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))
        if watched:
            Path(os.environ["CLOCK_FILE"]).write_text("\n".join(map(str, times)), encoding="utf-8")
        yield Delta("", "cancelled" if stop and stop.is_set() else "stop")

    def count(self, messages: Sequence[ChatMessage]) -> int:
        return sum(len(message.text.split()) for message in messages)

    def describe(self) -> Description:
        return Description("clockwork", "", "none", "cpu", 0, demonstration=True)

    def forget(self, conversation: str, *, in_use: bool = False) -> None:
        """Has nothing to forget."""


def loaded(*_: Any) -> Clockwork:
    return Clockwork()


if __name__ == "__main__":
    app.load = loaded  # type: ignore[assignment, attr-defined]
    app.main()
