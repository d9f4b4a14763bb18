"""Ways to stream a reply from one loaded model, each timed: ours, transformers' `generate`, and that compiled.

Each reads the same prompt and makes as many tokens, greedily. Knows nothing of what is loaded or of tables.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import CompileConfig, TextIteratorStreamer
from transformers.generation.streamers import BaseStreamer

from history import Message
from model import ChatModel, Sampling
from model.engine import PREFILL_CHUNK
from model.prompt import encode


class Run(NamedTuple):
    """One reply: seconds to its first token, tokens a second after it, most bytes of GPU memory meanwhile."""

    first: float
    rate: float
    peak: int


Engine = Callable[[ChatModel, list[Message], int], Run]


def ours(chat: ChatModel, messages: list[Message], new_tokens: int) -> Run:
    """The application's own loop."""
    start = time.perf_counter()
    stamps = [time.perf_counter() for _ in chat.stream(messages, Sampling(temperature=0, max_new_tokens=new_tokens))]
    chunks = math.ceil(chat.count(messages) / PREFILL_CHUNK)  # a piece without text after each
    return finished(start, stamps[chunks:-1])  # the last piece only says why it ended


def generate(chat: ChatModel, messages: list[Message], new_tokens: int) -> Run:
    """The peer: `generate` in a thread, with transformers' own streamer."""
    streamer = TextIteratorStreamer(chat._tokenizer, skip_prompt=True, timeout=600)
    problems: list[Exception] = []

    def work() -> None:
        try:
            chat._model.generate(**asked(chat, messages, new_tokens), streamer=streamer)
        except Exception as problem:
            problems.append(problem)
            streamer.end()  # or the reader would wait for ever

    thread = threading.Thread(target=work)
    start = time.perf_counter()
    thread.start()
    stamps = [time.perf_counter() for _ in streamer]
    thread.join()
    if problems:
        raise problems.pop()
    return finished(start, stamps[:-1])  # the last piece is what the streamer held back


class Stamps(BaseStreamer):
    """Notes when each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def compiled(chat: ChatModel, messages: list[Message], new_tokens: int) -> Run:
    """`generate` with a static cache and a compiled decoding step, in this thread: CUDA graphs belong to one."""
    # transformers refuses to compile what bitsandbytes has quantized; whether it can be is what is tried here.
    inner = chat._model.get_base_model() if hasattr(chat._model, "get_base_model") else chat._model
    inner.hf_quantizer = None
    settings = CompileConfig()
    settings._compile_all_devices = True  # type: ignore[assignment]  # None in transformers: on the CPU too
    options = {"cache_implementation": "static", "compile_config": settings}
    streamer = Stamps()
    start = time.perf_counter()
    chat._model.generate(**asked(chat, messages, new_tokens), **options, streamer=streamer)
    if not hasattr(inner, "_compiled_call"):
        raise RuntimeError("transformers did not compile it")  # it only warns
    return finished(start, streamer.times[1:])  # the first is the prompt


def asked(chat: ChatModel, messages: list[Message], new_tokens: int) -> dict[str, Any]:
    """Returns what `generate` is called with: greedy, and always as many tokens."""
    ids = torch.tensor([encode(chat._tokenizer, messages)], device=chat._model.device)
    length = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
    ends = {"pad_token_id": chat._tokenizer.pad_token_id}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False, **length, **ends}


def finished(start: float, stamps: list[float]) -> Run:
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return Run(stamps[0] - start, (len(stamps) - 1) / (stamps[-1] - stamps[0]), peak)
