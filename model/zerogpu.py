"""Replies on ZeroGPU, where a GPU is lent for one call, to a worker process forked from this one.

The weights are placed on `cuda` before the server starts, in the main thread: that is when `spaces` packs them. A
forward pass outside of the decorated function would silently return zeros. Elsewhere this module does nothing.
"""

import math
import threading
from collections.abc import Iterator, Sequence

import spaces
from spaces.config import Config

from model.engine import ChatModel, Delta
from model.prompt import ChatMessage
from model.sampling import Sampling

ON: bool = Config.zero_gpu
START_SECONDS = 10.0  # fork, weights to the GPU, reading the prompt
TOKENS_PER_SECOND = 15.0  # a cautious figure for 4-bit weights; the person's quota is asked for what this says

_loaded: list[ChatModel] = []


def seconds(_messages: Sequence[ChatMessage], sampling: Sampling) -> int:
    """Returns for how long a GPU is asked for: quota is checked against this, not against what is used."""
    return math.ceil(START_SECONDS + sampling.max_new_tokens / TOKENS_PER_SECOND)


@spaces.GPU(duration=seconds)  # type: ignore[untyped-decorator]
def reply(messages: Sequence[ChatMessage], sampling: Sampling) -> Iterator[Delta]:
    """Streams one reply in the worker. No cache is kept: workers are reused for other people."""
    yield from ChatModel.stream(_loaded[0], messages, sampling)


class ZeroGPUModel(ChatModel):
    """A model whose replies are computed in a worker that holds the GPU."""

    def publish(self) -> None:
        """Makes this the model that workers find; to be called before the server starts."""
        _loaded[:] = [self]

    def stream(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        stop: threading.Event | None = None,
        *,
        conversation: str | None = None,  # noqa: ARG002 - nothing is kept in a worker
    ) -> Iterator[Delta]:
        deltas = reply(list(messages), sampling)
        try:
            for delta in deltas:
                yield delta
                if stop and stop.is_set():
                    yield Delta("", "cancelled")
                    return
        finally:
            deltas.close()
