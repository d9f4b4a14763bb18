"""The liking for the person's words: which tokens, until when, and what it does to the embedded model's replies."""

import json
from pathlib import Path

import pytest
import torch

from demo.vocabulary import everyday
from history import Message
from model import ChatModel, Sampling
from model.echo import FILE, Echoes
from model.loader import ADAPTER
from tests import tiny

BONUS = 2.5


@pytest.fixture(scope="module")
def echoes() -> Echoes:
    return Echoes(tiny.tokenizer(tiny.GEMMA), ["hoy", "te"], BONUS)


def ids(echoes: Echoes, text: str) -> list[int]:
    return list(echoes.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


def grown(echoes: Echoes, message: str, reply: str) -> list[bool]:
    """Tells of each token of a reply whether it was liked where it came."""
    echo, said = echoes.of(message), ids(echoes, reply)
    return [token in echo.liked(said[:place]) for place, token in enumerate(said)]


@pytest.mark.parametrize("reply", ["Perdiste", "Perdiste el tren.", "Hoy perdiste, hoy?", "Hoy te perdiste!"])
def test_words_that_are_said_back_are_liked_from_beginning_to_end(echoes: Echoes, reply: str) -> None:
    assert all(grown(echoes, "hoy perdí el tren", reply))


def test_a_word_of_nobodys_is_not_liked(echoes: Echoes) -> None:
    assert not all(grown(echoes, "hoy perdí el tren", "Perdiste el camión"))


def test_after_a_word_of_nobodys_the_next_is_liked_again(echoes: Echoes) -> None:
    found = grown(echoes, "perdí el tren", "Perdiste wxyz el tren")
    assert not all(found)
    assert all(found[-len(ids(echoes, " tren")) :])


def test_nothing_is_liked_after_the_first_sentence(echoes: Echoes) -> None:
    said = ids(echoes, "Perdiste el tren.")
    echo = echoes.of("hoy perdí el tren")
    assert echo.liked(said[:-1])
    assert echo.liked(said) == []
    assert echo.liked([*said, *ids(echoes, " Hoy")]) == []


def test_what_is_liked_gains_and_the_rest_stays(echoes: Echoes) -> None:
    logits = torch.zeros(len(echoes.tokenizer), dtype=torch.bfloat16)
    echo = echoes.of("perdí el tren")
    liked = set(echo.liked([]))
    shifted = echo.prefer(logits, [])
    assert shifted.dtype == torch.float32
    assert {number for number, gain in enumerate(shifted.tolist()) if gain} == liked
    assert {shifted[number].item() for number in liked} == {BONUS}
    assert not logits.any()


def test_what_ends_a_reply_is_never_liked(echoes: Echoes) -> None:
    special = set(echoes.tokenizer.all_special_ids)
    said = ids(echoes, "Hoy te perdiste el tren, hoy")
    echo = echoes.of(f"hoy perdí {''.join(tiny.MARKS)} el tren")
    assert not any(special & set(echo.liked(said[:place])) for place in range(len(said)))


def test_an_adapter_that_says_nothing_of_it_has_none(tmp_path: Path) -> None:
    assert Echoes.read(tmp_path, tiny.tokenizer(tiny.GEMMA)) is None
    assert Echoes.read(None, tiny.tokenizer(tiny.GEMMA)) is None


def test_our_adapters_words_are_those_of_our_dialogues() -> None:
    told = json.loads((ADAPTER / FILE).read_text(encoding="utf-8"))
    assert told["words"] == everyday()  # written before the last dialogues? python -m demo.vocabulary


@pytest.mark.parametrize("message", ["Soy relojero en Tarazona y cerré.", "I mend clocks in Ballinasloe and closed."])
def test_the_embedded_model_likes_the_words_of_a_message(embedded: ChatModel, message: str) -> None:
    assert embedded.echoes is not None
    town = message.rsplit(" in ", maxsplit=1)[-1].rsplit(" en ", maxsplit=1)[-1].split(maxsplit=1)[0]
    echo, said = embedded.echoes.of(message), ids(embedded.echoes, f"Hoy te {town}")
    begun = said[: len(ids(embedded.echoes, "Hoy te"))]
    plain = torch.zeros(len(embedded.echoes.tokenizer))
    assert echo.prefer(plain, begun)[said[len(begun)]] == embedded.echoes.bonus


def test_a_reply_that_is_gone_on_with_is_not_turned_to_the_persons_words(embedded: ChatModel) -> None:
    talk = [Message("user", "Hoy he cerrado mi tienda."), Message("assistant", "Has cerrado tu tienda. Te")]
    assert embedded.echoes is not None
    kept, embedded.echoes = embedded.echoes, None
    try:
        without = "".join(delta.text for delta in embedded.stream(talk, Sampling(temperature=0, max_new_tokens=12)))
    finally:
        embedded.echoes = kept
    assert "".join(delta.text for delta in embedded.stream(talk, Sampling(temperature=0, max_new_tokens=12))) == without
