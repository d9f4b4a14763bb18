"""Measures whole servers over HTTP: this app, the usual chat Space, `transformers serve`, and llama.cpp's server.

    python -m benchmarks servers    # about five minutes

Each server runs alone, is asked once to warm up, and is then talked to by 1, 4 and 16 people at the same moment. All
serve the embedded model: ours in packed weights, transformers in bf16 with the adapter merged, llama.cpp the GGUF file
without the adapter. Those of llama.cpp and `transformers serve` are left out where their packages are missing
(`pip install xllamacpp`, `pip install openai`). Read ratios: machines differ, and a reply ends when the model ends it.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from benchmarks.people import Talk, gradio, openai, together
from config import EMBEDDED, Settings
from model import embedded, load
from sentences import say

PEOPLE = (1, 4, 16)
NEW_TOKENS = 48
ROUNDS = 3
START_SECONDS = 180.0
SAID = "Hoy discutí con mi hermana {number} por una tontería y llevo toda la tarde dándole vueltas."


class Peer(NamedTuple):
    """A server: its name, the command that starts it on a port, its environment, and how it is talked to."""

    name: str
    command: Callable[[int], list[str]]
    environment: dict[str, str]
    talk: Callable[[str], Talk]


class Row(NamedTuple):
    """What a number of people saw of a server: seconds to the first words, words a second of all, and its memory."""

    people: int
    first: float
    last_first: float
    rate: float
    memory: int
    failed: int


def peers(folder: Path) -> Iterator[Peer]:
    """Yields what can be measured here, with the files that each needs."""
    ours = {"MODEL_ID": EMBEDDED, "MAX_NEW_TOKENS": str(NEW_TOKENS), "QUEUE_SIZE": "64"}
    app = [sys.executable, "app.py"]
    for name, turns in (("ours, one at a time", "1"), ("ours, together", "16")):
        yield Peer(name, lambda _: app, {**ours, "PARALLEL_TURNS": turns}, gradio)
    template = [sys.executable, "-m", "benchmarks.template"]
    yield Peer("usual Space", lambda port: [*template, str(port), str(NEW_TOKENS)], {}, gradio)
    system = say("es", "model.system")
    if find_spec("openai"):
        loaded: Any = load(Settings(model_id=EMBEDDED, quantization="none"))
        merged = getattr(loaded._model, "merge_and_unload", lambda: loaded._model)()
        merged.save_pretrained(folder / "merged")
        loaded._tokenizer.save_pretrained(folder / "merged")
        serve = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder / "merged")]
        serve += ["--continuous-batching", "--device", "cpu", "--dtype", "bfloat16", "--cb-num-blocks", "128"]
        serve += ["--cb-max-batch-tokens", "512"]
        yield Peer(
            "transformers serve",
            lambda port: [*serve, "--port", str(port), "--host", "127.0.0.1"],
            {},
            lambda url: openai(url, str(folder / "merged"), system, NEW_TOKENS),
        )
    if find_spec("xllamacpp"):
        file = folder / embedded.GGUF_NAME
        embedded._assemble(file, embedded.unheard)
        llama = [sys.executable, "-m", "benchmarks.llama_server", str(file)]
        rest = [str(torch.get_num_threads()), str(max(PEOPLE))]
        yield Peer(
            "llama.cpp server, no adapter",
            lambda port: [*llama, str(port), *rest],
            {},
            lambda url: openai(url, "any", system, NEW_TOKENS),
        )


@contextmanager
def running(peer: Peer) -> Iterator[tuple[str, psutil.Process]]:
    """Runs a server until the block ends, and yields its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **peer.environment, "GRADIO_SERVER_PORT": str(port)}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(peer.command(port), env=environment, stdout=log, stderr=log)  # noqa: S603 - ours
        try:
            yield f"http://127.0.0.1:{port}/", psutil.Process(server.pid)
        finally:
            server.terminate()
            server.wait(30)


def measured(peer: Peer, rounds: int) -> Iterator[Row]:
    """Yields a row for each number of people."""
    with running(peer) as (url, process):
        talk = peer.talk(url)
        warm(url, talk)
        said = iter(range(10_000))
        for people in PEOPLE:
            runs = [one(talk, [SAID.format(number=next(said)) for _ in range(people)]) for _ in range(rounds)]
            family = [process, *process.children(recursive=True)]
            memory = sum(each.memory_info().rss for each in family)
            firsts, lasts, rates, failed = zip(*runs, strict=True)
            middle = [statistics.median(values) for values in (firsts, lasts, rates)]
            yield Row(people, middle[0], middle[1], middle[2], memory, sum(failed))


def one(talk: Talk, said: list[str]) -> tuple[float, float, float, int]:
    """Returns the median and the last of the first words, words a second of all, and how many failed."""
    start = time.perf_counter()
    found = together(talk, said)
    taken = time.perf_counter() - start
    firsts = [each.first for each in found] or [float("nan")]
    words = sum(len(each.text.split()) for each in found)
    return statistics.median(firsts), max(firsts), words / taken, len(said) - len(found)


def warm(url: str, talk: Talk) -> None:
    """Waits until a server answers, and lets it answer once."""
    end = time.monotonic() + START_SECONDS
    while not together(talk, ["Hola."]):
        if time.monotonic() > end:
            raise TimeoutError(f"no answer from {url}")
        time.sleep(1)


def lines(*, rounds: int = ROUNDS) -> Iterator[str]:
    """Yields the lines of the table; ratios are to our own server with one person."""
    yield "| server | people | first words, s | of the last, s | words/s of all | ratio | memory, MB | failed |"
    yield "|---|---|---|---|---|---|---|---|"
    base = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for peer in peers(Path(folder)):
            for row in measured(peer, rounds):
                base = base or row.rate
                yield (
                    f"| {peer.name} | {row.people} | {row.first:.2f} | {row.last_first:.2f} | {row.rate:.1f} "
                    f"| {row.rate / base:.2f} | {row.memory / 1e6:.0f} | {row.failed} |"
                )
