"""Measures one person's reply: the embedded model against the usual way to stream from transformers, and llama.cpp.

    python -m benchmarks reply            # about five minutes
    python -m benchmarks reply --cold     # converts the model anew too, as on a first start; a minute more

The peers are `generate` in a thread with `TextIteratorStreamer` on the same weights in bf16, in the same process, and
llama.cpp on the GGUF file that they come from, without our adapter, where `llama-cpp-python` is installed. Runs are
interleaved (A B A B), and every figure is a median with its range.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.engines import generate
from config import EMBEDDED, Settings
from history import Message
from model import ChatModel, Delta, Sampling, embedded, load
from model.prompt import encode
from sentences import say

ROUNDS = 5
NEW_TOKENS = 48
TURNS = (1, 10, 20)
QUESTION = "Hoy he discutido con mi hermana por una tontería y llevo toda la tarde dándole vueltas. "


class Run(NamedTuple):
    """Time to first piece in seconds, and tokens per second after it."""

    first: float
    rate: float


class Row(NamedTuple):
    """One measured way to answer."""

    name: str
    run: Callable[[list[Message]], Run]


def conversation(turns: int) -> list[Message]:
    messages = [Message("system", say("es", "model.system"))]
    for number in range(turns):
        messages.append(Message("user", f"{number + 1}. {QUESTION}"))
        if number + 1 < turns:
            messages.append(
                Message("assistant", "Suena agotador quedarse con eso dentro. ¿Qué fue lo que más te dolió?")
            )
    return messages


def timed(deltas: Iterator[Delta]) -> Run:
    start = time.perf_counter()
    pieces = (delta for delta in deltas if delta.text or delta.finish)
    next(pieces)
    first = time.perf_counter() - start
    number = sum(1 for _ in pieces)
    return Run(first, number / (time.perf_counter() - start - first))


def ours(model: ChatModel, *, warm: bool) -> Callable[[list[Message]], Run]:
    """Our engine; with `warm`, the turns before are in the conversation's cache."""
    sampling = Sampling(temperature=0, max_new_tokens=NEW_TOKENS)

    def run(messages: list[Message]) -> Run:
        if not warm:
            return timed(model.stream(messages, sampling))
        for _ in model.stream(messages[:-2], Sampling(temperature=0, max_new_tokens=1), conversation="bench"):
            pass
        return timed(model.stream(messages, sampling, conversation="bench"))

    return run


def without_echo(model: ChatModel) -> Callable[[list[Message]], Run]:
    """Our engine without its liking for the person's words."""

    def run(messages: list[Message]) -> Run:
        held, model.echoes = model.echoes, None
        try:
            return ours(model, warm=False)(messages)
        finally:
            model.echoes = held

    return run


def template(model: ChatModel) -> Callable[[list[Message]], Run]:
    """The peer: `generate` in a thread, with transformers' own streamer."""

    def run(messages: list[Message]) -> Run:
        found = generate(model, messages, NEW_TOKENS)
        return Run(found.first, found.rate)

    return run


def llama_cpp(model: ChatModel, file: Path, *, warm: bool) -> Callable[[list[Message]], Run]:
    """The peer in C++; it keeps the beginning that two prompts have in common by itself."""
    threads = torch.get_num_threads()
    peer: Any = import_module("llama_cpp").Llama(
        str(file), n_ctx=4096, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def run(messages: list[Message]) -> Run:
        peer.reset()
        if warm:
            next(peer.generate(encode(model._tokenizer, messages[:-2]), temp=0))
        ids = encode(model._tokenizer, messages)
        begin = time.perf_counter()
        tokens = peer.generate(ids, temp=0, reset=True)  # `reset` only where the prompt differs from what is held
        peer.detokenize([next(tokens)])
        first = time.perf_counter() - begin
        for _, token in zip(range(NEW_TOKENS - 1), tokens, strict=False):
            peer.detokenize([token])
        return Run(first, (NEW_TOKENS - 1) / (time.perf_counter() - begin - first))

    return run


def spread(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}–{high:.{digits}f}]"


def rows_of(model: ChatModel, dense: ChatModel, file: Path) -> tuple[list[Row], list[Row]]:
    """Returns the ways to answer a first message, and those to answer a later one."""
    first = [
        Row("transformers `generate` + streamer, bf16", template(dense)),
        Row(f"ours, {dense.describe().quantization}: bf16", ours(dense, warm=False)),
        Row(f"ours, {model.describe().quantization}", ours(model, warm=False)),
        Row("ours, packed, without the echo", without_echo(model)),
    ]
    later = [first[0], first[2], Row("ours, packed, conversation kept", ours(model, warm=True))]
    if find_spec("llama_cpp"):
        embedded._assemble(file, embedded.unheard)
        first.append(Row("llama.cpp, no adapter", llama_cpp(model, file, warm=False)))
        later.append(Row("llama.cpp, no adapter, conversation kept", llama_cpp(model, file, warm=True)))
    else:
        print("no llama.cpp: pip install llama-cpp-python")
    return first, later


def table(first: list[Row], later: list[Row], model: ChatModel) -> Iterator[str]:
    """Yields the lines of the table; ratios are to the first way."""
    yield (
        f"| conversation | engine | first word, s | tokens/s | {NEW_TOKENS} tokens, s | first word, ratio "
        "| tokens/s, ratio |"
    )
    yield "|---|---|---|---|---|---|---|"
    for turns in TURNS:
        messages = conversation(turns)
        used = later if turns > 1 else first
        runs: dict[str, list[Run]] = {row.name: [] for row in used}
        for _ in range(ROUNDS):
            for row in used:
                runs[row.name].append(row.run(messages))
        peer = runs[used[0].name]
        what = f"{turns} turns, {model.count(messages)} tokens"
        yield from (line(what, row.name, runs[row.name], peer) for row in used)


def line(what: str, name: str, mine: list[Run], peer: list[Run]) -> str:
    """Returns one row of the table."""
    first, rate = (statistics.median(getattr(run, part) for run in mine) for part in Run._fields)
    cells = [
        what,
        name,
        spread([run.first for run in mine], 3),
        spread([run.rate for run in mine], 1),
        f"{statistics.median(run.first + (NEW_TOKENS - 1) / run.rate for run in mine):.2f}",
        f"{first / statistics.median(run.first for run in peer):.2f}",
        f"{rate / statistics.median(run.rate for run in peer):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def start(cache: Path) -> tuple[ChatModel, float]:
    begin = time.perf_counter()
    model = load(Settings(model_id=EMBEDDED, cache_dir=cache))
    timed(model.stream(conversation(1), Sampling(max_new_tokens=2)))
    return model, time.perf_counter() - begin


def lines(*, cold: bool = False) -> Iterator[str]:
    """Yields the starts, and the table."""
    if cold:
        with tempfile.TemporaryDirectory() as cache:
            yield f"First start, from the package to the first word: {start(Path(cache))[1]:.0f} s.\n"
    model, seconds = start(Settings().cache_dir)
    yield f"Later starts, from the cache to the first word: {seconds:.1f} s (in a process that has torch loaded).\n"
    dense = load(Settings(model_id=EMBEDDED, quantization="none"))
    with tempfile.TemporaryDirectory() as folder:
        yield from table(*rows_of(model, dense, Path(folder) / embedded.GGUF_NAME), model)
