"""Measures what the page adds to the model: the way of a word to the screen, many streams at once, memory of sessions.

    python -m benchmarks.page        # prints a table; about three minutes

The model is `benchmarks.clockwork`, whose words tell when they were said, 30 a second. A real browser, 20 turns into a
conversation, notes when it has painted each. The other people are clients of the API on the same machine, and so is the
browser: all share its processors.
"""

import argparse
import itertools
import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from playwright.sync_api import sync_playwright

from benchmarks.clockwork import RATE, SHORT, WORDS
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
# Notes for each word of the last bubble how long after it was said the browser had painted it.
WATCH = """
() => {
  window.late = [];
  let known = 0, due = false;
  const look = () => {
    due = false;
    const words = ([...document.querySelectorAll("#chat [data-testid=bot]")].at(-1)?.innerText || "").split(/\\s+/);
    const now = Date.now(), fresh = words.filter((word) => /^\\d{13}$/.test(word) && Number(word) > known);
    for (const word of fresh) late.push(now - Number(word));
    if (fresh.length) known = Number(fresh.at(-1));
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


def painted(url: str, talk: Talk) -> Iterator[str]:
    """Yields a row for each number of other people: how late words were painted, 20 turns into a conversation."""
    with sync_playwright() as driver:
        browser = launch(driver)
        me = Visit(browser.new_context(locale="es-ES"), url)
        for number in range(TURNS):
            me.send(f"{SHORT} {number}")
            me.settled(2 * number + 2)
        me.page.evaluate(WATCH)
        for turn, others in enumerate(OTHERS, start=TURNS):
            me.page.evaluate("late.length = 0")
            crowd = Crowd(talk, others)
            crowd.start()
            me.send("Cuéntame")
            me.settled(2 * turn + 2)
            crowd.join()
            middle, high, most = quantiles(me.page.evaluate("late"))
            yield (
                f"| word painted, {turn + 1}th turn, {others + 1} streaming, ms after it was said "
                f"| {middle:.0f} | {high:.0f} | {most:.0f} |"
            )
        browser.close()


def streamed(talk: Talk) -> Iterator[str]:
    """Yields a row for each number of streams: how long those took that have no network and no browser."""
    for people in STREAMS:
        found = together(talk, [f"Hola, soy {number}" for number in range(people)])
        complete = sum(len(re.findall(r"\d{13}", each.text)) == WORDS for each in found)
        middle, high, most = quantiles([each.last for each in found])
        first = quantiles([each.first for each in found])
        yield (
            f"| {people} streams of {WORDS / RATE:.0f} s: seconds, {complete} of {people} complete "
            f"| {middle:.1f} | {high:.1f} | {most:.1f} |"
        )
        yield f"| … their first words, s | {first[0]:.2f} | {first[1]:.2f} | {first[2]:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    before = os.getloadavg()[0]
    clockwork = Peer("page", lambda _: [sys.executable, "-m", "benchmarks.clockwork"], SETTINGS, gradio)
    with running(clockwork) as (url, process):
        talk = gradio(url)
        warm(url, talk)
        print("| what | median | 95 % | highest |\n|---|---|---|---|", flush=True)
        for line in itertools.chain(painted(url, talk), streamed(talk)):
            print(line, flush=True)
        print("\n| finished sessions | server, MB |\n|---|---|", flush=True)
        done = 0
        for goal in (SESSIONS // 4, SESSIONS // 2, SESSIONS):
            while done < goal:
                done += len(together(talk, [SHORT] * AT_ONCE))
            time.sleep(3)
            print(f"| {done} | {process.memory_info().rss / 1e6:.0f} |", flush=True)
    print(f"\n{os.cpu_count()} cores, load {before:.1f} at the start and {os.getloadavg()[0]:.1f} at the end.")


if __name__ == "__main__":
    main()
