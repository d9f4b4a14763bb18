"""What is owed to whoever writes: pages on danger and privacy, that this is an AI, who it is for, and honest counts."""

import csv
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from email.message import Message as Headers
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client

import notices
import safety
from config import Settings
from counters import Counters, rows
from edge import Edge
from history import Archive
from keeping import Keeping
from notices import REMINDER_SECONDS, asks_who
from papers import NAMES, papers
from sentences import LANGUAGES, Language, say
from session import Session
from tests.conftest import ROOT, running_app
from tests.fakes import FakeModel
from tests.test_chat import chat_with, run
from tests.test_chat import say as talk
from visits import Visits

TODAY = datetime.now(UTC).date().isoformat()
PAGES = [(name, language) for name in NAMES for language in LANGUAGES]


def fetch(url: str, **headers: str) -> "tuple[str, Headers[str, str]]":
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200
        return answer.read().decode(), answer.headers


def counted(counters: Counters) -> dict[str, int]:
    return dict(counters.days().get(TODAY, {}))


# --- pages


@pytest.mark.parametrize(("name", "language"), PAGES)
def test_a_page_is_plain_html_in_its_language_with_links_that_stay_below_any_root(
    name: str, language: Language
) -> None:
    page = papers(Settings())[name, language]
    other = "en" if language == "es" else "es"
    assert f'<html lang="{language}">' in page and "<script" not in page and "viewport" in page
    assert "prefers-color-scheme: dark" in page and page.count("<h1>") == 1
    assert f'href="./?lang={language}"' in page and f'href="./{name}?lang={other}"' in page
    inner = [link for link in re.findall(r'href="([^"]+)"', page) if not link.startswith(("https://", "tel:"))]
    assert inner and all(link.startswith("./") for link in inner)
    assert "HELPLINES" not in page and "GRACE" not in page and "{" not in re.sub(r"(?s)<style>.*</style>", "", page)


@pytest.mark.parametrize(("name", "language"), PAGES)
def test_no_page_offers_what_this_is_not(name: str, language: Language) -> None:
    text = papers(Settings())[name, language]
    denied = re.compile(r"(?i)(no es|not) (terapia|therapy)")
    offered = re.compile(r"(?i)terap(eut|ia)|psicoterap|diagn[oó]s|tratamiento|therap(ist|y)|psychotherap|treatment")
    assert not offered.search(denied.sub("", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_crisis_page_lists_every_line_that_may_be_shown_and_no_other_number(language: Language) -> None:
    page = papers(Settings())["crisis", language]
    for code in safety.countries():
        assert all(line.url in page for line in safety.helplines(code)), code
        assert safety.emergency(code) in page
    known = {number.replace("*", "") for number in re.findall(r'href="tel:([^"]+)"', page)}
    table = re.sub(r"[ .()-]", "", (ROOT / "data/helplines.csv").read_text(encoding="utf-8"))
    assert len(known) > 30 and all(number in table for number in known)


@pytest.mark.parametrize(("seconds", "told"), [(600, "10 minutos después"), (30, "30 segundos después")])
def test_the_privacy_page_says_how_long_this_server_really_keeps_a_closed_page(seconds: float, told: str) -> None:
    page = papers(Settings(session_grace_seconds=seconds))["privacy", "es"]
    assert told in page and "<code>remanso</code>" in page


def test_a_title_of_the_operator_cannot_break_a_page() -> None:
    page = papers(Settings(title="<b>A & B</b> {x}"))["crisis", "es"]
    assert "&lt;b&gt;A &amp; B&lt;/b&gt; {x}</title>" in page


def test_a_page_is_found_under_the_root_path_of_a_proxy() -> None:
    async def gradio(*_: Any) -> None:
        pytest.fail("passed on")

    edge = Edge(
        gradio,
        visits=Visits(),
        frames="*",
        default="es",
        health=dict,
        embed="",
        script="",
        papers=papers(Settings()),
    )
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x/y/crisis", "root_path": "/x/y"}
    run(edge({**scope, "query_string": b"lang=en", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 200 and b'lang="en"' in sent[1]["body"]


def test_the_pages_choose_the_language_and_carry_the_security_headers(app_url: str) -> None:
    for name in NAMES:
        page, headers = fetch(f"{app_url}{name}")
        assert '<html lang="es">' in page and headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer" and headers["x-content-type-options"] == "nosniff"
        assert headers["content-language"] == "es" and headers["set-cookie"] is None
        assert '<html lang="en">' in fetch(f"{app_url}{name}", accept_language="en-GB,es;q=0.4")[0]
        assert '<html lang="es">' in fetch(f"{app_url}{name}?lang=es", accept_language="en-GB")[0]
        assert '<html lang="es">' in fetch(f"{app_url}{name}?lang=<script>")[0]


def test_pages_and_counts_are_there_when_the_model_is_not(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    with (
        (tmp_path / "log").open("w") as log,
        running_app(log, MODEL_ID=str(tmp_path / "nothing"), COUNTERS_FILE=str(file)) as url,
    ):
        for name in NAMES:
            assert "<h1>" in fetch(f"{url}{name}")[0]
        Client(url, verbose=False).predict("Quiero matarme.", api_name="/chat")
    assert counted(Counters(file)) == {"card.crisis.suicide": 1}
    assert "matarme" not in file.read_text() + (tmp_path / "log").read_text()


# --- that this is an AI


@pytest.mark.parametrize(
    "words",
    [
        "¿Eres humano?",
        "eres una persona real",
        "Hola, ¿eres una IA o una persona?",
        "¿Quién eres?",
        "¿con quién estoy hablando?",
        "¿Hay alguien ahí detrás?",
        "¿Sos un robot?",
        "Me siento mal. ¿Eres psicóloga?",
        "Are you a real person?",
        "hey, are you an AI?",
        "Who are you?",
        "Am I talking to a human?",
        "You’re a bot, right?",
    ],
)
def test_whoever_asks_if_this_is_a_person_is_told_by_code_and_answered_by_the_model(words: str) -> None:
    model, session = FakeModel(), Session(language="es")
    chat = chat_with(model)
    run(talk(chat, session, words))
    last = session.conversation.messages[-1]
    assert say("es", "notice.ai") in last.aside or say("en", "notice.ai") in last.aside
    assert last.text == "Te leo." and len(model.prompts) == 1
    assert counted(chat.counters) == {"notice.ai": 1}


@pytest.mark.parametrize(
    "words",
    [
        "Todos somos humanos.",
        "Soy humano y me equivoco",
        "Mi madre es una persona real.",
        "Eres una persona muy buena",
        "Cuando estoy triste hablo con una persona.",
        "Ya no sé quién soy",
        "Siento que hay alguien detrás de mí",
        "¿Quién eres tú para juzgarme?, me dijo",
        "Me siento como un robot",
        "I am human, I make mistakes.",
        "We are all human",
        "I don't know who I am",
        "Are you sure?",
        "What are you doing?",
        "am I human enough?",
    ],
)
def test_talk_about_people_is_no_question_about_who_answers(words: str) -> None:
    assert not asks_who(words)


def test_a_question_about_a_person_is_read_in_time_however_long_it_is() -> None:
    began = time.perf_counter()
    for words in (
        "hola " * 800,
        "y si no se " * 400,
        "so but and " * 400,
        "eres una persona " * 250,
        "no se si " * 440,
        "\n " * 2000,
    ):
        asks_who(words)
    assert time.perf_counter() - began < 1


def test_after_three_hours_the_notice_comes_back_once_with_a_pause() -> None:
    chat, session = chat_with(FakeModel()), Session(language="es")
    for _ in range(2):
        run(talk(chat, session, "hola"))
        assert session.conversation.messages[-1].aside == ""
        session.noticed -= REMINDER_SECONDS
        run(talk(chat, session, "hoy hace sol"))
        assert session.conversation.messages[-1].aside == f"{say('es', 'notice.ai')} {say('es', 'notice.pause')}"
    chat.new(session)
    run(talk(chat, session, "hola"))
    assert session.conversation.messages[-1].aside == "" and counted(chat.counters) == {"notice.ai": 2}


def test_in_a_crisis_the_card_comes_first_and_nobody_is_told_to_take_a_break() -> None:
    chat, session = chat_with(FakeModel()), Session(language="es", country="ES")
    session.noticed -= REMINDER_SECONDS
    run(talk(chat, session, "Quiero matarme"))
    aside = session.conversation.messages[-1].aside
    assert 0 < aside.index("024") < aside.index(say("es", "notice.ai")) and say("es", "notice.pause") not in aside


def test_a_page_that_was_loaded_again_goes_on_with_its_three_hours() -> None:
    before, after = Session(), Session()
    before.noticed -= 100
    before.told_minor = True
    after.take_over(before)
    assert after.noticed == before.noticed and after.told_minor


def test_the_api_gives_the_notices_above_the_reply(app_url: str) -> None:
    client = Client(app_url, verbose=False)
    reply = client.predict("¿Eres una persona real?", api_name="/chat")
    kept = client.predict(api_name="/history")[-1]
    assert reply.startswith(say("es", "notice.ai")) and kept["aside"] == say("es", "notice.ai") and kept["text"]
    again = client.predict("Tengo 15 años y hoy he discutido con una amiga.", api_name="/chat")
    assert say("es", "notice.minor") in again


# --- a stated age


@pytest.mark.parametrize(
    ("words", "country", "language", "line"),
    [
        ("Tengo 15 años y me gusta el mar.", "ES", "es", "ANAR"),
        ("I am 14 and I like the sea.", "ES", "en", "ANAR"),
        ("Tengo 15 años y me gusta el mar.", "MX", "es", "tel:8009112000"),
        ("Tengo 15 años y me gusta el mar.", "", "es", "findahelpline.com"),
    ],
)
def test_a_stated_age_under_18_is_answered_once_with_an_adult_and_a_line_and_the_chat_goes_on(
    words: str, country: str, language: Language, line: str
) -> None:
    model, session = FakeModel(), Session(country=country)
    chat = chat_with(model)
    run(talk(chat, session, words))
    last = session.conversation.messages[-1]
    assert say(language, "notice.minor") in last.aside and line in last.aside and last.text == "Te leo."
    run(talk(chat, session, words))
    chat.new(session)
    run(talk(chat, session, words))
    assert all("18" not in message.aside for message in session.conversation.messages)
    assert counted(chat.counters)["notice.minor"] == 1


def test_a_minor_in_a_crisis_gets_the_card_with_the_child_line_first_and_no_second_one() -> None:
    chat, session = chat_with(FakeModel()), Session(language="es", country="ES")
    run(talk(chat, session, "Tengo 15 años y quiero morirme"))
    aside = session.conversation.messages[-1].aside
    assert aside.count("ANAR") == 1 and aside.endswith(say("es", "notice.minor"))


def test_the_line_for_the_young_moves_to_another_country() -> None:
    chat, session = chat_with(FakeModel()), Session(language="es", country="ES")
    run(talk(chat, session, "Tengo 15 años y me gusta el mar."))
    aside = session.conversation.messages[-1].aside
    there = notices.moved(aside, "MX")
    assert "ANAR" in aside and "ANAR" not in there and say("es", "notice.minor") in there
    assert notices.moved(there, "ES") == aside and notices.moved("ANAR", "MX") == "ANAR"


def test_a_minor_who_is_hit_gets_the_child_line_below_the_card_for_violence() -> None:
    chat, session = chat_with(FakeModel()), Session(language="es", country="ES")
    run(talk(chat, session, "Tengo 15 años y mi padre me pega"))
    aside = session.conversation.messages[-1].aside
    assert say("es", "safety.card.care.violence") in aside
    assert "ANAR" in aside[aside.index(say("es", "notice.minor")) :]


@pytest.mark.parametrize("words", ["Mi hija tiene 15 años.", "Tengo 15 años de experiencia.", "Tengo 45 años."])
def test_another_s_age_or_an_adult_s_is_no_reason_for_a_notice(words: str) -> None:
    session = Session(country="ES")
    run(talk(chat_with(FakeModel()), session, words))
    assert session.conversation.messages[-1].aside == ""


# --- counts


def test_cards_help_and_replies_taken_back_are_counted_without_a_word_of_them(tmp_path: Path) -> None:
    model, session = FakeModel(), Session(language="es", country="ES")
    model.enqueue("Puedes confiar en mí. ", "Soy una persona de carne y hueso. ", "Más.")
    chat = chat_with(model, counters_file=tmp_path / "counts.json")
    run(talk(chat, session, "hola"))
    run(talk(chat, session, "Quiero matarme, me llamo Ana"))
    run(talk(chat, session, "Quiero matarme"))
    names = counted(chat.counters)
    assert names == {"blocked.identity": 1, "card.crisis.suicide": 2}
    assert counted(Counters(tmp_path / "counts.json")) == names
    assert not re.search("Ana|matarme|hueso", (tmp_path / "counts.json").read_text())


def test_the_help_button_is_counted() -> None:
    from page import Page  # noqa: PLC0415 - builds the whole page

    page = Page(chat := chat_with(FakeModel()), Settings(), Visits(), Keeping(chat, Archive(Settings())))
    page.help.open(Session(language="es"))
    assert counted(page.chat.counters) == {"help": 1}


def test_counts_of_many_threads_and_of_an_earlier_process_add_up(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "counts.json"
    Counters(file).add("help")
    counters = Counters(file)

    def count() -> None:
        for _ in range(20):
            counters.add("help")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted(Counters(file)) == {"help": 81}
    assert [path.name for path in file.parent.iterdir()] == ["counts.json"]


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": "x", "days": {}}']
    + [b'{"schema": "remanso.counters/1", "days": %b}' % days for days in (b"[]", b'{"x": {}}', b'{"2026-01-01": 3}')],
)
def test_a_broken_file_is_set_aside_and_counting_goes_on(tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "counts.json"
    file.write_bytes(broken)
    Counters(file).add("help")
    assert counted(Counters(file)) == {"help": 1}
    assert (tmp_path / "counts.json.broken").read_bytes() == broken


def test_what_cannot_be_written_is_kept_and_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "folder"
    place.write_text("a file where the folder should be")
    counters = Counters(place / "counts.json")
    counters.add("help")
    assert "cannot be kept" in caplog.text
    place.unlink()
    counters.add("help")
    assert counted(Counters(place / "counts.json")) == {"help": 2}


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUNTERS_FILE", "")
    counters = Counters(Settings().counters_file)
    counters.add("help")
    assert counted(counters) == {"help": 1} and list(tmp_path.iterdir()) == []


def test_the_export_prints_json_and_csv(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    Counters(file).add("card.crisis.suicide")

    def printed(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "counters", *arguments]
        return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)

    assert json.loads(printed(COUNTERS_FILE=str(file)).stdout)["days"] == {TODAY: {"card.crisis.suicide": 1}}
    table = list(csv.reader(printed("--csv", COUNTERS_FILE=str(file)).stdout.splitlines()))
    assert table == [["day", "name", "count"], [TODAY, "card.crisis.suicide", "1"]]
    assert rows(Counters(file).days()) == [(TODAY, "card.crisis.suicide", 1)]
    refused = printed()
    assert refused.returncode == 1 and "COUNTERS_FILE" in refused.stderr
