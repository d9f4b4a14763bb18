"""Replies on ZeroGPU, where a GPU is lent for one call, to a worker process forked from this one.

The weights are placed on `cuda` before the server starts, in the main thread: that is when `spaces` packs them. A
forward pass outside of the decorated function would silently return zeros. Elsewhere this module does nothing.

The prompt crosses to the worker as token ids, and pieces of text come back: a lock that another thread holds while the
process is forked stays held in the worker for ever, so nothing there may need one.
"""

import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import gradio as gr
import spaces
from gradio.context import LocalContext
from spaces.config import Config

from errors import ModelError
from model.cache import Kept
from model.engine import ChatModel, Delta
from model.prompt import ChatMessage, encode
from model.sampling import Sampling

ON: bool = Config.zero_gpu
START_SECONDS = 8.0  # fork, weights to the GPU
PREFILL_PER_SECOND = 500.0  # cautious; an 8B reads thousands a second on the GPUs that are lent
FIRST_PACE = 12.0  # tokens a second that are counted on before any were measured
SLACK = 0.7  # share of the measured pace that is counted on
SHORTEST = 64  # tokens below which a reply tells nothing about the pace

_loaded: list[ChatModel] = []
_pace = [FIRST_PACE]

# How each refusal of `spaces` 0.51 begins, and what it means. There is no code in what it raises.
REFUSALS = (
    (re.compile(r"s requested vs\. .+ left\)\. Try again in (?P<wait>[^.]+)\."), "gpu_quota"),
    (re.compile(r"exceeded your ZeroGPU runs limit"), "gpu_runs"),
    (re.compile(r"Space app has reached its GPU limit"), "gpu_shared_quota"),
    (re.compile(r"larger than the maximum allowed"), "gpu_duration"),
    (re.compile(r"too many ZeroGPU credits"), "gpu_runs"),
    (re.compile(r"Expired ZeroGPU proxy token"), "gpu_token"),
    (re.compile(r"GPU task aborted"), "gpu_aborted"),
    (re.compile(r"OutOfMemoryError"), "out_of_memory"),
    (re.compile(r"No GPU was available|ZeroGPU API /schedule|end of stream|queue disconnect"), "gpu_busy"),
)


def seconds(prompt: Sequence[int], sampling: Sampling) -> int:
    """Returns for how long a GPU is asked for: quota is checked against this, not against what is used."""
    reading = len(prompt) / PREFILL_PER_SECOND
    return math.ceil(START_SECONDS + reading + sampling.max_new_tokens / (SLACK * _pace[0]))


@spaces.GPU(duration=seconds)  # type: ignore[untyped-decorator]
def reply(prompt: list[int], sampling: Sampling) -> Iterator[Delta]:
    """Streams one reply in the worker. No cache is kept: workers are reused for other people."""
    yield from _loaded[0].decode(prompt, sampling, threading.Event(), Kept())


class ZeroGPUModel(ChatModel):
    """A model whose replies are computed in a worker that holds the GPU."""

    def publish(self) -> None:
        """Makes this the model that workers find; to be called before the first reply."""
        _loaded[:] = [self]

    def stream(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        stop: threading.Event | None = None,
        *,
        conversation: str | None = None,  # noqa: ARG002 - nothing is kept in a worker
    ) -> Iterator[Delta]:
        """Yields the reply as `ChatModel.stream` does, from the worker.

        Raises:
            ModelError: `gpu_quota` and the other refusals of `REFUSALS`.
        """
        prompt = encode(self._tokenizer, messages)
        yield from _Call(stop or threading.Event()).deltas(prompt, sampling)


class _Call:
    """One call of the worker: its place in the queue for a GPU, its pieces, and how it is stopped."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._over = threading.Event()
        # What `spaces` takes for Gradio's record of this request: it leaves the queue when this is not alive.
        self._event = SimpleNamespace(_id="remanso", alive=True)
        self._visit = _visit()
        self._context = copy_context()  # the request is in it: whose quota is spent

    def deltas(self, prompt: list[int], sampling: Sampling) -> Iterator[Delta]:
        self._context.run(self._stand_in)
        threading.Thread(target=self._watch, name="gpu-stop", daemon=True).start()
        work = self._context.run(reply, prompt, sampling)
        try:
            yield from self._timed(work)
        except Exception as problem:
            if self._stop.is_set():
                yield Delta("", "cancelled")
                return
            raise _explained(problem) from None
        finally:
            self._over.set()
            self._context.run(work.close)

    def _timed(self, work: Iterator[Delta]) -> Iterator[Delta]:
        """Yields what the worker yields, and measures its pace for the next call."""
        began, count = 0.0, 0
        try:
            while (delta := self._context.run(next, work, None)) is not None:
                began, count = began or (time.monotonic() if delta.text else 0.0), count + 1
                yield delta
                if delta.finish:
                    return
                if self._stop.is_set():
                    yield Delta("", "cancelled")
                    return
        finally:  # also where the guard reads no further
            if count > SHORTEST and (took := time.monotonic() - began) > 0:
                _pace[0] += (count / took - _pace[0]) / 4

    def _stand_in(self) -> None:
        """Puts a stand-in for Gradio's blocks in the context: our own event to stop the wait by, and no pop-ups in
        English about the queue, which the page tells in its own words."""
        blocks: Any = LocalContext.blocks.get(None)
        queue = SimpleNamespace(active_jobs=[[self._event]], log_message=_unsaid, set_progress=_unsaid)
        LocalContext.blocks.set(SimpleNamespace(_queue=queue, server=getattr(blocks, "server", None)))
        LocalContext.event_id.set(self._event._id)

    def _watch(self) -> None:
        while not self._over.is_set():
            if self._stop.wait(0.1) or not getattr(self._visit, "alive", True):
                self._event.alive = False
                return


def _visit() -> Any:
    """Returns Gradio's record of this request, which says whether the visitor is still there."""
    blocks: Any = LocalContext.blocks.get(None)
    jobs = blocks._queue.active_jobs if blocks is not None else ()
    return next((event for job in jobs for event in job or () if event._id == LocalContext.event_id.get(None)), None)


def _explained(problem: Exception) -> ModelError:
    said = str(getattr(problem, "message", problem))
    for pattern, code in REFUSALS:
        if found := pattern.search(said):
            return ModelError(code, **({"wait": _clock(found["wait"])} if code == "gpu_quota" else {}))
    kind = said if isinstance(problem, gr.Error) else type(problem).__name__
    return ModelError("reply_failed", kind=kind[:80])


def _clock(wait: str) -> str:
    """Returns a `timedelta`'s text ("1 day, 2:03:04") as hours and minutes, rounded up: "26 h 4 min"."""
    found = re.match(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+)", wait)
    if not found:
        return wait
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    minutes = (days * 24 + hours) * 60 + minutes + (rest > 0)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _unsaid(*_args: Any, **_kwargs: Any) -> None:
    return None
