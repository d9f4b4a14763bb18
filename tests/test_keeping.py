"""What is kept, as a person meets it: headless Chromium against the real server, which is killed and started again."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import FilePayload, Locator, Playwright, expect

from tests.browser import TIMEOUT, Site, Visit, Visiting, profile
from tests.services.archived import Server
from tests.test_keeping_api import PLAIN

pytest_plugins = ["tests.services.archived"]

KEY = re.compile(r"^[A-Za-z0-9_-]{43}$")
STORED = "() => localStorage.getItem('remanso.key')"


@pytest.fixture
def me(kept_server: Server, visit: Visiting) -> Visit:
    return visit(kept_server.url)


def panel(me: Visit) -> Locator:
    if me.find("#kept").is_hidden():
        me.find("#keep").click()
    return me.find("#kept")


def press(me: Visit, name: str) -> None:
    panel(me).get_by_role("button", name=name, exact=True).first.click()


def consent(me: Visit) -> None:
    panel(me)
    me.find("#kept-yes").check()
    press(me, "Guardar")
    expect(me.find("#kept-told")).to_have_text("Desde ahora se guardan. Puedes dejarlo cuando quieras.")
    press(me, "Cerrar")


def told(me: Visit, words: str | re.Pattern[str]) -> None:
    expect(me.find("#kept-told")).to_have_text(words)


def kept(me: Visit) -> None:
    """Waits until the page says that the last turn is kept."""
    expect(me.find("#keep")).to_have_attribute("data-state", "kept")


def titles(me: Visit) -> list[str]:
    panel(me)
    expect(me.find("#kept-told")).not_to_have_text("Un momento…")
    return me.find("#kept .kept-open").all_inner_texts()


def options(me: Visit, title: str) -> Locator:
    row = panel(me).locator("li", has_text=title)
    row.locator("summary").click()
    return row


def test_keeping_is_offered_calmly_and_never_ticked_beforehand(me: Visit) -> None:
    me.ask("Hola <b>alpaca</b>", rows=2)
    expect(me.find("#keep")).to_have_text("Guardar mis conversaciones")
    assert me.page.evaluate(STORED) is None
    panel(me)
    expect(me.find("#kept")).to_be_focused()
    for words in ("base de datos", "365 días", "Quien lleva este servicio", "cuando quieras"):
        expect(me.find("#kept")).to_contain_text(words)
    expect(me.find("#kept-yes")).not_to_be_checked()
    expect(panel(me).get_by_role("button", name="Guardar", exact=True)).to_be_disabled()
    expect(me.find("#chat").get_by_role("button", name="Me ayuda", exact=True)).to_have_count(0)
    consent(me)
    expect(me.find("#keep")).to_be_focused()
    key = me.page.evaluate(STORED)
    assert KEY.match(key) and not any(key in url for url in me.requests)
    kept(me)
    assert titles(me) == ["Hola <b>alpaca</b>"]
    expect(me.rows.first).to_contain_text("<b>alpaca</b>")  # still text after the events of the panel
    me.page.keyboard.press("Escape")
    expect(me.find("#kept")).to_be_hidden()
    expect(me.find("#keep")).to_be_focused()
    assert me.errors == []


def test_a_kept_conversation_is_offered_opened_and_gone_on_with_in_another_tab(me: Visit) -> None:
    consent(me)
    said = me.ask("Hoy llueve", rows=2)
    kept(me)
    other = Visit(me.context, me.page.url)
    expect(other.find("#kept-offer")).to_have_text("Seguir con la última: Hoy llueve")
    other.find("#kept-offer button").click()
    expect(other.rows).to_have_count(2)
    assert other.text() == said
    other.ask("Hay mercado en la plaza", rows=4)
    kept(other)
    other.find("#new").click()
    expect(other.rows).to_have_count(0)
    other.ask("Otra cosa", rows=2)
    kept(other)
    assert titles(other) == ["Otra cosa", "Hoy llueve"]
    other.find("#kept-words").fill("plaza LLUEVE")
    other.page.keyboard.press("Enter")
    told(other, "Conversaciones: 1")
    expect(other.find("#kept .kept-excerpt")).to_have_count(1)
    press(other, "Abrir: Hoy llueve")
    expect(other.rows).to_have_count(4)
    expect(other.box).to_be_focused()


def test_undo_edit_and_retry_change_what_is_kept(me: Visit) -> None:
    consent(me)
    me.ask("Hoy llueve", rows=2)
    me.ask("Mañana hay mercado", rows=4)
    me.button("Deshacer").click()
    expect(me.rows).to_have_count(2)
    expect(me.box).to_have_value("Mañana hay mercado")
    options(me, "Hoy llueve")
    expect(panel(me).locator("li", has_text="Hoy llueve")).to_contain_text("mensajes: 2")
    press(me, "Cerrar")
    me.ask("Me gusta el pan", rows=4)
    kept(me)
    me.button("Reintentar").click()
    me.began_turns(4)
    me.settled(4)
    kept(me)
    with me.page.expect_download() as got:
        press(me, "Descargar todas para leer")
    text = Path(got.value.path()).read_text()
    assert [
        text.count(word)
        for word in ("Hoy llueve", "Mañana hay mercado", "Me gusta el pan", "Respuesta 1", "Respuesta 2")
    ] == [1, 0, 1, 1, 1]


def test_titles_are_text_and_can_be_changed_and_copies_come_back(me: Visit) -> None:
    consent(me)
    me.ask("Primera", rows=2)
    kept(me)
    nasty = "<img src=x onerror='window.ran=1'> **a** [b](javascript:alert(1))"
    row = options(me, "Primera")
    row.get_by_role("button", name="Cambiar el título").click()
    row.get_by_role("textbox").fill(nasty)
    me.page.keyboard.press("Enter")
    told(me, "Título cambiado.")
    assert titles(me) == [nasty] and me.page.evaluate("() => window.ran") is None
    with me.page.expect_download() as got:
        options(me, "img src").get_by_role("button", name="Descargar copia", exact=True).click()
    assert got.value.suggested_filename.endswith(".json")
    me.find("#kept input[type=file]").set_input_files(got.value.path())
    told(me, "Conversaciones traídas: 1")
    assert titles(me) == [nasty, nasty]
    bad = FilePayload(name="a.json", mimeType="application/json", buffer=b"[1, 2]")
    me.find("#kept input[type=file]").set_input_files([bad])
    told(me, re.compile("no es una copia"))


def test_what_is_deleted_is_asked_for_once_and_shown_to_be_gone(me: Visit, kept_server: Server) -> None:
    consent(me)
    me.ask("Primera gacela", rows=2)
    kept(me)
    me.find("#new").click()
    expect(me.rows).to_have_count(0)
    me.ask("Segunda gacela", rows=2)
    kept(me)
    row = options(me, "Primera gacela")
    row.get_by_role("button", name="Borrar", exact=True).click()
    expect(row.locator(".kept-sure p")).to_be_focused()
    row.get_by_role("button", name="No, volver").click()
    row.get_by_role("button", name="Borrar", exact=True).click()
    row.get_by_role("button", name="Sí, borrar").click()
    told(me, "Borrada. Hemos vuelto a mirar y ya no está.")
    expect(me.find("#kept-told")).to_be_focused()
    assert titles(me) == ["Segunda gacela"]
    expect(me.rows).to_have_count(2)
    press(me, "Borrar todo")
    press(me, "Sí, borrar")
    told(me, "Todo borrado. Hemos vuelto a mirar y no queda nada guardado.")
    expect(me.rows).to_have_count(0)
    expect(me.find("#keep")).to_have_text("Guardar mis conversaciones")
    assert me.page.evaluate(STORED) is None
    at_rest = b"".join(path.read_bytes() for path in kept_server.folder.rglob("*") if path.is_file())
    assert b"gacela" not in at_rest


def test_a_withdrawn_consent_ends_the_keeping_and_leaves_what_was_kept_to_choose(me: Visit) -> None:
    consent(me)
    me.ask("Antes", rows=2)
    kept(me)
    press(me, "Dejar de guardar")
    press(me, "Dejarlo guardado")
    told(me, "Ya no se guarda nada nuevo.")
    assert titles(me) == ["Antes"]
    press(me, "Cerrar")
    me.ask("Después", rows=4)
    panel(me)
    expect(me.find("#kept .kept-about")).to_contain_text("mensajes: 2")


def test_the_key_finds_everything_on_another_device_and_a_wrong_one_nothing(me: Visit, visit: Visiting) -> None:
    consent(me)
    me.ask("Desde casa", rows=2)
    kept(me)
    panel(me)
    me.find("#kept .kept-key summary").click()
    expect(me.find("#kept-key")).to_be_empty()
    press(me, "Mostrar la clave")
    key = me.find("#kept-key").inner_text()
    assert key == me.page.evaluate(STORED)
    phone = visit(me.page.url)
    panel(phone).get_by_text("Ya tengo una clave").click()
    for wrong, words in (("hola", "Eso no es una clave"), ("A" * 43, "Con esta clave no hay nada guardado")):
        phone.find("#kept-given").fill(wrong)
        phone.page.keyboard.press("Enter")
        told(phone, re.compile(words))
        assert phone.page.evaluate(STORED) is None
    phone.find("#kept-given").fill(f" {key} ")
    phone.page.keyboard.press("Enter")
    told(phone, "Clave reconocida.")
    assert titles(phone) == ["Desde casa"]
    phone.find("#kept .kept-key summary").click()
    press(phone, "Quitar la clave de este dispositivo")
    told(phone, re.compile("La clave ya no está"))
    assert phone.page.evaluate(STORED) is None and titles(phone) == []
    assert titles(me) == ["Desde casa"]


def test_a_thumb_and_its_word_are_kept(me: Visit) -> None:
    consent(me)
    me.ask("Hola", rows=2)
    kept(me)
    me.button("Me ayuda").click()
    me.find(".kept-why input").fill("Me calmó.")
    me.page.keyboard.press("Enter")
    expect(me.find(".kept-why")).to_have_text("Anotado, gracias.")
    with me.page.expect_download() as got:
        press(me, "Descargar copia de todas")
    (one,) = json.loads(Path(got.value.path()).read_text())["conversations"]
    assert [(rating["up"], rating["word"]) for rating in one["ratings"]] == [(True, "Me calmó.")]
    press(me, "Abrir: Hola")
    expect(me.button("Marcada: me ayuda")).to_be_visible()


@pytest.mark.parametrize(
    ("language", "options"),
    [
        ("es", {"locale": "es-ES", "color_scheme": "dark", "viewport": {"width": 320, "height": 800}}),
        ("en", {"locale": "en-GB", "color_scheme": "light", "viewport": {"width": 1100, "height": 800}}),
    ],
)
def test_the_panel_fits_and_is_named_and_speaks_one_language(
    kept_server: Server, visit: Visiting, language: str, options: dict[str, Any]
) -> None:
    me = visit(kept_server.url, **options)
    me.ask("Zzz " + "a" * 150, rows=2)
    other = "en" if language == "es" else "es"
    found: set[str] = set()
    for step in ("offer", "kept"):
        panel(me)
        if step == "kept":
            me.find("#kept-yes").check()
            me.find("#kept .primary").click()
            me.find("#kept .kept-open").wait_for()
        for summary in me.find("#kept summary").all():
            summary.click()
        found |= me.foreign(language, other)
        assert not me.scrolls_sideways() and me.unnamed() == [], step
    assert {text for text in found if "Respuesta" not in text and "contigo" not in text} == set()
    me.find("#switch").click()
    expect(me.find("#kept h2")).to_have_text("My conversations" if language == "es" else "Mis conversaciones")


def test_in_a_frame_with_blocked_storage_it_is_told_and_works_for_the_visit(
    kept_server: Server, site: Site, playwright: Playwright, tmp_path: Path
) -> None:
    (site.folder / "index.html").write_text(f"<iframe src={kept_server.url} width=900 height=700></iframe>")
    with profile(playwright, tmp_path / "profile", third_party_storage=False) as context:
        me = Visit(context)
        me.page.goto(f"{site.url}index.html")
        me.at = me.page.frames[1]
        me.ask("Hola", rows=2)
        expect(panel(me)).to_contain_text("Tu navegador no deja que esta página recuerde nada")
        consent(me)
        kept(me)
        assert titles(me) == ["Hola"]


def test_a_store_that_is_away_is_told_quietly_and_loses_nothing(me: Visit, kept_server: Server) -> None:
    consent(me)
    me.ask("Hoy llueve", rows=2)
    kept(me)
    with closing(sqlite3.connect(kept_server.database, isolation_level=None)) as other:
        other.execute("begin exclusive")
        me.ask("Mañana hay mercado", rows=4)
        me.ask("Me gusta el pan", rows=6)
        expect(me.find("#keep")).to_have_attribute("data-state", re.compile("kept|away"))
        other.execute("rollback")
    me.ask("Voy a pasear", rows=8)
    kept(me)
    panel(me)
    expect(me.find("#kept .kept-about")).to_contain_text("mensajes: 8")


def test_a_server_killed_in_the_middle_of_a_reply_loses_nothing_that_was_kept(
    me: Visit, visit: Visiting, kept_server: Server
) -> None:
    idle = visit(kept_server.url)
    for one in (me, idle):
        consent(one)
        one.ask("Hoy llueve", rows=2)
        kept(one)
    me.send("Cuéntame algo despacio")
    me.first_words()
    me.page.evaluate("() => { window.before = true; }")
    kept_server.kill()
    kept_server.start()
    tab = Visit(me.context, kept_server.url)
    assert titles(tab) == ["Hoy llueve"]
    press(tab, "Abrir: Hoy llueve")
    expect(tab.find("#chat [data-testid=user]")).to_have_count(2)
    shown = tab.find("#chat [role=log]").inner_text()
    assert [shown.count(words) for words in ("Hoy llueve", "Cuéntame algo", "Respuesta 1.")] == [1, 1, 1]
    me.at.wait_for_function("() => !window.before", timeout=TIMEOUT)  # Gradio loads such a page again, of itself
    expect(me.find("#chat [data-testid=user]")).to_have_count(2)
    me.ask("Gracias", rows=me.rows.count() + 2)
    kept(me)
    idle.box.press("a")  # who types asks how the server is
    expect(idle.find("#notice-restart")).to_have_text(re.compile("estaba guardada y sigue aquí"))
    idle.ask("Hay mercado en la plaza", rows=4)
    assert idle.text().startswith("Respuesta 2.")  # the model reads what was said before
    kept(idle)
    assert titles(idle) == ["Hoy llueve"]
    expect(idle.find("#kept .kept-about")).to_contain_text("mensajes: 4")


def test_where_nothing_is_kept_nothing_is_offered_and_nothing_written(tmp_path: Path, visit: Visiting) -> None:
    server = Server(tmp_path).start(kept=False)
    try:
        me = visit(server.url)
        me.ask("Hola alpaca", rows=2)
        expect(me.find("#keep, #keeping, #kept")).to_have_count(0)
        expect(me.find("#chat .message-buttons").last.locator("button")).to_have_count(3)  # copy, retry, undo
        assert me.page.evaluate(STORED) is None
        me.page.goto(f"{server.url}privacy?lang=es")
        expect(me.find("main")).to_contain_text("No guardamos lo que escribes.")
        expect(me.find("main")).not_to_contain_text("Guardar mis conversaciones")
        client = Client(server.url, verbose=False)
        assert set(client.view_api(return_format="dict")["named_endpoints"]) == PLAIN
        client.predict("Hola alpaca.", api_name="/chat")
        with pytest.raises(AppError, match="no guarda conversaciones"):
            client.predict(True, api_name="/consent")
        assert client.predict(False, api_name="/consent")["kept"] is False
        assert client.predict(api_name="/delete")["deleted"] == 0
        assert client.predict(api_name="/history") == []
    finally:
        server.stop()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != server.log]
    assert [path for path in written if b"alpaca" in path.read_bytes() or "state" in path.parts] == []


def test_the_privacy_page_says_what_is_kept_here(kept_server: Server, me: Visit) -> None:
    for language, words in (("es", "«Guardar mis conversaciones»"), ("en", "“Keep my conversations”")):
        me.page.goto(f"{kept_server.url}privacy?lang={language}")
        expect(me.find("main")).to_contain_text(words)
        expect(me.find("main")).to_contain_text("365")
        assert not re.search(r"KEPT|NONE|\{|\}|DAYS", me.find("main").inner_text())
