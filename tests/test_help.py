"""The help on the page: cards, the country that their lines are of, leaving quickly, exercises, and the safety plan."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Route, expect

import safety
from sentences import LANGUAGES, Language, say
from tests.browser import TIMEOUT, Site, Visit, Visiting, profile
from tests.conftest import ROOT
from tests.shots import DEVICES, LOCALES, SAID, words_for

SECRET = "Llamar a Marisa cuando no duermo"
ELSEWHERE = re.compile(r"https://es\.wikipedia\.org/.*")
SOUND = (ROOT / "tests/sound.js").read_text(encoding="utf-8")


@pytest.fixture
def person(visit: Visiting, brief_url: str) -> Visit:
    return visit(brief_url)


@pytest.fixture
def plan_page(chromium: Browser, brief_url: str) -> Iterator[Page]:
    """The plan, open in a browser of its own."""
    with chromium.new_context(locale="es-ES", viewport={"width": 390, "height": 800}) as context:
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        page.goto(f"{brief_url}plan")
        yield page


def follow_nowhere(context: BrowserContext) -> list[str]:
    """Answers for the website that leaving quickly opens, and notes how often it was asked for."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body="<title>Otra web</title>", content_type="text/html")

    context.route(ELSEWHERE, answer)
    return asked


# --- cards on the page


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", SAID)
def test_each_card_is_shown_from_its_beginning_and_can_be_used(
    kind: str,
    device: str,
    brief_url: str,
    visit: Visiting,
) -> None:
    language: Language = LANGUAGES[list(DEVICES).index(device)]
    height = {"width": DEVICES[device]["viewport"]["width"], "height": 800}
    me = visit(brief_url, **{**DEVICES[device], "viewport": height, "locale": LOCALES[language]})
    me.ask(words_for(kind, language), rows=2)
    expect(me.rows.last).to_have_attribute("data-card", kind)
    expect(me.find(".where")).to_have_count(0 if kind == "soft" else 1)
    expect(me.find("#leave")).to_be_visible(visible=kind == "violence")
    if kind != "soft":
        expect(me.reply.locator("p").first).to_be_in_viewport(ratio=1)
        expect(me.find(".more a")).to_have_attribute("href", f"./plan?lang={language}")
    assert me.at.evaluate(SOUND) == []


def test_one_tap_moves_the_card_and_the_panel_to_another_country_and_keeps_the_keyboard_there(person: Visit) -> None:
    me = person
    me.ask("Quiero matarme.", rows=2)
    expect(me.reply).to_contain_text("024")
    chip = me.find(".where").get_by_role("button", name="México")
    chip.focus()
    me.page.keyboard.press("Enter")
    expect(me.reply).to_contain_text("800 911 2000")
    expect(me.reply).not_to_contain_text("024")
    change = me.find(".where").get_by_role("button", name="Cambiar de país")
    expect(change).to_be_focused()
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_contain_text("800 911 2000")
    me.page.keyboard.press("Escape")
    change.click()
    me.find(".where select").select_option("CL")
    expect(me.reply).to_contain_text("*4141")
    me.ask("Quiero matarme.", rows=4)  # page and server are still in step, and the second card is one line
    expect(me.rows.nth(1)).to_contain_text("*4141")
    expect(me.reply).to_contain_text("*4141")
    expect(me.rows.last).to_have_attribute("data-card", "compact")
    expect(me.find(".where")).to_have_count(1)
    assert me.errors == []


def test_what_comes_after_a_card_is_in_sight(brief_url: str, visit: Visiting) -> None:
    me = visit(brief_url, viewport={"width": 390, "height": 800})
    me.ask("Quiero matarme.", rows=2)
    expect(me.reply.locator("p").first).to_be_in_viewport(ratio=1)
    me.ask("Quiero matarme.", rows=4)
    expect(me.find(".more")).to_be_in_viewport(ratio=1)


def test_the_panel_moves_the_card_too_and_the_next_visit_remembers(person: Visit, brief_url: str) -> None:
    me = person
    me.ask("Quiero matarme.", rows=2)
    me.find("#help-now").click()
    me.find("#country input").fill("Perú")
    me.page.keyboard.press("Enter")
    expect(me.reply).to_contain_text("113 opción 5")
    again = Visit(me.context, brief_url)
    again.ask("Quiero matarme.", rows=2)
    expect(again.reply).to_contain_text("113 opción 5")


@pytest.mark.parametrize(
    ("zone", "locale", "line"),
    [
        ("America/Mexico_City", "es-ES", "800 911 2000"),
        ("America/Buenos_Aires", "en-US", "0800-999-0091"),
        ("Europe/Paris", "es-ES", "Find A Helpline"),  # Spain's number cannot be dialled there
        ("UTC", "es-CL", "*4141"),
        ("UTC", "es", "Find A Helpline"),
    ],
)
def test_the_time_zone_tells_the_country_before_the_language_does(
    zone: str,
    locale: str,
    line: str,
    brief_url: str,
    visit: Visiting,
) -> None:
    me = visit(brief_url, timezone_id=zone, locale=locale)
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_contain_text(line)


# --- leaving quickly


@pytest.mark.parametrize("way", ["#leave", "#help-leave", "Escape"])
def test_leaving_quickly_puts_another_page_in_this_one_s_place_and_forgets(
    way: str,
    person: Visit,
    brief_url: str,
) -> None:
    me = person
    asked = follow_nowhere(me.context)
    me.page.evaluate("() => localStorage.setItem('remanso.plan', '{\"fields\":{},\"erase\":false}')")
    me.ask("Mi marido me pega y me ha amenazado de muerte.", rows=2)
    me.box.fill("no quiero que esto se vea")
    if way == "#help-leave":
        me.find("#help-now").click()
    if way == "Escape":
        for _ in range(3):
            me.page.keyboard.press("Escape")
    else:
        me.find(way).click()
    me.page.wait_for_url(ELSEWHERE)
    assert len(asked) == 1 and not [url for url in me.requests if brief_url not in url and "wikipedia" not in url]
    me.page.go_back()  # to what was there before this page
    assert me.page.url == "about:blank"
    me.page.goto(f"{brief_url}health")
    left = "() => [localStorage, sessionStorage].flatMap(Object.keys).filter((key) => key.startsWith('remanso'))"
    assert me.page.evaluate(left) == ["remanso.plan"]
    again = Visit(me.context, brief_url)
    expect(again.rows).to_have_count(0)
    expect(again.box).to_have_value("")


def test_leaving_quickly_takes_the_plan_along_if_that_was_asked(plan_page: Page) -> None:
    follow_nowhere(plan_page.context)
    plan_page.locator("[name=live]").fill(SECRET)
    plan_page.locator("[name=erase]").check()
    expect(plan_page.locator("#kept")).to_contain_text("Guardado")
    plan_page.locator("#leave").click()
    plan_page.wait_for_url(ELSEWHERE)
    assert plan_page.context.storage_state()["origins"] == []


def test_escape_pressed_slowly_does_not_leave(person: Visit) -> None:
    for _ in range(3):
        person.page.keyboard.press("Escape")
        person.page.wait_for_timeout(1100)
    expect(person.find("h1")).to_be_visible()


def test_leaving_a_frame_leaves_the_whole_tab(
    brief_url: str,
    site: Site,
    visit: Visiting,
) -> None:
    (site.folder / "index.html").write_text(f"<iframe src={brief_url} width=900 height=700></iframe>")
    me = visit()
    follow_nowhere(me.context)
    me.page.goto(f"{site.url}index.html")
    me.at = me.page.frames[1]
    me.find("#help-now").click()
    me.find("#help-leave").click()
    me.page.wait_for_url(ELSEWHERE)


# --- the panel


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100])
def test_the_panel_is_sound_with_everything_in_it_open(
    scheme: str,
    width: int,
    brief_url: str,
    visit: Visiting,
) -> None:
    me = visit(brief_url, color_scheme=scheme, viewport={"width": width, "height": 640})  # 320: a phone, or 200 %
    me.find("#help-now").click()
    expect(me.find("#help-text")).to_contain_text(re.compile(r"\b\d{3}\b"))
    expect(me.find("#help")).to_be_focused()
    for summary in me.find("#help summary").all():
        summary.click()
    me.find("#help [data-calm=breathe] button").click()
    expect(me.find("#help .lung")).to_be_visible()
    assert me.at.evaluate(SOUND) == []
    assert me.foreign("es", "en") == set()
    me.find("#help-close").click()
    expect(me.find("#help-now")).to_be_focused()


def test_the_panel_has_first_aid_for_every_kind_of_card(person: Visit) -> None:
    me = person
    me.find("#help-now").click()
    me.find("#help .situations > summary").click()
    for variant in safety.VARIANTS:
        me.find("#help .situations details summary").get_by_text(say("es", f"safety.aid.{variant}"), exact=True).click()
        expect(me.find("#help")).to_contain_text(say("es", safety.part_key("es", "now", variant)))


# --- exercises


def test_the_panel_leaves_the_keyboard_to_the_exercise_that_was_asked_for(person: Visit) -> None:
    me = person
    me.page.evaluate(
        """() => {
            const begin = () => document.querySelector("#help [data-calm=breathe]");
            new MutationObserver((_, seen) => {
                if (!begin()) return;
                seen.disconnect();
                begin().open = true;
                begin().querySelector("button").focus(); // before the page has looked at what changed
            }).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    me.find("#help-now").click()
    me.page.wait_for_timeout(1000)
    expect(me.find("#help [data-calm=breathe] button")).to_be_focused(timeout=1)


def test_a_breath_is_paced_by_the_keyboard_and_stops(person: Visit) -> None:
    me = person
    me.ask("Quiero matarme.", rows=2)
    me.find(".more button").focus()
    me.page.keyboard.press("Enter")
    box = me.find("#help [data-calm=breathe]")
    expect(box.locator("button")).to_be_focused()
    me.page.keyboard.press("Enter")
    expect(box.locator(".now")).to_have_text("Toma aire")
    expect(box.locator("b")).to_have_text("2")
    expect(box.locator(".now")).to_have_text("Suelta el aire")
    me.find("#switch").click()
    expect(box.locator(".now")).to_have_text("Breathe out")
    expect(box.locator("button")).to_have_text("Stop")
    box.locator("button").click()
    expect(box.locator(".lung")).to_be_hidden()
    expect(box.locator("button")).to_have_text("Start")


def test_whoever_wants_less_motion_gets_none_and_the_words_stay(
    brief_url: str,
    visit: Visiting,
) -> None:
    me = visit(brief_url, reduced_motion="reduce")
    me.find("#help-now").click()
    me.find("#help [data-calm=breathe] summary").click()
    me.find("#help [data-calm=breathe] button").click()
    expect(me.find("#help .now").first).to_have_text("Toma aire")
    moving = "(lung) => { const s = getComputedStyle(lung, '::before'); return [s.transitionProperty, s.transform]; }"
    first = me.find("#help .lung").evaluate(moving)
    me.page.wait_for_timeout(1500)
    assert first[0] == "none" and me.find("#help .lung").evaluate(moving) == first


def test_the_five_senses_are_counted_down_one_by_one(plan_page: Page) -> None:
    box = plan_page.locator("[data-calm=senses]")
    box.locator("summary").focus()
    plan_page.keyboard.press("Enter")
    expect(box.locator("li")).to_have_count(5)
    plan_page.keyboard.press("Tab")
    for number in range(1, 6):
        plan_page.keyboard.press("Enter")
        expect(box.locator(".now")).to_have_text(say("es", f"safety.calm.senses.{number}"))
        expect(box.locator("ol")).to_be_hidden()
    plan_page.keyboard.press("Enter")
    expect(box.locator(".now")).to_have_text(say("es", "safety.calm.done"))
    expect(box.locator("ol")).to_be_visible()


# --- the plan


def test_a_plan_is_kept_on_the_device_and_never_sent(plan_page: Page) -> None:
    sent: list[str] = []
    plan_page.context.on("request", lambda request: sent.append(f"{request.url} {request.post_data}"))
    plan_page.locator("[name=signs]").fill(SECRET)
    plan_page.locator("[name='people.1.name']").fill("Marisa")
    plan_page.locator("[name='people.1.phone']").fill("+34 600 111 222")
    plan_page.locator("[name=country]").select_option("MX")
    expect(plan_page.locator("#kept")).to_contain_text("Guardado en este dispositivo")
    expect(plan_page.get_by_role("link", name="Llamar: Marisa")).to_have_attribute("href", "tel:+34600111222")
    expect(plan_page.locator("[data-country=MX]")).to_contain_text("800 911 2000")
    expect(plan_page.locator("[data-country=ES]")).to_be_hidden()
    with plan_page.expect_download():
        plan_page.locator("[data-do=download]").click()
    plan_page.wait_for_timeout(500)
    assert [url for url in sent if not url.startswith(("blob:", "data:"))] == []
    plan_page.reload()
    expect(plan_page.locator("[name=signs]")).to_have_value(SECRET)
    expect(plan_page.locator("[data-country=MX]")).to_be_visible()
    expect(plan_page.locator("#kept")).to_contain_text("el plan que guardaste")
    assert not any("Marisa" in request for request in sent)


def test_a_downloaded_plan_is_a_page_of_its_own_with_numbers_to_call(plan_page: Page, tmp_path: Path) -> None:
    plan_page.locator("[name=signs]").fill("No duermo <b>nada</b>\nNo como")
    plan_page.locator("[name='pros.1.name']").fill("Centro de salud")
    plan_page.locator("[name='pros.1.phone']").fill("91 000 00 00")
    with plan_page.expect_download() as begun:
        plan_page.locator("[data-do=download]").click()
    assert begun.value.suggested_filename == "plan.html"
    begun.value.save_as(tmp_path / "plan.html")
    text = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert '<html lang="es">' in text and "No duermo &lt;b&gt;nada&lt;/b&gt;" in text and "<script" not in text
    assert 'href="tel:910000000"' in text and 'href="tel:024"' in text
    assert [text.index(say("es", f"safety.plan.{step}")) for step in ("signs", "people", "pros", "live")] == sorted(
        text.index(say("es", f"safety.plan.{step}")) for step in ("signs", "people", "pros", "live")
    )


def test_a_printed_plan_shows_what_was_written_and_no_form(plan_page: Page) -> None:
    plan_page.locator("[name=safe]").fill(SECRET)
    plan_page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    plan_page.emulate_media(media="print")
    expect(plan_page.locator("#sheet")).to_contain_text(SECRET)
    expect(plan_page.locator("#sheet")).to_be_visible()
    expect(plan_page.locator("#plan")).to_be_hidden()


def test_a_plan_is_deleted_after_one_question_and_is_gone(plan_page: Page) -> None:
    plan_page.locator("[name=live]").fill(SECRET)
    expect(plan_page.locator("#kept")).to_contain_text("Guardado")
    plan_page.locator("[data-do=delete]").click()
    expect(plan_page.locator("#sure")).to_be_focused()
    plan_page.locator("[data-do='delete.no']").click()
    expect(plan_page.locator("[name=live]")).to_have_value(SECRET)
    plan_page.locator("[data-do=delete]").click()
    plan_page.locator("[data-do='delete.yes']").click()
    expect(plan_page.locator("[name=live]")).to_have_value("")
    expect(plan_page.locator("#kept")).to_have_text(say("es", "safety.plan.deleted"))
    assert SECRET not in str(plan_page.context.storage_state())
    plan_page.reload()
    expect(plan_page.locator("[name=live]")).to_have_value("")


@pytest.mark.parametrize("storage", ["allowed", "blocked"])
def test_a_plan_in_a_frame_of_another_site_says_whether_it_can_be_kept(
    brief_url: str,
    site: Site,
    playwright: Playwright,
    tmp_path: Path,
    storage: str,
) -> None:
    (site.folder / "index.html").write_text(f"<iframe src={brief_url}plan width=900 height=700></iframe>")
    with profile(playwright, tmp_path / "profile", third_party_storage=storage == "allowed") as context:
        page = context.new_page()
        page.goto(f"{site.url}index.html")
        frame = page.frames[1]
        frame.locator("[name=live]").fill(SECRET)
        told = "Guardado" if storage == "allowed" else "no deja guardar"
        expect(frame.locator("#kept")).to_contain_text(told)
        with page.expect_download() as begun:
            frame.locator("[data-do=download]").click()
        begun.value.save_as(tmp_path / "plan.html")
        assert SECRET in (tmp_path / "plan.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_plan_is_sound_in_both_languages_and_asks_nothing_of_another_host(
    language: Language,
    width: int,
    scheme: Any,
    chromium: Browser,
    brief_url: str,
) -> None:
    with chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 640}) as context:
        page, asked, wrong = context.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{brief_url}plan?lang={language}")
        page.locator("[data-do=delete]").click()
        for summary in page.locator("summary").all():
            summary.click()
        page.locator("[data-calm=breathe] button").click()
        assert page.evaluate(SOUND) == []
        assert wrong == [] and all(url.startswith(brief_url) for url in asked)
