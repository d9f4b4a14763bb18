"""Runs the benchmarks, and writes what they found into `benchmarks/results.md`.

    python -m benchmarks                  # all of them; about a quarter of an hour
    python -m benchmarks reply page       # these; the others' results stay
    python -m benchmarks reply --cold     # with the conversion of a first start

Read ratios within one table, because machines differ, and only where the load at the start was low.
"""

import argparse
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from benchmarks import many, page, reply, serving, watch

RESULTS = Path(__file__).parent / "results.md"
PARTS: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "reply": ("One person's reply", reply.lines),
    "many": ("Several people and one model", many.lines),
    "servers": ("Whole servers", serving.lines),
    "page": ("What the page adds", page.lines),
    "watch": ("What safety costs", watch.lines),
}


def section(title: str, name: str, lines: Callable[[], Iterator[str]]) -> str:
    """Runs one benchmark and returns its part of the results; prints each line as it comes."""
    load, start, found = os.getloadavg()[0], time.perf_counter(), []
    for line in lines():
        print(line, flush=True)
        found.append(line)
    machine = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    taken = f"{datetime.now(UTC):%Y-%m-%d}, {time.perf_counter() - start:.0f} s"
    loads = f"load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end (its own included)"
    head = f"`python -m benchmarks {name}`: {taken}; {machine}; {loads}."
    return "\n".join([f"## {title}", "", head, "", *found, ""])


def written(text: str, title: str, part: str) -> str:
    """Returns the results with one part in the place of what was there under its title, or after all others."""
    old = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    return old.sub(lambda _: f"{part}\n", text) if old.search(text) else f"{text.rstrip()}\n\n{part}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them when none is named")
    parser.add_argument("--cold", action="store_true", help="also convert the model as on a first start")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in options.parts or PARTS:
        title, lines = PARTS[name]
        part = section(title, name, partial(reply.lines, cold=True) if options.cold and name == "reply" else lines)
        before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
        RESULTS.write_text(written(before, title, part).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
