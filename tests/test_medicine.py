"""Questions about medicines: seen whatever they are called, and answered by who knows."""

import csv
from pathlib import Path

import pytest

import safety
from errors import ModelError, RemansoError
from session import Session
from tests.fakes import FakeModel
from tests.test_chat import chat_with, run, say

UNSEEN = Path(__file__).parent / "medicine.tsv"  # written by somebody who had not seen the rules
DOCTOR = {"es": "un médico o un farmacéutico", "en": "a doctor or a pharmacist"}
FOUND, MISTAKEN = 0.9, 0.1  # shares; 59 of 60 and 3 of 60 were counted


def unseen(kind: str) -> list[str]:
    with UNSEEN.open(encoding="utf-8", newline="") as file:
        return [text for name, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if name == kind]


def test_most_unseen_questions_are_seen_and_little_else() -> None:
    asked, others = unseen("medicine"), unseen("other")
    assert len(asked) >= 60 and len(others) >= 60
    assert sum(safety.asks_about_medicine([text]) for text in asked) / len(asked) >= FOUND
    assert sum(safety.asks_about_medicine([text]) for text in others) / len(others) <= MISTAKEN


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (["Me recetaron fluoxetina", "¿y si la dejo?"], True),
        (["Me recetaron fluoxetina", "¿eres una persona?"], False),
        (["tomo sertralina", "hola", "la dejo?"], False),  # of what is said much later, nobody knows what it is
        (["PUEDO TOMAR DOS PASTIYAS"], True),
        (["k pasa si mezclo el lorasepam kon bino"], True),
        (["Mi nieta me puso esto en la tablet, ¿cómo se usa?"], False),
        (["Trabajo en una farmacia y llego agotada a casa."], False),
        (["I work in a pharmacy and I'm burnt out."], False),
        (["¿?"], False),
        (["..."], False),
        ([""], False),
    ],
)
def test_what_is_asked_is_read_with_the_message_before_it(messages: list[str], expected: bool) -> None:
    assert safety.asks_about_medicine(messages) is expected


@pytest.mark.parametrize(
    ("words", "language"),
    [("¿Puedo dejar la sertralina de golpe si ya estoy bien?", "es"), ("can I drink on these antibiotics", "en")],
)
def test_the_reply_begins_with_who_knows_and_the_model_goes_on_after_it(words: str, language: str) -> None:
    model, session = FakeModel(), Session()
    model.enqueue(" Te ", "escucho.")
    updates = run(say(chat_with(model), session, words))
    assert DOCTOR[language] in updates[0].text and updates[-1].text.endswith("Te escucho.")
    assert all(DOCTOR[language] in update.text for update in updates)
    assert model.prompts[0][-1][0] == "assistant" and DOCTOR[language] in model.prompts[0][-1][1]
    assert updates[-1].text.endswith(session.conversation.messages[-1].text)  # there may be a notice above


def test_who_knows_is_said_though_the_model_fails() -> None:
    model, session = FakeModel(), Session()
    model.enqueue(ModelError("out_of_memory"))
    with pytest.raises(RemansoError):
        run(say(chat_with(model), session, "¿cuántos mg de melatonina son para un señor de 80 kg?"))
    assert DOCTOR["es"] in session.conversation.messages[-1].text


def test_a_reader_that_fails_costs_no_reply(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(messages: list[str]) -> bool:
        raise FileNotFoundError(messages[-1])

    monkeypatch.setattr(safety, "asks_about_medicine", broken)
    session = Session()
    updates = run(say(chat_with(FakeModel()), session, "¿puedo tomar dos ibuprofenos?"))
    assert updates[-1].text == "Te leo." and not session.busy
    assert "FileNotFoundError" in caplog.text and "ibuprofeno" not in caplog.text


def test_other_replies_begin_as_the_model_likes() -> None:
    model = FakeModel()
    updates = run(say(chat_with(model), Session(), "¿Cómo le digo a mi jefa que no puedo ir?"))
    assert updates[-1].text == "Te leo."
