"""Measures the embedded model with many people at once, against the line in which each waits for the one before.

    python -m benchmarks many    # about two minutes

`in line` is `ChatModel`, one reply after the other; `together` is `BatchedModel`, as with PARALLEL_TURNS above 1; the
peer is transformers' own continuous batching, which needs dense weights. All say the same number of tokens in the same
process, sampled as in the application, and take turns (A B C A B C); the peer, being slow, in the first round alone.
Each runs in a thread that ends with it, as in the application: torch's own threads wait for work spinning only while no
more of them live than there are processors, and the main thread's would live on.

Every figure is a median with its range: read ratios, because machines differ.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from transformers import ContinuousBatchingConfig, GenerationConfig

from benchmarks.reply import conversation, spread
from config import EMBEDDED, Settings
from history import Message
from model import ChatModel, Sampling, load
from model.attention import APART
from model.batch import BatchedModel
from model.passes import PROMPT_TOKENS
from model.prompt import encode

PEOPLE = (1, 2, 4, 8)
ROUNDS = 3
NEW_TOKENS = 48
LEAVING_TOKENS = 8
SAMPLING = Sampling(Settings().warmth(small=True), Settings().top_p, max_new_tokens=NEW_TOKENS, seed=1)

T = TypeVar("T")


class Run(NamedTuple):
    """Seconds until the last of all has their first word, and tokens a second of all, reading included."""

    first: float
    rate: float


class Case(NamedTuple):
    """What is measured: a name, how many people, and the way to answer them."""

    name: str
    people: int
    run: Callable[[], Run]


def person(number: int, turns: int = 1) -> list[Message]:
    """Returns what a person has said and heard; no two say the same."""
    messages = conversation(turns)
    messages[-1] = Message("user", f"Me llamo Eva {number}, y {messages[-1].text}")
    return messages


def heard(model: ChatModel, messages: Sequence[Message], key: str | None = None) -> Iterator[float]:
    """Yields the time of every piece of a reply."""
    for delta in model.stream(messages, SAMPLING, conversation=key):
        if delta.text:
            yield time.perf_counter()


def in_line(model: ChatModel, talks: Sequence[list[Message]]) -> Run:
    start = time.perf_counter()
    stamps = [list(heard(model, messages)) for messages in talks]
    return _run(start, stamps)


def together(model: ChatModel, talks: Sequence[list[Message]], keys: Sequence[str | None] = ()) -> Run:
    """Everybody's reply in a thread of its own, asked for at the same moment."""
    stamps: list[list[float]] = [[] for _ in talks]
    start = time.perf_counter()

    def answer(number: int) -> None:
        stamps[number] = list(heard(model, talks[number], keys[number] if keys else None))

    _all(answer, len(talks))
    return _run(start, stamps)


def with_leavers(model: ChatModel, talks: Sequence[list[Message]]) -> Run:
    """As `together`, but every second person leaves early; counted from then on, for those who stay."""
    stamps: list[list[float]] = [[] for _ in talks]

    def answer(number: int) -> None:
        pieces = heard(model, talks[number])
        stamps[number] = list(islice(pieces, LEAVING_TOKENS) if number % 2 else pieces)
        pieces.close()  # type: ignore[attr-defined]

    _all(answer, len(talks))
    left = max(times[-1] for times in stamps[1::2])
    return _run(left, [[stamp for stamp in times if stamp > left] for times in stamps[::2]])


def kept(model: ChatModel, number: int) -> Run:
    """As `together`, when all have said something before and their conversations are kept."""
    talks, keys = [person(i, turns=3) for i in range(number)], [f"bench {i}" for i in range(number)]
    for messages, key in zip(talks, keys, strict=True):
        model.forget(key)
        list(model.stream(messages[:-1], Sampling(temperature=0, max_new_tokens=1), conversation=key))
    return together(model, talks, keys)


def _all(work: Callable[[int], None], number: int) -> None:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def alone(work: Callable[[], T]) -> T:
    """Does something in a thread of its own, which ends with it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _run(start: float, stamps: Sequence[Sequence[float]]) -> Run:
    taken = max(times[-1] for times in stamps) - start
    return Run(max(times[0] for times in stamps) - start, sum(map(len, stamps)) / taken)


def managed(model: ChatModel, talks: Sequence[list[Message]], *, sampled: bool) -> Run:
    """The peer: transformers' own manager, with the same bound on the tokens of a pass."""
    inner: Any = model._model
    prompts = [encode(model._tokenizer, messages) for messages in talks]
    inner.set_attn_implementation("sdpa")
    way = {"temperature": SAMPLING.temperature, "top_p": SAMPLING.top_p} if sampled else {}
    options = GenerationConfig(do_sample=sampled, eos_token_id=-1, pad_token_id=0, **way)
    sizes = ContinuousBatchingConfig(
        page_size=32, num_blocks=128, max_batch_tokens=PROMPT_TOKENS, per_request_processors=sampled
    )
    manager = inner.init_continuous_batching(generation_config=options, continuous_batching_config=sizes)
    manager.start()
    try:
        manager.add_request(prompts[0][:4], max_new_tokens=2, **way)
        manager.get_result(timeout=60)
        start = time.perf_counter()
        stamps: dict[str, list[float]] = {
            manager.add_request(prompt, max_new_tokens=NEW_TOKENS, streaming=True, **way): [] for prompt in prompts
        }
        while any(len(times) < NEW_TOKENS for times in stamps.values()):
            result = manager.get_result(timeout=60)
            stamps[result.request_id].append(time.perf_counter())
        return _run(start, list(stamps.values()))
    finally:
        manager.stop()
        inner.set_attn_implementation(APART)


def both(quantization: str) -> tuple[ChatModel, BatchedModel]:
    """Returns the two engines on the same weights; no reply ends by itself."""
    line = load(Settings(model_id=EMBEDDED, device="cpu", quantization=quantization))
    batch = BatchedModel(line._model, line._tokenizer, line.describe(), line.context_length)
    line._ends = batch._ends = frozenset()
    return line, batch


def lines(*, rounds: int = ROUNDS) -> Iterator[str]:
    """Yields the lines of the table."""
    talks, thirds = ([person(number, turns) for number in range(max(PEOPLE))] for turns in (1, 3))
    line, batch = alone(lambda: both(""))
    line_16, batch_16 = alone(lambda: both("none"))
    cases = [
        Case("in line", 1, lambda: in_line(line, talks[:1])),
        *[Case("together", n, lambda n=n: together(batch, talks[:n])) for n in PEOPLE],  # type: ignore[misc]
        Case("together; half of them leave: those who stay", 8, lambda: with_leavers(batch, talks)),
        Case("together, third turn", 1, lambda: kept(batch, 1)),
        Case("together, third turn", 8, lambda: kept(batch, 8)),
        Case("bf16: in line", 1, lambda: in_line(line_16, talks[:1])),
        Case("bf16: together", 8, lambda: together(batch_16, talks)),
    ]
    peers = [
        Case("bf16: transformers, greedy", 8, lambda: managed(line_16, talks, sampled=False)),
        Case("bf16: transformers, third turn", 8, lambda: managed(line_16, thirds, sampled=True)),
    ]
    for case in (*cases[:4], *cases[-2:]):
        alone(case.run)  # once, for warming up
    runs: dict[Case, list[Run]] = {case: [] for case in [*cases, *peers]}
    for number in range(rounds):
        for case in [*cases, *peers[: 0 if number else None]]:  # the slow ones once
            runs[case].append(alone(case.run))
    yield from table(runs)


def table(runs: dict[Case, list[Run]]) -> Iterator[str]:
    """Yields the lines of the table; ratios are to the first case."""
    yield "| how | people | tokens/s of all | ratio | last first word, s | ratio |"
    yield "|---|---|---|---|---|---|"
    base = Run(*(statistics.median(values) for values in zip(*next(iter(runs.values())), strict=True)))
    for case, found in runs.items():
        firsts, rates = [run.first for run in found], [run.rate for run in found]
        ratios = statistics.median(rates) / base.rate, statistics.median(firsts) / base.first
        first = "– | –" if "leave" in case.name else f"{spread(firsts, 2)} | {ratios[1]:.1f}"
        yield f"| {case.name} | {case.people} | {spread(rates, 1)} | {ratios[0]:.1f} | {first} |"
