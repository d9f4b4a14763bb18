"""The real server with the real model, which goes on with another reply when it has ended one: `python -m
tests.talkative`.

For tests of what happens in the middle of a reply: those of the embedded model are over within a second or two.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import app
from model import ChatMessage, ChatModel, Delta, Sampling, load

REPLIES = 20


def loaded(*given: Any) -> ChatModel:
    model = load(*given)
    once = model.stream

    def stream(
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        stop: threading.Event | None = None,
        *,
        conversation: str | None = None,
    ) -> Iterator[Delta]:
        asked = messages[:-1] if messages[-1].role == "assistant" else messages
        for number in range(REPLIES):
            for delta in once(asked if number else messages, sampling, stop, conversation=conversation):
                yield Delta(" ") if delta.finish == "stop" else delta
                if delta.finish and delta.finish != "stop":
                    return
        yield Delta("", "stop")

    model.stream = stream  # type: ignore[method-assign]
    return model


if __name__ == "__main__":
    app.load = loaded  # type: ignore[assignment, attr-defined]
    app.main()
