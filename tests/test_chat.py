"""Turns without a page: a fake model at the seam, everything above it real."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest

import safety
from chat import Chat, clean
from config import Settings
from counters import rows
from errors import ModelError, RemansoError
from history import Archive, Message
from keeping import Keeping
from model.host import Host
from page import Page
from safety import Level
from safety.card import card_in
from session import Session
from speaker import Update
from tests.fakes import FakeModel, host_of
from visits import Visits


def chat_with(model: FakeModel, **settings: Any) -> Chat:
    return Chat(Settings(**settings), host_of(model))


LOOP = asyncio.new_event_loop()  # one for all: a seat in the line is given back in it, a moment after a reply


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return LOOP.run_until_complete(asyncio.wait_for(work, 30))


async def say(chat: Chat, session: Session, words: str) -> list[Update]:
    async with aclosing(chat.reply(session, words)) as updates:
        return [update async for update in updates]


def test_a_reply_is_streamed_and_recorded_with_how_it_ended() -> None:
    model, session = FakeModel(), Session()
    model.enqueue("Te ", "escucho.")
    updates = run(say(chat_with(model), session, "hola"))
    assert updates[-1] == Update("Te escucho.", finish="stop")
    assert [(m.role, m.text, m.finish) for m in session.conversation.messages] == [
        ("user", "hola", None),
        ("assistant", "Te escucho.", "stop"),
    ]
    assert not session.busy


@pytest.mark.parametrize(("words", "finish"), [("hoy me salió mal", "blocked"), ("me siento muy tonta", "stop")])
def test_the_model_calls_somebody_something_hard_only_after_they_did(words: str, finish: str) -> None:
    model = FakeModel()
    model.enqueue("Te sientes muy tonta.")
    assert run(say(chat_with(model), Session(), words))[-1].finish == finish


def test_the_model_reads_the_system_prompt_first_and_every_turn_after_it() -> None:
    model, session = FakeModel(), Session(language="es")
    chat = chat_with(model)
    run(say(chat, session, "uno"))
    run(say(chat, session, "dos"))
    assert [role for role, _ in model.prompts[1]] == ["system", "user", "assistant", "user"]
    assert "Remanso" in model.prompts[1][0][1]


def test_an_operator_can_replace_the_system_prompt() -> None:
    model = FakeModel()
    run(say(chat_with(model, system_prompt="Sé breve."), Session(), "hola"))
    assert model.prompts[0][0] == ("system", "Sé breve.")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("\x00\x07", "empty"),
        ("a" * 4001, "too_long"),
        ("é" * 1_000_000, "too_long"),
    ],
)
def test_what_cannot_be_read_is_refused_and_changes_nothing(words: str, code: str) -> None:
    model, session = FakeModel(), Session()
    with pytest.raises(RemansoError) as refused:
        run(say(chat_with(model), session, words))
    assert refused.value.code == code
    assert session.conversation.messages == [] and model.prompts == []


def test_control_characters_surrogates_and_overrides_go_and_text_stays() -> None:
    assert clean("  ho\x00la\ud800 \u202emundo\u202c\x1b[31m\r\n") == "hola mundo[31m"
    assert clean("مرحبا 👩‍👩‍👧 ñ\n\tfin") == "مرحبا 👩‍👩‍👧 ñ\n\tfin"


def test_too_many_messages_in_a_minute_are_refused_with_the_wait() -> None:
    chat, session = chat_with(FakeModel(), messages_per_minute=2), Session()
    run(say(chat, session, "uno"))
    run(say(chat, session, "dos"))
    with pytest.raises(RemansoError) as refused:
        run(say(chat, session, "tres"))
    assert refused.value.code == "too_fast" and 0 < refused.value.values["seconds"] <= 61


@pytest.mark.parametrize("level", ["none", "crisis"])
def test_where_the_risk_cannot_be_read_help_is_shown_and_the_chat_goes_on(
    level: Level, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(turns: list[str]) -> None:
        raise ValueError(turns[-1])

    monkeypatch.setattr(safety, "assess", fails)
    chat, session = chat_with(FakeModel()), Session(language="es", country="ES", level=level)
    run(say(chat, session, "alpaca"))
    last = session.conversation.messages[-1]
    assert card_in(last.aside) == ("general" if level == "crisis" else "soft") and "112" in last.aside
    assert last.finish == "stop" and last.text and session.level == ("crisis" if level == "crisis" else "elevated")
    assert any(name == "assess.failed" for _, name, _ in rows(chat.counters.days())) and "alpaca" not in caplog.text


def test_a_second_message_while_a_reply_streams_is_refused_and_the_first_goes_on() -> None:
    async def work() -> None:
        model, session = FakeModel(seconds=0.05), Session()
        model.enqueue(*["a "] * 10)
        chat = chat_with(model)
        first = asyncio.create_task(say(chat, session, "uno"))
        await asyncio.sleep(0.1)
        with pytest.raises(RemansoError, match="still_replying"):
            await say(chat, session, "dos")
        assert (await first)[-1].text == "a " * 10

    run(work())


def test_stopping_keeps_and_marks_what_was_said_and_frees_the_model() -> None:
    async def work() -> None:
        model, session = FakeModel(seconds=0.02), Session()
        model.enqueue(*["palabra. "] * 500)
        chat = chat_with(model)
        async with aclosing(chat.reply(session, "hola")) as updates:
            async for update in updates:
                if len(update.text) > 30:
                    break
        last = session.conversation.messages[-1]
        assert last.finish == "cancelled" and last.text.startswith("palabra. palabra.")
        assert not session.busy
        for _ in range(100):
            if not model.running:
                break
            await asyncio.sleep(0.01)
        assert model.running == 0
        assert (await say(chat, session, "otra"))[-1].finish == "stop"

    run(work())


def test_a_cancelled_task_records_its_partial_reply_too() -> None:
    async def work() -> None:
        model, session = FakeModel(seconds=0.02), Session()
        model.enqueue(*["palabra. "] * 500)
        task = asyncio.create_task(say(chat_with(model), session, "hola"))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.conversation.messages[-1].finish == "cancelled"
        assert session.conversation.messages[-1].text

    run(work())


def test_only_one_reply_is_computed_at_a_time_and_those_who_wait_know_their_place() -> None:
    async def work() -> None:
        model = FakeModel(seconds=0.03)
        chat = chat_with(model)
        await say(chat, Session(), "hola")  # what is loaded at the first message would let a later one pass it
        arrivals = []
        for n in range(4):
            model.enqueue(*["a "] * 30)
            arrivals.append(asyncio.create_task(say(chat, Session(), f"hola {n}")))
            await asyncio.sleep(0.1)
        everyone = await asyncio.gather(*arrivals)
        assert model.most_running == 1
        places = [max(update.place for update in updates) for updates in everyone]
        assert places == [0, 1, 2, 3]
        assert all(updates[-1].finish == "stop" for updates in everyone)

    run(work())


def test_a_full_line_is_told_politely_and_the_words_stay() -> None:
    async def work() -> None:
        model = FakeModel(seconds=0.05)
        chat = chat_with(model, queue_size=1)
        others = [asyncio.create_task(say(chat, Session(), "hola")) for _ in range(2)]
        await asyncio.sleep(0.05)
        late = Session()
        with pytest.raises(RemansoError, match="line_full"):
            await say(chat, late, "escúchame")
        assert late.conversation.said("user") == ["escúchame"]
        assert "esperando" in late.conversation.messages[-1].aside
        await asyncio.gather(*others)

    run(work())


def test_someone_who_leaves_the_line_gives_their_place_to_the_next() -> None:
    async def work() -> None:
        model = FakeModel(seconds=0.02)
        model.enqueue(*["a "] * 30)
        chat = chat_with(model)
        first = asyncio.create_task(say(chat, Session(), "uno"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(say(chat, Session(), "dos"))
        await asyncio.sleep(0.05)
        third = asyncio.create_task(say(chat, Session(), "tres"))
        await asyncio.sleep(0.05)
        second.cancel()
        await first
        assert (await third)[-1].finish == "stop"

    run(work())


def test_a_failure_in_the_middle_keeps_the_partial_reply_and_says_so_without_the_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, session = FakeModel(), Session()
    model.enqueue("Lo ", "siento ", RuntimeError("secreto de la persona"))
    chat = chat_with(model)
    with pytest.raises(RemansoError, match="reply_failed"):
        run(say(chat, session, "hola"))
    last = session.conversation.messages[-1]
    assert last.text.startswith("Lo") and last.finish == "error" and "sigue aquí" in last.aside
    assert "RuntimeError" in caplog.text and "secreto" not in caplog.text
    assert run(say(chat, session, "otra vez"))[-1].finish == "stop"


def test_an_error_is_shown_but_never_read_by_the_model() -> None:
    model, session = FakeModel(), Session()
    model.enqueue(RuntimeError("x"))
    chat = chat_with(model)
    with pytest.raises(RemansoError):
        run(say(chat, session, "uno"))
    run(say(chat, session, "dos"))
    assert model.prompts[-1][1:] == [("user", "uno\n\ndos")]


def test_a_model_that_does_not_load_is_explained_and_tried_again() -> None:
    tries: list[int] = []
    model = FakeModel()

    def loader(_progress: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise ModelError("disk_full", folder="/x", needed=850)
        return model

    chat, session = Chat(Settings(), Host(loader)), Session()
    with pytest.raises(RemansoError, match="disk_full"):
        run(say(chat, session, "hola"))
    assert "850 MB" in session.conversation.messages[-1].aside
    assert run(say(chat, session, "hola otra vez"))[-1].finish == "stop"


def test_the_first_message_waits_while_the_model_loads_and_hears_how_far_it_is() -> None:
    go = threading.Event()

    def loader(progress: Any) -> Any:
        progress("convert", 0.4)
        go.wait(20)
        return FakeModel()

    async def work() -> None:
        chat, session = Chat(Settings(), Host(loader)), Session()
        shares = []
        async with aclosing(chat.reply(session, "hola")) as updates:
            async for update in updates:
                shares.append(update.loading)
                if update.loading == 0.4:
                    go.set()
        assert 0.4 in shares and session.conversation.messages[-1].finish == "stop"

    run(work())


def test_a_reply_cut_by_length_is_gone_on_with_in_place() -> None:
    model, session = FakeModel(), Session()
    model.enqueue("Una frase a", finish="length")
    model.enqueue(" medias.")
    chat = chat_with(model)
    run(say(chat, session, "hola"))
    assert session.conversation.messages[-1].finish == "length"

    async def work() -> list[Update]:
        async with aclosing(chat.go_on(session)) as updates:
            return [update async for update in updates]

    assert run(work())[-1].text == "Una frase a medias."
    assert [m.text for m in session.conversation.messages] == ["hola", "Una frase a medias."]
    assert model.prompts[-1][-1] == ("assistant", "Una frase a")


def test_a_finished_reply_is_not_gone_on_with() -> None:
    chat, session = chat_with(FakeModel()), Session()
    run(say(chat, session, "hola"))
    with pytest.raises(RemansoError, match="nothing_to_continue"):
        run(anext(chat.go_on(session)))


def test_a_long_conversation_loses_its_oldest_turns_and_says_so_once() -> None:
    model, session = FakeModel(context_length=300), Session(language="es")
    chat = chat_with(model, max_new_tokens=100)
    for number in range(8):
        run(say(chat, session, f"turno {number} " + "palabra " * 30))
    assert sum("larga" in message.aside for message in session.conversation.messages) == 1
    assert model.count([Message("user", text) for _, text in model.prompts[-1]]) <= 200
    assert model.prompts[-1][0][0] == "system" and model.prompts[-1][1][0] == "user"


def test_in_a_crisis_the_card_and_reviewed_words_answer_and_the_model_does_not() -> None:
    model, session = FakeModel(), Session(language="es", country="ES")
    chat = chat_with(model)
    first = run(say(chat, session, "quiero morirme, tengo las pastillas aquí"))[-1].text
    second = run(say(chat, session, "no puedo más, quiero morirme"))[-1].text
    assert model.prompts == []
    assert "024" in first and "024" in second and len(second) < len(first) / 2
    assert session.conversation.messages[-1].text != session.conversation.messages[-3].text


def test_help_comes_even_when_the_model_cannot_load() -> None:
    def loader(_progress: Any) -> Any:
        raise ModelError("model_corrupt", file="x")

    session = Session(country="MX")
    updates = run(say(Chat(Settings(), Host(loader)), session, "quiero matarme"))
    assert "tel:" in updates[-1].text and updates[-1].finish == "stop"


def test_danger_seen_outlives_a_new_conversation() -> None:
    chat, session = chat_with(FakeModel()), Session(country="ES")
    run(say(chat, session, "quiero matarme esta noche"))
    levels = [session.level]
    chat.new(session)
    run(say(chat, session, "hola"))
    assert [*levels, session.level] == ["crisis", "elevated"]


def test_a_new_conversation_forgets_the_model_s_cache_and_gets_another_key() -> None:
    model, session = FakeModel(), Session()
    chat = chat_with(model)
    run(say(chat, session, "hola"))
    before = session.key
    chat.new(session)
    assert model.forgotten == [before] and session.key != before and not session.conversation.messages


def test_words_cleaned_before_a_failure_are_recorded_once_on_the_page() -> None:
    model, session = FakeModel(), Session()
    model.enqueue(RuntimeError("x"))
    page = Page(chat := chat_with(model), Settings(), Visits(), Keeping(chat, Archive(Settings())))

    async def work() -> list[Any]:
        return [frame async for frame in page._respond("hola\x00 mundo", [], session)]

    assert "sigue aquí" in run(work())[-1][0]
    assert session.conversation.said("user") == ["hola mundo"]


@pytest.mark.parametrize("words", ["hola", "quiero matarme"])
def test_a_reply_that_a_new_conversation_cuts_is_recorded_in_its_own(words: str) -> None:
    model, session = FakeModel(), Session()
    model.enqueue("Te ", "escucho.")
    chat, conversation = chat_with(model), session.conversation

    async def work() -> None:
        async with aclosing(chat.reply(session, words)) as updates:
            await anext(updates)
            chat.new(session)

    run(work())
    assert [message.role for message in conversation.messages] == ["user", "assistant"]
    assert session.is_new and not session.busy
