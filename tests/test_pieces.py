"""A reply on its way into the event loop: nothing is lost where many are on theirs, and each is told less often."""

import asyncio
import time
from collections.abc import Iterator

import pytest

import pieces
from pieces import Piece, in_thread

WORDS = [f"{number} " for number in range(20)]


def spoken(pause: float = 0.0) -> Iterator[Piece]:
    for word in WORDS:
        yield Piece(word)
        time.sleep(pause)
    yield Piece("", "stop")


async def heard(replies: list[Iterator[Piece]]) -> list[list[Piece]]:
    async def all_of(reply: Iterator[Piece]) -> list[Piece]:
        return [piece async for piece in in_thread(reply, lambda: None)]

    return await asyncio.gather(*map(all_of, replies))


def test_one_reply_is_told_word_by_word() -> None:
    (found,) = asyncio.run(heard([spoken(0.02)]))
    assert len(found) > len(WORDS) / 2 and found[0].text.startswith("0 ")


def test_the_more_replies_the_fewer_updates_of_each_and_no_word_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "UPDATES", 40)  # with 40 replies one a second of each, and they last 0.4 s
    found = asyncio.run(heard([spoken(0.02) for _ in range(40)]))
    for each in found:
        assert "".join(piece.text for piece in each) == "".join(WORDS)
        assert each[-1].finish == "stop" and len(each) <= 4
    assert not pieces._received


def test_a_reply_that_nobody_hears_any_more_holds_no_other_up() -> None:
    async def left() -> None:
        reply = in_thread(spoken(0.01), lambda: None)
        await anext(reply)
        assert len(pieces._received) == 1
        await reply.aclose()

    asyncio.run(left())
    assert not pieces._received


def test_what_fails_in_the_thread_comes_out_after_the_words() -> None:
    def broken() -> Iterator[Piece]:
        yield Piece("Hola")
        raise ValueError("kaputt")

    async def read() -> list[str]:
        texts: list[str] = []
        with pytest.raises(ValueError, match="kaputt"):
            async for piece in in_thread(broken(), lambda: None):
                texts.append(piece.text)
        return texts

    assert asyncio.run(read()) == ["Hola"] and not pieces._received
