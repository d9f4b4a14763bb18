"""A crisis: the card and reviewed words at once, then at most a short paragraph of the model, whatever it tries."""

import asyncio
import threading
import time
from contextlib import aclosing
from typing import Any

import pytest

import chat as chat_module
from chat import Chat
from config import Settings
from errors import ModelError, RemansoError
from model.host import Host
from safety.card import card_in
from sentences import LANGUAGES, Language, say
from session import Session
from speaker import Update
from tests.fakes import FakeModel, Script
from tests.test_chat import chat_with, run
from tests.test_chat import say as talk
from tests.test_guard import WORST

DANGER: dict[Language, str] = {"es": "Quiero matarme esta noche.", "en": "I want to kill myself tonight."}
WARM: dict[Language, str] = {
    "es": "Siento mucho que estés sufriendo tanto. Gracias por contármelo.",
    "en": "I'm so sorry that you are in this much pain. Thank you for telling me.",
}


def big(*pieces: "str | Exception", seconds: float = 0.0) -> FakeModel:
    """Returns a model that is no demonstration and says this once."""
    model = FakeModel(seconds=seconds, demonstration=False)
    model.enqueue(*pieces)
    return model


def fixed(language: Language) -> str:
    """The reviewed words of a first turn."""
    return say(language, "reply.crisis.2")


def last(session: Session) -> Any:
    return session.conversation.messages[-1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_and_reviewed_words_come_first_and_a_short_paragraph_follows_them(language: Language) -> None:
    session = Session(language=language, country="ES")
    updates = run(talk(chat_with(big(*WARM[language])), session, DANGER[language]))
    assert updates[0].text.endswith(fixed(language)) and card_in(updates[0].text) == "general"
    assert updates[-1].text == f"{updates[0].text}\n\n{WARM[language]}" and updates[-1].finish == "stop"
    assert all(update.text.startswith(updates[0].text) for update in updates)
    assert (last(session).text, last(session).finish) == (f"{fixed(language)}\n\n{WARM[language]}", "stop")
    assert not session.busy


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_asks_once_and_the_reviewed_words_after_it_ask_nothing(language: Language) -> None:
    words = [say(language, f"reply.crisis.{number + 1}") for number in range(chat_module.STEADY_REPLIES)]
    assert len(set(words)) == len(words) and not any("?" in one for one in words)


def test_the_model_is_told_that_there_is_danger_and_does_not_say_so() -> None:
    model = big(say("es", "reply.crisis.system"))
    session = Session(language="es")
    run(talk(chat_with(model), session, DANGER["es"]))
    assert model.prompts[0][0] == ("system", f"{say('es', 'model.system')} {say('es', 'reply.crisis.system')}")
    assert last(session).text == fixed("es")


def test_a_small_demonstration_model_is_not_asked() -> None:
    model, session = FakeModel(), Session(language="es")
    run(talk(chat_with(model), session, DANGER["es"]))
    assert model.prompts == [] and last(session).text == fixed("es")


@pytest.mark.parametrize(
    "script",
    [(), ("",), (RuntimeError("x"),), ("Siento ", RuntimeError("x")), (ModelError("out_of_memory"),)],
)
def test_a_model_that_fails_or_is_silent_leaves_the_reviewed_words_and_no_error(script: Script) -> None:
    session = Session(language="es", country="ES")
    updates = run(talk(chat_with(big(*script)), session, DANGER["es"]))
    assert updates[-1].finish == "stop" and "⚠️" not in updates[-1].text
    assert last(session).text.startswith(fixed("es")) and not session.busy


def test_a_full_line_leaves_the_reviewed_words_and_no_error() -> None:
    async def work() -> None:
        model = FakeModel(seconds=0.05, demonstration=False)
        model.enqueue(*["a "] * 20)
        chat = chat_with(model, queue_size=1)
        others = [asyncio.create_task(talk(chat, Session(), "hola")) for _ in range(2)]
        await asyncio.sleep(0.05)
        session = Session(language="es")
        updates = await talk(chat, session, DANGER["es"])
        assert updates[-1].finish == "stop" and last(session).text == fixed("es")
        await asyncio.gather(*others)

    run(work())


def test_a_slow_model_is_not_waited_for_and_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_module, "PATIENCE_SECONDS", 0.3)

    async def work() -> None:
        model = big(*["Siento mucho dolor aquí "] * 2000, seconds=0.02)
        session, began = Session(language="es"), time.monotonic()
        updates = await talk(chat_with(model), session, DANGER["es"])
        assert time.monotonic() - began < 20
        assert updates[-1].text.endswith(fixed("es")) and last(session).text == fixed("es")
        for _ in range(100):
            if not model.running:
                break
            await asyncio.sleep(0.02)
        assert model.running == 0

    run(work())


def test_a_model_that_is_not_loaded_is_not_waited_for() -> None:
    go = threading.Event()
    host = Host(lambda _progress: go.wait(60))  # type: ignore[arg-type, return-value]
    host.start()
    session = Session(language="es")
    updates = run(talk(Chat(Settings(), host), session, DANGER["es"]))
    assert not host.model and updates[-1].text.endswith(fixed("es"))
    go.set()


def test_stop_in_the_middle_keeps_the_reviewed_words_and_offers_no_going_on() -> None:
    async def work() -> None:
        model = big(WARM["es"].partition(".")[0] + ". ", *["y te leo despacio "] * 300, seconds=0.01)
        chat, session = chat_with(model), Session(language="es")
        async with aclosing(chat.reply(session, DANGER["es"])) as updates:
            async for update in updates:
                if WARM["es"][:10] in update.text:
                    break
        assert last(session).finish == "stop" and last(session).text.startswith(fixed("es")) and not session.busy
        with pytest.raises(RemansoError, match="nothing_to_continue"):
            await anext(chat.go_on(session))

    run(work())


def test_a_reply_from_before_is_not_gone_on_with_in_a_crisis() -> None:
    model, session = FakeModel(), Session(language="es")
    model.enqueue("Una frase a", finish="length")
    chat = chat_with(model)
    run(talk(chat, session, "hola"))
    session.level = "crisis"  # the person went back on the page to what came before it
    with pytest.raises(RemansoError, match="nothing_to_continue"):
        run(anext(chat.go_on(session)))


@pytest.mark.parametrize(("language", "kind", "text"), WORST)
def test_nothing_harmful_follows_the_reviewed_words_however_it_is_split(
    language: Language, kind: str, text: str
) -> None:
    good = text[: text.index(".") + 1]
    for pieces in (tuple(text), (text,), (text[:7], text[7:20], text[20:])):
        chat, session = chat_with(big(*pieces)), Session(language=language)
        run(talk(chat, session, DANGER[language]))
        assert last(session).text in (fixed(language), f"{fixed(language)}\n\n{good}")


# Which card


def cards(words: list[str], **known: Any) -> list[str]:
    """Returns which help stood above each reply."""
    session = Session(language="es", country="ES", **known)
    chat = chat_with(FakeModel())
    for said in words:
        run(talk(chat, session, said))
    replies = [message for message in session.conversation.messages if message.role == "assistant"]
    return [card_in(message.aside) for message in replies]


def test_each_kind_of_crisis_gets_its_whole_card_once() -> None:
    suicide, violence = "Quiero matarme.", "Mi marido me pega y hoy me amenazó con un cuchillo."
    found = cards([suicide, "Quiero morirme.", violence, violence, suicide, violence])
    assert found == ["general", "compact", "violence", "compact", "compact", "compact"]


def test_the_soft_line_comes_once_a_session_and_not_after_a_card() -> None:
    assert cards(["Me siento una carga para todos.", "Me siento una carga para todos."]) == ["soft", ""]
    assert cards(["Quiero matarme.", "No puedo más.", "Hola."])[0] == "general"


def test_who_takes_it_back_keeps_the_help_in_sight_once() -> None:
    assert cards(["Quiero matarme.", "Era broma.", "Hoy hace sol."]) == ["general", "compact", ""]


def test_after_a_new_conversation_the_help_is_in_sight_and_a_new_crisis_gets_one_line() -> None:
    session, chat = Session(language="es", country="ES"), chat_with(FakeModel())
    run(talk(chat, session, "Quiero matarme."))
    chat.new(session)
    run(talk(chat, session, "Hola, hoy hace sol."))
    eased = last(session).aside
    run(talk(chat, session, "Quiero matarme."))
    assert (card_in(eased), card_in(last(session).aside)) == ("compact", "compact")


def test_a_page_that_is_loaded_again_shows_no_whole_card_twice() -> None:
    before, after = Session(language="es", country="ES"), Session(language="es", country="ES")
    chat = chat_with(FakeModel())
    run(talk(chat, before, "Quiero matarme."))
    after.take_over(before)
    run(talk(chat, after, "Quiero matarme."))
    assert card_in(last(after).aside) == "compact"


def test_an_update_is_never_empty_in_a_crisis() -> None:
    updates: list[Update] = run(talk(chat_with(big("   ", "\n")), Session(language="en"), DANGER["en"]))
    assert all(update.text for update in updates)
