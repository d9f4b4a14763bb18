"""A reply on its way into the event loop: nothing is lost where many are on theirs, and each is told less often."""

import asyncio
import time
from collections.abc import Iterator

import pytest

import speaker
from pieces import Piece, in_thread
from session import Session
from speaker import Update
from tests.fakes import FakeModel
from tests.test_chat import chat_with, run, say

WORDS = [f"Digo {number}. " for number in range(20)]


def spoken() -> Iterator[Piece]:
    for word in WORDS:
        yield Piece(word)
        time.sleep(0.02)
    yield Piece("", "stop")


async def heard(reply: Iterator[Piece]) -> list[str]:
    return [piece.text async for piece in in_thread(reply, lambda: None)]


def test_a_reply_comes_as_it_is_said() -> None:
    found = asyncio.run(heard(spoken()))
    assert "".join(found) == "".join(WORDS) and len(found) > len(WORDS) / 2


def test_what_fails_in_the_thread_comes_out_after_the_words() -> None:
    def broken() -> Iterator[Piece]:
        yield Piece("Hola")
        raise ValueError("kaputt")

    texts: list[str] = []

    async def read() -> None:
        async for piece in in_thread(broken(), lambda: None):
            texts.append(piece.text)

    with pytest.raises(ValueError, match="kaputt"):
        asyncio.run(read())
    assert texts == ["Hola"]


@pytest.mark.parametrize(("updates", "least", "most"), [(1000, 7, 30), (2, 2, 3)])
def test_the_more_replies_at_once_the_fewer_updates_and_no_word_is_lost(
    monkeypatch: pytest.MonkeyPatch, updates: int, least: int, most: int
) -> None:
    monkeypatch.setattr(speaker, "COALESCE_SECONDS", 0.01)
    monkeypatch.setattr(speaker, "UPDATES", updates)  # with 2 a second, one of a single person each half second
    model = FakeModel(seconds=0.02)
    model.enqueue(*WORDS)
    told: list[Update] = run(say(chat_with(model), Session(), "Hola"))
    assert told[-1].text.strip() == "".join(WORDS).strip() and told[-1].finish == "stop"
    assert least <= len(told) <= most
