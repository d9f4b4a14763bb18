"""The page as a person meets it: headless Chromium against the real app with the real embedded model."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Playwright, expect

from tests.browser import Site, Visit, Visiting, profile
from tests.conftest import ROOT, free_port, running_app

SHOTS = ROOT / "tests/screenshots"
# Gradio's own English words, which its Spanish translation leaves as they are.
BUILT_IN = re.compile(
    r"\b(Submit|Stop|Clear|Retry|Undo|undo|Copy|Copied|Edit|Textbox|Chatbot|Loading|Send|Like|Dislike|[Mm]essage|Scroll|"
    r"Cancel|Settings|Close|Share|Delete|Options|Search|queue|user's|bot's|undefined|null|directory)\b"
)
LISTED = re.compile(r"\b\d{3}\b")  # a helpline's number


def test_enter_sends_and_the_reply_streams_in_while_shift_enter_only_breaks_the_line(
    talkative_url: str, visit: Visiting
) -> None:
    me = visit(talkative_url)
    expect(me.status).to_have_text("Conectado")
    me.box.press_sequentially("Hola")
    me.box.press("Shift+Enter")
    me.box.press_sequentially("Hoy hace sol")
    expect(me.box).to_have_value("Hola\nHoy hace sol")
    expect(me.rows).to_have_count(0)
    me.box.press("Enter")
    me.settled(2)
    expect(me.box).to_have_value("")
    expect(me.status).to_have_text("Conectado")
    lengths = [len(words) for words in me.seen("words")]
    assert len(lengths) >= 3 and lengths == sorted(lengths)
    states = me.seen("status")
    assert (states[0], states[-1]) == ("Conectado", "Conectado") and "Respondiendo…" in states
    assert {*states} <= {"Conectado", "Respondiendo…"} and me.errors == []


def test_nothing_is_sent_while_there_is_nothing_to_send(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    for nothing in ("", "   ", " \n "):
        me.box.fill(nothing)
        expect(me.send_button).to_be_disabled()
        me.box.press("Enter")
    me.box.fill("Hola")
    expect(me.send_button).to_be_enabled()
    expect(me.rows).to_have_count(0)
    me.send_button.click()
    me.settled(2)


def test_a_stopped_reply_keeps_its_words_and_can_be_continued_in_place(talkative_url: str, visit: Visiting) -> None:
    me = visit(talkative_url)
    me.send("Cuéntame despacio cómo dormir mejor")
    me.first_words()
    me.stop()
    kept = me.settled(2)
    expect(me.rows.last).to_have_attribute("data-time", re.compile("detenida"))
    expect(me.box).to_be_editable()
    expect(me.go_on).to_have_text("Continuar")
    me.go_on.click()
    expect(me.stop_button).to_be_visible()
    grown = me.first_words(after=kept)
    me.stop()
    assert me.settled(2).startswith(kept) and len(grown) > len(kept)
    expect(me.status).to_have_text("Conectado")


def test_a_reply_cut_by_its_length_says_so_and_goes_on_in_place(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    cut = me.ask("Cuéntame despacio cómo dormir mejor", rows=2)
    expect(me.rows.last).to_have_attribute("data-time", re.compile("sin terminar"))
    me.go_on.click()
    me.first_words(after=cut)
    longer = me.settled(2)
    assert longer.startswith(cut) and len(longer) > len(cut)
    me.ask("Gracias", rows=4)


def test_retry_undo_and_edit_leave_page_and_server_in_step(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    me.ask("Hoy hace sol", rows=2)
    me.button("Reintentar").click()
    me.began_turns(2)
    me.settled(2)
    me.ask("Me gusta leer", rows=4)
    me.button("Deshacer").click()
    expect(me.rows).to_have_count(2)
    expect(me.box).to_have_value("Me gusta leer")
    me.ask("Me gusta cantar", rows=4)
    expect(me.rows.nth(2)).to_contain_text("Me gusta cantar")


def test_an_edited_message_is_answered_like_any_other(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    me.ask("Hoy hace sol", rows=2)
    me.ask("Me gusta leer", rows=4)
    me.find("#chat").get_by_role("button", name="Editar", exact=True).first.click()
    me.find("#chat .edit-textarea").fill("Hoy llueve")
    me.button("Enviar").click()
    me.began_turns(3)
    me.settled(2)
    expect(me.rows.first).to_contain_text("Hoy llueve")
    me.ask("Gracias", rows=4)


@pytest.mark.parametrize("way", ["#new", "#chat button[aria-label='Limpiar chat']"])
def test_a_new_conversation_is_empty_and_works(brief_url: str, visit: Visiting, way: str) -> None:
    me = visit(brief_url)
    me.ask("Cuéntame despacio cómo dormir mejor", rows=2)
    expect(me.go_on).to_be_visible()
    me.find(way).click()
    expect(me.rows).to_have_count(0)
    expect(me.find("#chat")).to_contain_text("Aquí puedes escribir lo que sientes")
    expect(me.go_on).to_be_hidden()
    me.ask("Hola otra vez", rows=2)


def test_a_new_conversation_in_the_middle_of_a_reply_stays_empty(talkative_url: str, visit: Visiting) -> None:
    me = visit(talkative_url)
    me.send("Cuéntame despacio cómo dormir mejor")
    me.first_words()
    me.find("#new").click()
    expect(me.rows).to_have_count(0)
    expect(me.stop_button).to_have_count(0)
    me.page.wait_for_timeout(2000)  # words of the old reply that are still on their way would come now
    expect(me.rows).to_have_count(0)
    me.send("Hola")
    expect(me.rows.first).to_contain_text("Hola")
    me.first_words()
    me.stop()
    me.settled(2)


@pytest.mark.parametrize("storage", ["allowed", "blocked"])
def test_the_chat_works_in_a_frame_of_another_site(
    brief_url: str, site: Site, playwright: Playwright, tmp_path: Path, storage: str
) -> None:
    frames = [f"<iframe src={url} width=900 height=700></iframe>" for url in (brief_url, f"{brief_url}health")]
    (site.folder / "index.html").write_text("".join(frames))
    with profile(playwright, tmp_path / "profile", third_party_storage=storage == "allowed") as context:
        me = Visit(context)
        me.page.goto(f"{site.url}index.html")
        me.at, bare = me.page.frames[1:]
        kept = "() => { try { localStorage.length; return 'allowed' } catch { return 'blocked' } }"
        assert bare.evaluate(kept) == storage
        assert me.ask("Hola", rows=2)
        me.ask("Hoy hace sol", rows=4)
        me.find("#switch").click()
        expect(me.find("#new")).to_have_text("New conversation")


def test_the_chat_works_as_a_web_component_in_another_site(brief_url: str, site: Site, visit: Visiting) -> None:
    tags = f'<script type="module" src="{brief_url}embed.js"></script><gradio-app src="{brief_url}"></gradio-app>'
    (site.folder / "index.html").write_text(tags)
    me = visit()
    me.page.goto(f"{site.url}index.html")
    me.send("Hola")
    assert me.first_words()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_fits_a_phone_and_a_desk_in_light_and_dark(
    brief_url: str, visit: Visiting, scheme: str, width: int
) -> None:
    me = visit(brief_url, color_scheme=scheme, viewport={"width": width, "height": 800})
    for step in ("welcome", "talk", "help"):
        if step == "talk":
            me.ask("Una palabra muy larga: " + "a" * 200, rows=2)
        if step == "help":
            me.find("#help-now").click()
            expect(me.find("#help-text")).to_contain_text(LISTED)
        me.page.screenshot(path=SHOTS / f"{width}-{scheme}-{step}.png")
        assert not me.scrolls_sideways(), step
        for part in [me.find("#help-now")] + [me.box] * (step != "help"):
            expect(part).to_be_in_viewport(ratio=1)
    dark = me.page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((c) => c < 80)")
    assert dark == (scheme == "dark")


def test_nothing_is_in_english_on_the_spanish_page(app_url: str, visit: Visiting) -> None:
    me = visit(app_url, permissions=["clipboard-read", "clipboard-write"])
    found = me.foreign("es", "en", BUILT_IN)
    me.send("Hola")
    me.first_words()
    found |= me.foreign("es", "en", BUILT_IN)
    me.settled(2)
    me.find("#chat .message-buttons button").first.click()  # copy
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_contain_text(LISTED)
    found |= me.foreign("es", "en", BUILT_IN)
    me.button("Editar").click()
    assert found | me.foreign("es", "en", BUILT_IN) == set()


def test_the_switch_turns_every_word_into_english_and_keeps_the_conversation(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    said = me.ask("Hola", rows=2)
    me.find("#switch").click()
    expect(me.find("html")).to_have_attribute("lang", "en")
    expect(me.find("#new")).to_have_text("New conversation")
    assert me.text() == said
    found = me.foreign("en", "es")
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_contain_text("Help now")
    found |= me.foreign("en", "es")
    me.ask("Thanks", rows=4)
    found |= me.foreign("en", "es")
    # What the model said stays in its language, and may well hold words of the catalogue.
    assert {text for text in found if not text.startswith("Assistant:")} == set()


def test_an_english_browser_gets_an_english_page(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url, locale="en-GB")
    expect(me.find("#new")).to_have_text("New conversation")
    expect(me.find("html")).to_have_attribute("lang", "en")
    assert me.foreign("en", "es") == set()


def test_the_browser_asks_nothing_of_another_host(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    me.ask("Hola", rows=2)
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_contain_text(LISTED)
    me.find("#switch").click()
    expect(me.find("#new")).to_have_text("New conversation")
    asked = {urlsplit(url).netloc for url in me.requests if not url.startswith(("data:", "blob:"))}
    assert asked == {urlsplit(brief_url).netloc}


def test_html_and_markdown_that_a_person_types_load_nothing_and_run_nothing(
    brief_url: str, visit: Visiting, site: Site
) -> None:
    me = visit(brief_url)
    tags = f"<img src={site.url}a.png onerror='window.ran=1'> <script>window.ran=1</script> <b>fuerte</b>"
    more = f"<iframe src={site.url}b></iframe> <style>@import '{site.url}c';</style> ![foto]({site.url}d.png)"
    me.ask(f"{tags} {more}", rows=2)
    shown = me.rows.first
    for part in ("<img src=", "<script>window.ran=1</script>", "<b>fuerte</b>", "<iframe src=", "d.png"):
        expect(shown).to_contain_text(part)
    expect(shown.locator("img, script, iframe, style, .message-content b")).to_have_count(0)
    assert site.asked == [] and me.page.evaluate("() => window.ran") is None


def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    expect(me.box).to_be_focused()
    me.find("h1").click()
    here = """() => { const e = document.activeElement, s = getComputedStyle(e);
        return [e.closest("[id]")?.id, s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2]; }"""
    path: list[str] = []
    while not path or path[-1] != "message":
        me.page.keyboard.press("Tab")
        name, visible = me.page.evaluate(here)
        assert visible and len(path) < 6, (name, path)
        path.append(name)
    assert path == ["help-now", "new", "switch", "chat", "message"]
    me.page.keyboard.type("Hola")
    me.page.keyboard.press("Enter")
    me.settled(2)


def test_the_keyboard_is_back_in_the_box_when_a_reply_has_ended(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    me.ask("Hola", rows=2)
    expect(me.box).to_be_focused(timeout=5000)


@pytest.mark.parametrize("meanwhile", ["waiting", "pressing Enter"])
def test_a_lost_connection_is_told_and_what_was_typed_stays(brief_url: str, visit: Visiting, meanwhile: str) -> None:
    me = visit(brief_url)
    me.ask("Hola", rows=2)
    me.box.fill("Hoy hace sol")
    me.context.set_offline(True)
    expect(me.status).to_have_text("Sin conexión")
    expect(me.send_button).to_be_disabled()
    if meanwhile == "pressing Enter":
        me.box.press("Enter")
    me.back_online()
    expect(me.status).to_have_text("Conectado")
    expect(me.box).to_have_value("Hoy hace sol")
    me.send_button.click()
    me.settled(4)


def test_a_connection_lost_in_the_middle_of_a_reply_loses_no_conversation(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    me.ask("Hola", rows=2)
    me.send("Cuéntame despacio cómo dormir mejor")
    me.context.set_offline(True)
    expect(me.status).to_have_text("Sin conexión")
    me.page.wait_for_timeout(4000)  # the reply ends meanwhile, and the page cannot hear of it
    me.back_online()
    expect(me.rows.nth(2)).to_contain_text("Cuéntame despacio cómo dormir mejor")
    expect(me.box).to_be_enabled()
    me.send("Gracias")
    me.first_words()


def test_a_restarted_server_is_told_and_the_conversation_goes_on(tmp_path: Path, visit: Visiting) -> None:
    port = free_port()
    with (tmp_path / "app.log").open("w") as log:
        with running_app(log, port=port, MAX_NEW_TOKENS="8") as url:
            me = visit(url)
            said = me.ask("Hola", rows=2)
        with running_app(log, port=port, MAX_NEW_TOKENS="8"):
            expect(me.find("#notice-restart")).to_be_visible()
            expect(me.find("#notice-restart")).to_contain_text("se ha reiniciado")
            expect(me.rows).to_have_count(2)
            assert me.text() == said
            me.ask("Hoy hace sol", rows=4)
            me.ask("Gracias", rows=6)


def test_a_closed_page_frees_the_model_for_the_next_person(talkative_url: str, visit: Visiting) -> None:
    gone = visit(talkative_url)
    gone.send("Cuéntame despacio cómo dormir mejor")
    gone.first_words()
    gone.page.close()
    next_one = visit(talkative_url)  # by the time that this page stands, the server has seen the other one go
    next_one.page.wait_for_timeout(1000)
    next_one.send("Hola")
    next_one.first_words()
    assert not any("cola" in state for state in next_one.seen("status"))


def test_two_tabs_of_one_browser_are_two_conversations(brief_url: str, visit: Visiting) -> None:
    one = visit(brief_url)
    two = Visit(one.context, brief_url)
    one.ask("Hola", rows=2)
    two.ask("Hoy hace sol", rows=2)
    one.ask("Sigo aquí", rows=4)
    expect(two.rows).to_have_count(2)


def test_who_waits_for_the_model_sees_their_place_in_the_line(talkative_url: str, visit: Visiting) -> None:
    first, second = visit(talkative_url), visit(talkative_url)
    first.send("Cuéntame despacio cómo dormir mejor, con todo detalle")
    expect(first.find("#chat")).to_have_attribute("data-typing", "Escribiendo…")  # the server has it
    second.send("Hola")
    expect(second.find("#chat")).to_have_attribute("data-typing", "Escribiendo…")
    second.first_words()
    expect(second.find("#chat")).not_to_have_attribute("data-typing", "Escribiendo…")
    assert "En cola: 1" in second.seen("status")


def test_each_message_has_a_time_and_each_control_a_name(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url)
    expect(me.find("html")).to_have_attribute("lang", "es")
    me.ask("Hola", rows=2)
    for row in (0, 1):
        expect(me.rows.nth(row)).to_have_attribute("data-time", re.compile(r"^\d\d:\d\d"))
        shown = me.rows.nth(row).evaluate("(row) => getComputedStyle(row, '::after').content")
        assert re.search(r"\d\d:\d\d", shown)
    me.find("#help-now").click()
    me.button("Editar").click()
    assert me.unnamed() == []
    expect(me.find("h1")).to_have_count(1)
    assert me.page.title() == "Asistente de Salud Mental"


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_help_opens_without_any_sign_of_danger_and_closes_again(brief_url: str, visit: Visiting, way: str) -> None:
    me = visit(brief_url)
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_contain_text("024")
    me.find("#country input").fill("México")
    me.page.keyboard.press("Enter")
    expect(me.find("#help-text")).not_to_contain_text("024")
    expect(me.find("#help-text a[href^='tel:']")).not_to_have_count(0)
    if way == "Escape":
        me.page.keyboard.press("Escape")
    else:
        me.find("#help-close").click()
    expect(me.find("#help-text")).to_be_hidden()
    me.ask("Hola", rows=2)


def test_the_links_under_the_chat_open_both_pages_in_the_language_of_the_moment(app_url: str, visit: Visiting) -> None:
    me = visit(app_url)
    for name, heading in (("crisis", "Qué hacemos si hay peligro"), ("privacy", "Privacidad")):
        link = me.find(f"#reminder a[data-page={name}]")
        expect(link).to_have_text(heading)
        link.focus()
        with me.context.expect_page() as opened:
            me.page.keyboard.press("Enter")
        paper = opened.value
        expect(paper.locator("h1")).to_have_text(heading)
        paper.set_viewport_size({"width": 360, "height": 700})
        assert paper.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        paper.get_by_role("link", name="English").click()
        expect(paper.locator("html")).to_have_attribute("lang", "en")
        paper.get_by_role("link", name="Back to the chat").click()
        expect(paper.locator("#message textarea")).to_be_editable()
        paper.close()
    me.find("#switch").click()
    expect(me.find("#reminder a[data-page=privacy]")).to_have_text("Privacy")
    expect(me.find("#reminder a[data-page=privacy]")).to_have_attribute("href", re.compile(r"privacy\?lang=en$"))
