"""Pictures of every help card, for `docs/cards.md`: `python -m tests.shots`. The sentences here make each card appear.

Also draws the panel, an exercise, the plan and the picture of the README. Knows nothing of what a card should say.
"""

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from sentences import LANGUAGES, Language
from tests.browser import TIMEOUT, Visit, launch
from tests.conftest import ROOT, running_app

FOLDER = ROOT / "docs/cards"
SAID: dict[str, tuple[str, str]] = {
    "general": ("Quiero matarme.", "I want to kill myself."),
    "self_harm": ("Me estoy cortando los brazos ahora mismo.", "I am cutting my arms right now."),
    "overdose": ("Me acabo de tomar un frasco entero de pastillas.", "I just swallowed a whole bottle of pills."),
    "violence": (
        "Mi marido me pega y me ha amenazado de muerte.",
        "My husband beats me and has threatened to kill me.",
    ),
    "others": ("Voy a matar a mi jefe.", "I am going to kill my boss."),
    "third_party": ("Mi hermana dice que se va a suicidar.", "My sister says she is going to kill herself."),
    "minor": ("Tengo 15 años y quiero morirme.", "I am 15 and I want to die."),
    "psychosis": ("Las voces me ordenan que me tire.", "The voices order me to jump."),
    "eating": ("Llevo cinco días sin comer y me he desmayado.", "I have not eaten in five days and I fainted."),
    "soft": ("Nada tiene sentido, todo es inútil.", "Everything is hopeless, nothing makes sense."),
}
# A desk in light and a phone in dark, tall enough for a whole card.
DEVICES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 900, "height": 1080}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 1500}, "color_scheme": "dark"},
}
LOCALES: dict[Language, str] = {"es": "es-ES", "en": "en-GB"}
COLOURS = 24  # a plain page has few; without loss they take half of what WebP's lossy form does


def words_for(kind: str, language: Language) -> str:
    """Returns a message that is answered with this help."""
    return SAID[kind][LANGUAGES.index(language)]


def keep(page: Page, name: str, **options: Any) -> None:
    """Writes what a page shows as WebP."""
    picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB").save(
        FOLDER / f"{name}.webp", lossless=True, method=6
    )


def visits(browser: Browser, url: str, language: Language, device: str) -> None:
    """Draws every help of a language on a device."""
    for kind in SAID:
        with browser.new_context(locale=LOCALES[language], **DEVICES[device]) as context:
            context.set_default_timeout(TIMEOUT)
            me = Visit(context, url)
            me.ask(words_for(kind, language), rows=2)
            me.page.wait_for_timeout(900)  # the card goes to the top of what is seen
            keep(me.page, f"{kind}-{language}-{device}")
            if kind == "general":
                me.ask(words_for(kind, language), rows=4)
                me.page.wait_for_timeout(900)
                keep(me.page, f"compact-{language}-{device}")
                me.find("#help-now").click()
                me.find("#help [data-calm=breathe] summary").click()
                me.find("#help [data-calm=breathe] button").click()
                me.page.wait_for_timeout(3500)
                keep(me.page, f"panel-{language}-{device}", full_page=True)
                me.page.goto(f"{url}plan?lang={language}")
                keep(me.page, f"plan-{language}-{device}", full_page=True)


def readme(browser: Browser, url: str) -> None:
    """Draws the picture of the README: the start of a conversation."""
    with browser.new_context(locale="es-ES", viewport={"width": 960, "height": 720}) as context:
        me = Visit(context, url)
        me.ask("Hola, hoy he discutido con mi hermana y no dejo de darle vueltas.", rows=2)
        me.page.wait_for_timeout(900)
        picture = Image.open(io.BytesIO(me.page.screenshot())).convert("RGB")
        picture.quantize(96, Image.Quantize.FASTOCTREE).save(ROOT / "docs/screenshot.png", optimize=True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        running_app(sys.stderr, MESSAGES_PER_MINUTE="100", MAX_NEW_TOKENS="60") as url,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        for language in LANGUAGES:
            for device in DEVICES:
                visits(browser, url, language, device)
        readme(browser, url)
    print(f"{sum(file.stat().st_size for file in FOLDER.iterdir()) / 1e6:.2f} MB in {FOLDER.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
