"""Measures what the page adds to the model: the way of a word to the screen, many streams at once, memory of sessions.

    python -m benchmarks page    # about three minutes

The model is `benchmarks.clockwork`, which notes when it says its words, 30 a second. A real browser, 20 turns into a
conversation, notes when it has painted each. The other people are clients of the API on the same machine, and so is the
browser: all share its processors.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

from benchmarks.clockwork import RATE, SHORT, WATCHED, WORD, WORDS
from benchmarks.people import Heard, Talk, gradio, together
from benchmarks.serving import Peer, running, warm
from tests.browser import Visit, launch

OTHERS = (0, 49)
STREAMS = (50, 200)
TURNS = 20
SESSIONS, AT_ONCE = 1000, 20
SETTINGS = {
    "PARALLEL_TURNS": "256", "QUEUE_SIZE": "256", "MESSAGES_PER_MINUTE": "1000", "MAX_NEW_TOKENS": "400",
    "SESSION_GRACE_SECONDS": "1",
}  # fmt: skip
# Notes when the browser has painted how many words of the last bubble.
WATCH = """
() => {
  window.painted = [];
  let due = false;
  const look = () => {
    due = false;
    const replies = [...document.querySelectorAll("#chat [data-testid=bot]")];
    if (replies.length > window.before) painted.push([replies.at(-1).innerText.split("Sigo").length - 1, Date.now()]);
  };
  new MutationObserver(() => { if (!due) requestAnimationFrame(look); due = true; })
    .observe(document.querySelector("#chat"), { childList: true, subtree: true, characterData: true });
}
"""


class Crowd(threading.Thread):
    """Other people, who talk to the server for as long as somebody watches."""

    def __init__(self, talk: Talk, people: int) -> None:
        super().__init__(daemon=True)
        self._talk, self._people = talk, people
        self.heard: list[Heard] = []

    def run(self) -> None:
        self.heard = together(self._talk, [f"Hola, soy {number}" for number in range(self._people)])


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median, the 95th percentile and the highest."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1]


def late(said: Sequence[float], painted: Sequence[tuple[int, float]]) -> list[float]:
    """Returns for each word how long after it was said, in milliseconds, the page showed as many."""
    return [next(at for words, at in painted if words > number) - moment for number, moment in enumerate(said)]


def painted(url: str, talk: Talk, clock: Path) -> Iterator[str]:
    """Yields a row for each number of other people: how late words were painted, 20 turns into a conversation."""
    with sync_playwright() as driver:
        browser = launch(driver)
        me = Visit(browser.new_context(locale="es-ES"), url)
        for number in range(TURNS):
            me.send(f"{SHORT} {number}")
            me.settled(2 * number + 2)
        me.page.evaluate(WATCH)
        for turn, others in enumerate(OTHERS, start=TURNS):
            crowd = Crowd(talk, others)
            crowd.start()
            time.sleep(0.5)
            me.page.evaluate(f"painted.length = 0; window.before = {turn}")
            me.send(WATCHED)
            me.settled(2 * turn + 2)
            crowd.join()
            said = [float(line) for line in clock.read_text(encoding="utf-8").splitlines()]
            middle, high, most = quantiles(late(said, me.page.evaluate("painted")))
            yield (
                f"| word painted, {turn + 1}th turn, {others + 1} streaming, ms after it was said "
                f"| {middle:.0f} | {high:.0f} | {most:.0f} |"
            )
        browser.close()


def streamed(talk: Talk) -> Iterator[str]:
    """Yields a row for each number of streams: how long those took that have no network and no browser."""
    for people in STREAMS:
        found = together(talk, [f"Hola, soy {number}" for number in range(people)])
        complete = sum(each.text.lower().count(WORD) == WORDS for each in found)
        middle, high, most = quantiles([each.last for each in found])
        first = quantiles([each.first for each in found])
        yield (
            f"| {people} streams of {WORDS / RATE:.0f} s: seconds, {complete} of {people} complete "
            f"| {middle:.1f} | {high:.1f} | {most:.1f} |"
        )
        yield f"| … their first words, s | {first[0]:.2f} | {first[1]:.2f} | {first[2]:.2f} |"


def lines() -> Iterator[str]:
    """Yields the lines of both tables."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"
        environment = {**SETTINGS, "CLOCK_FILE": str(clock)}
        clockwork = Peer("page", lambda _: [sys.executable, "-m", "benchmarks.clockwork"], environment, gradio)
        with running(clockwork) as (url, process):
            talk = gradio(url)
            warm(url, talk)
            yield "| what | median | 95 % | highest |"
            yield "|---|---|---|---|"
            yield from painted(url, talk, clock)
            yield from streamed(talk)
            yield "\n| finished sessions | server, MB |"
            yield "|---|---|"
            yield from remembered(talk, process)


def remembered(talk: Talk, process: psutil.Process) -> Iterator[str]:
    """Yields the server's memory after some numbers of sessions that have ended."""
    done = 0
    for goal in (SESSIONS // 4, SESSIONS // 2, SESSIONS):
        while done < goal:
            done += len(together(talk, [SHORT] * AT_ONCE))
        time.sleep(3)
        yield f"| {done} | {process.memory_info().rss / 1e6:.0f} |"
