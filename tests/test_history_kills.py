"""Processes are killed in the middle of an append, of a commit, of a reply: nothing acknowledged is lost or doubled."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.services.hub import Fault
from tests.services.killed import Job, Killable, gone, new_job
from tests.services.places import KINDS, SALT, Place
from tests.services.stores import TOKEN

pytest_plugins = ["tests.services.places"]
KILLS = {"sqlite": 64, "postgresql": 56, "dataset": 48, "bucket": 40}  # 208 in all
TERMINATED = 4  # every so many gets SIGTERM, the others SIGKILL
AT_ONCE = 2  # processes on one store
PEOPLE = 4


@pytest.fixture(scope="module")
def killable() -> Iterator[Killable]:
    with Killable(SALT, TOKEN) as process:
        yield process


@dataclass
class Killed:
    """One process that is no more: what it did, what was acknowledged, and how it ended."""

    job: Job
    journal: str
    acknowledged: list[str]
    terminated: bool


def kill_one(killable: Killable, place: Place, owner: str, number: int) -> Killed:
    """Starts a process, kills it at some moment after its first messages, and returns what it was told."""
    chance = random.Random(number)
    job = new_job(
        place.url, place.folder, place.hub.url if place.hub else "", owner, chance.choice(["append", "reply"])
    )
    pid, path = killable.start(job), Path(job.acks)
    commits = len(place.hub.log) if place.hub else 0
    wanted, deadline = chance.randrange(2, 12), time.monotonic() + 30
    while not path.exists() or path.read_bytes().count(b"\n") < wanted:
        assert time.monotonic() < deadline and Path(f"/proc/{pid}").exists(), "it said nothing"
        time.sleep(0.002)
    if place.hub and number % 3 == 0:  # in the very middle of a commit
        written = place.documents_request().split(" ")[1].split(".*")[1]
        while not any(written in line for line in place.hub.log[commits:]) and time.monotonic() < deadline:
            commits = max(commits, len(place.hub.log) - 1)
            time.sleep(0.0005)
    else:
        time.sleep(chance.random() * 0.03)
    terminated = number % TERMINATED == 0
    os.kill(pid, signal.SIGTERM if terminated else signal.SIGKILL)
    assert gone(pid, 30)
    name, *ids = path.read_text().splitlines()
    return Killed(job, name, ids, terminated)


def check(place: Place, killed: list[Killed], documents: dict[str, Any]) -> int:
    """Counts every message that was acknowledged, and returns how many there were."""
    lost = doubled = 0
    for one in killed:
        document = documents.get(f"{one.job.owner}/{one.job.conversation}", {"messages": []})
        ids = [row["id"] for row in document["messages"]]
        there = Counter(ids)
        lost += sum(1 for id in one.acknowledged if not there[id])
        doubled += sum(1 for count in there.values() if count > 1)
        assert [id for id in ids if id in set(one.acknowledged)] == one.acknowledged, "in another order"
        numbers = [int(row["text"].split()[0]) for row in document["messages"] if row["role"] == "user"]
        assert numbers == list(range(len(numbers))), "with gaps"
    assert (lost, doubled) == (0, 0)
    return sum(len(one.acknowledged) for one in killed)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_whoever_is_killed_loses_and_doubles_nothing(
    place: Place, killable: Killable, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("history.stores.buckets.SETTLE_SECONDS", 0.3)
    archive = place.archive()
    people = [archive.owner(secret=archive.new_secret()) for _ in range(PEOPLE)]
    for owner in people:
        archive.consent(owner, True)
    assert archive.close(20)
    if place.hub:
        place.fail(Fault(place.documents_request(), "delay", times=10**6, seconds=0.02))
    began, numbers = time.monotonic(), range(KILLS[place.kind])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        killed = list(pool.map(lambda n: kill_one(killable, place, people[n % PEOPLE], n), numbers))
    seconds = time.monotonic() - began
    last = place.archive()  # takes over what the last ones left
    deadline = time.monotonic() + 60
    while last._journal.pending() and time.monotonic() < deadline:
        last._mover.flush(5)
    assert last.close(20) and list((place.folder / "journal").rglob("*.jsonl")) == []
    told = check(place, killed, place.documents())
    assert len(killed) == KILLS[place.kind] and told > 5 * len(killed)
    print(f"{place.kind}: {len(killed)} killed in {seconds:.1f} s, {told} messages acknowledged, each there once")


@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_a_process_that_is_asked_to_end_leaves_nothing_in_its_journal(place: Place, killable: Killable) -> None:
    archive = place.archive()
    owner = archive.owner(secret=archive.new_secret())
    archive.consent(owner, True)
    assert archive.close(20)
    killed = kill_one(killable, place, owner, 0)
    assert killed.terminated
    left = {path.name for path in (place.folder / "journal").rglob("*.jsonl")}
    assert killed.journal not in left or place.kind == "bucket"  # there it is kept until it was looked at again
    check(place, [killed], place.documents())


def test_two_hundred_are_killed_in_one_run() -> None:
    assert sum(KILLS.values()) >= 200
