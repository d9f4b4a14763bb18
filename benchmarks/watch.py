"""Measures what safety costs a person in time: seeing risk before a reply, and the guard over its words.

    python -m benchmarks watch    # about half a minute

Messages are the risk messages that the detector learns from, joined until they are long enough; replies are those of
the training dialogues, as a model would say them, a word at a time. The guard holds a sentence back until it has ended:
its delay is the time that a model needs for the first one, which is given in words as well.
"""

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safety
from sentences import Language

ROOT = Path(__file__).parent.parent
LENGTHS = (100, 1000, 4000)  # characters
SAMPLES = 300
RATE = 40.0  # words a second of the model
SEED = 5


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]


def long_texts(length: int) -> list[str]:
    """Returns texts of a length, each of other messages."""
    messages = [turn for row in rows("data/risk_messages.jsonl") for turn in row["turns"]]
    random.Random(SEED).shuffle(messages)  # noqa: S311 - no secret
    source, texts = iter(messages * 20), []
    for _ in range(SAMPLES):
        text = ""
        while len(text) < length:
            text += f"{next(source)} "
        texts.append(text[:length])
    return texts


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def figures(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return " | ".join(f"{v:.1f}" for v in (statistics.median(ordered), ordered[int(0.99 * len(ordered))], ordered[-1]))


def seen(length: int) -> list[float]:
    """Returns how long each of some texts takes to be assessed, in milliseconds."""
    return [milliseconds(partial(safety.assess, [text])) for text in long_texts(length)]


def guarded(reply: str, language: Language) -> tuple[float, float]:
    """Returns the guard's own time over a reply in milliseconds, and the words it has taken when it shows the first."""
    pieces = [f"{word} " for word in reply.split()]
    taken = 0

    def told() -> Iterator[str]:
        nonlocal taken
        for piece in pieces:
            taken += 1
            yield piece

    work = milliseconds(lambda: "".join(safety.guard(iter(pieces), language)))
    next(safety.guard(told(), language))
    return work, float(taken)


def lines() -> Iterator[str]:
    """Yields the lines of the table."""
    safety.assess(["Hola"])  # reads the tables
    yield "| what | median | 99 % | highest |"
    yield "|---|---|---|---|"
    for length in LENGTHS:
        yield f"| seeing risk in {length:,} characters, ms | {figures(seen(length))} |"
    talk = [(m, row["lang"]) for row in rows("demo/plain.jsonl") for m in row["messages"] if m["role"] == "assistant"]
    sample = random.Random(SEED).sample(talk, SAMPLES)  # noqa: S311 - no secret
    work, held = zip(*(guarded(message["content"], language) for message, language in sample), strict=True)
    delays = [1000 * (words - 1) / RATE for words in held]
    yield f"| the guard's own work over a whole reply, ms | {figures(work)} |"
    yield f"| words that the model has said when the first is shown | {figures(held)} |"
    yield f"| what it said after the first, at {RATE:.0f} words a second, ms | {figures(delays)} |"
