"""Prompts to begin with: answered at once by what was said before, and nobody's own words ever are."""

import asyncio
from typing import Any, cast

import pytest
from playwright.sync_api import expect

import safety
from history import Conversation, Message
from model import ChatModel
from sentences import LANGUAGES, Language
from sentences import say as sentence
from session import Session
from starters import NUMBERS, Starters, is_starter
from tests.browser import Visiting
from tests.fakes import FakeModel
from tests.test_chat import chat_with, run, say

PROMPTS = [(language, sentence(language, f"page.starter.{number}")) for language in LANGUAGES for number in NUMBERS]
TRISTE = sentence("es", "page.starter.2")


@pytest.mark.parametrize(("language", "words"), PROMPTS)
def test_a_prompt_is_no_risk_and_is_known_as_ours(language: Language, words: str) -> None:
    found = safety.assess([words])
    assert (found.level, found.language or language) == ("none", language)
    assert is_starter(words)
    assert not is_starter(f"{words} hoy")


def test_the_second_person_gets_the_first_ones_reply_without_the_model() -> None:
    model = FakeModel()
    model.enqueue("Te ", "escucho.")
    chat = chat_with(model)
    first, second = (run(say(chat, Session(language="es"), TRISTE)) for _ in range(2))
    assert [update.text for update in second] == ["Te escucho."]
    assert second[-1] == first[-1]
    assert len(model.prompts) == 1


def test_it_is_given_without_waiting_in_line() -> None:
    model = FakeModel(seconds=1.0)
    chat = chat_with(model, parallel_turns=1, queue_size=1)
    run(say(chat, Session(language="es"), TRISTE))

    async def crowd() -> str:
        busy = [asyncio.create_task(say(chat, Session(language="es"), f"hola {n}")) for n in range(2)]
        await asyncio.sleep(0.1)
        found = (await say(chat, Session(language="es"), TRISTE))[-1]
        assert not any(task.done() for task in busy)
        await asyncio.gather(*busy)
        return found.text

    assert run(crowd()) == "Te leo."


def test_who_asks_again_gets_a_new_reply() -> None:
    model, session = FakeModel(), Session(language="es")
    chat = chat_with(model)
    run(say(chat, session, TRISTE))
    session.conversation = Conversation()  # as after undo or retry
    run(say(chat, session, TRISTE))
    assert len(model.prompts) == 2
    chat.new(session)
    run(say(chat, session, TRISTE))
    assert len(model.prompts) == 2


@pytest.mark.parametrize("words", ["Hoy me siento triste.", "me llamo Eva", "hoy me siento triste"])
def test_nobodys_own_words_are_answered_from_memory(words: str) -> None:
    model = FakeModel()
    chat = chat_with(model)
    for number in range(3):
        model.enqueue(f"Respuesta {number}.")
        assert run(say(chat, Session(language="es"), words))[-1].text == f"Respuesta {number}."
    assert not len(chat.starters)


def test_a_prompt_in_the_middle_of_a_conversation_is_answered_by_the_model() -> None:
    model = FakeModel()
    chat = chat_with(model)
    run(say(chat, Session(language="es"), TRISTE))
    session = Session(language="es")
    for words in ("Me llamo Eva", TRISTE):
        run(say(chat, session, words))
    assert len(model.prompts) == 3
    assert len(chat.starters) == 1


@pytest.mark.parametrize("carried", ["elevated", "crisis"])
def test_after_a_risk_nothing_comes_from_memory_and_nothing_goes_there(carried: safety.Level) -> None:
    model = FakeModel(demonstration=False)
    chat = chat_with(model)
    at_risk = Session(language="es", level=carried, carried=carried)
    run(say(chat, at_risk, TRISTE))
    assert not len(chat.starters)
    run(say(chat, Session(language="es"), TRISTE))
    at_risk = Session(language="es", level=carried, carried=carried)
    before = len(model.prompts)
    run(say(chat, at_risk, TRISTE))
    assert len(model.prompts) == before + 1


@pytest.mark.parametrize(
    ("finish", "pieces"), [("length", ["Te "]), ("stop", ["Soy psicólogo y te diagnostico depresión."])]
)
def test_a_reply_that_was_cut_or_taken_back_is_not_remembered(finish: str, pieces: list[str]) -> None:
    model = FakeModel()
    model.enqueue(*pieces, finish=finish)
    chat = chat_with(model)
    run(say(chat, Session(language="es"), TRISTE))
    assert not len(chat.starters)


def key_of(model: FakeModel, session: Session, **settings: Any) -> str:
    return chat_with(model, **settings).speaker.key(session, cast(ChatModel, model))


def test_other_settings_languages_and_models_have_replies_of_their_own() -> None:
    session = Session(language="es")
    session.conversation.messages.append(Message("user", TRISTE))
    keys = [key_of(FakeModel(), session, **own) for own in ({}, {"temperature": 0.9}, {"system_prompt": "."})]
    keys.append(key_of(FakeModel(demonstration=False), session))
    session.language = "en"
    keys.append(key_of(FakeModel(), session))
    assert len(set(keys)) == len(keys)
    assert all(TRISTE not in key for key in keys)


def test_the_longest_unused_is_dropped() -> None:
    replies = Starters(limit=2)
    for key in ("a", "b"):
        replies.put(key, key)
    assert replies.get("a") == "a"
    replies.put("c", "c")
    assert [replies.get(key) for key in "abc"] == ["a", "", "c"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_prompt_is_sent_with_one_press_and_makes_room_for_the_conversation(
    brief_url: str, visit: Visiting, language: Language
) -> None:
    me = visit(f"{brief_url}?lang={language}")
    group = me.find("#starters [role=group]")
    expect(group).to_have_attribute("aria-label", sentence(language, "page.starters"))
    button = group.get_by_role("button", name=sentence(language, "page.starter.3"))
    button.focus()
    me.page.keyboard.press("Enter")
    me.settled(2)
    expect(me.rows.first).to_contain_text(sentence(language, "page.starter.3"))
    expect(group).to_be_hidden()
    me.find("#new").click()
    expect(group).to_be_visible()
