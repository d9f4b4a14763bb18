"""The help cards without a page: a table that is not too old, cards in another country, pictures of each."""

import re
from datetime import UTC, date, datetime, timedelta

import pytest

import safety
from config import Settings
from history import Archive, Message
from keeping import Keeping
from page import Page
from papers import papers
from safety.helplines import unchecked_since
from sentences import LANGUAGES, Language, say
from session import Session
from tests.conftest import ROOT
from tests.fakes import FakeModel
from tests.shots import DEVICES, FOLDER, SAID, words_for
from tests.test_chat import chat_with, run
from tests.test_chat import say as talk
from visits import Visits

HALF_A_YEAR = timedelta(days=183)


def test_no_row_of_the_table_was_last_checked_more_than_six_months_ago() -> None:
    assert unchecked_since(datetime.now(UTC).date() - HALF_A_YEAR) == []


def test_a_row_that_is_too_old_is_named() -> None:
    told = unchecked_since(date(9999, 1, 1))
    assert len(told) == 54 and "ES Teléfono de la Esperanza: 2026-11-01" in told
    assert unchecked_since(date(2026, 11, 1)) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_rests_on_one_source_is_shown_with_the_advice_to_check_it(language: Language) -> None:
    for country in (*safety.countries(), None):
        panel = safety.help_panel(language, country).splitlines()
        for line in safety.helplines(country):
            (row,) = [
                row for row in panel if row.startswith("- ") and f"({line.url})" in row and line.phone[:3] in row
            ][:1]
            advice = say(language, f"safety.line.{'unconfirmed' if line.phone else 'unchecked'}")
            assert (advice in row) == line.unconfirmed, row


# --- cards in another country


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_help_is_found_again_and_moves_to_another_country(kind: str, language: Language) -> None:
    chat, session = chat_with(FakeModel()), Session(language=language, country="ES")
    run(talk(chat, session, words_for(kind, language)))
    aside = session.conversation.messages[-1].aside
    assert safety.card_in(aside) == kind
    there = safety.moved(aside, "CL")
    assert "tel:112" in aside and "tel:112" not in there and "tel:131" in there
    assert safety.moved(there, "ES") == aside and safety.moved(there, None) != there


def test_a_text_without_help_stays_as_it_is() -> None:
    assert safety.moved("Llama al 112.", "MX") == "Llama al 112." and safety.card_in("Hola") == ""


def test_while_a_reply_streams_the_conversation_is_left_alone() -> None:
    page = Page(chat := chat_with(FakeModel()), Settings(), Visits(), Keeping(chat, Archive(Settings())))
    card = safety.card(safety.Assessment("crisis", "suicide"), "es", "ES")
    session = Session(language="es", country="ES", busy=True)
    session.conversation.messages.append(Message("assistant", "Te leo.", aside=card))
    page.help.move(session, "MX", [])
    assert session.country == "MX" and session.conversation.messages[-1].aside == card
    session.busy = False
    page.help.move(session, "xx", [{"role": "assistant", "content": session.conversation.messages[-1].shown}])
    assert session.country == "" and "findahelpline" in session.conversation.messages[-1].aside


# --- the plan's page


def test_the_plan_needs_no_model_and_no_root() -> None:
    for language in LANGUAGES:
        page = papers(Settings())["plan", language]
        assert f'<html lang="{language}">' in page and page.count("<h1>") == 1 and "<noscript>" in page
        assert all(page.count(f'data-country="{code}"') == 1 for code in (*safety.countries(), ""))
        inner = re.findall(r'href="([^"]+)"', page)
        assert all(link.startswith(("./", "https://", "tel:")) for link in inner)


# --- pictures


def test_every_card_has_its_pictures_and_they_are_light() -> None:
    text = (ROOT / "docs/cards.md").read_text(encoding="utf-8")
    for kind in (*SAID, "compact", "panel", "plan"):
        for language in LANGUAGES:
            for device in DEVICES:
                name = f"cards/{kind}-{language}-{device}.webp"
                assert name in text and (ROOT / "docs" / name).exists(), name
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1_500_000
    assert set(SAID) == {*safety.VARIANTS, "soft"}
