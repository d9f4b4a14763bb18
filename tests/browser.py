"""Drives the real page in headless Chromium: one person's visit, and what the page shows of it. Knows no test."""

import functools
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Frame, Locator, Page, Playwright, Response, expect

ROOT = Path(__file__).parent.parent
TIMEOUT = 60_000.0  # milliseconds; the CPU is slow and shared
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
RECORD = """
window.seen = { status: [], words: [] };
const note = (list, text) => { if (text && list.at(-1) !== text) list.push(text); };
new MutationObserver(() => {
  note(seen.status, document.querySelector("#status")?.textContent);
  note(seen.words, [...document.querySelectorAll("[data-testid=bot]")].at(-1)?.innerText.trim());
}).observe(document, { childList: true, subtree: true, characterData: true, attributes: true });
"""
# Every word that a person can see or hear of, without what either side said in the conversation.
WORDS = """
() => {
  const said = "[data-testid=bot] .message-content, [data-testid=user] .message-content, .edit-textarea";
  const found = [document.title], cut = (text, words) => words.reduce((rest, word) => rest.replaceAll(word, ""), text);
  const spoken = [...document.querySelectorAll(said)].map((e) => e.innerText.trim()).filter(Boolean);
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility({ visibilityProperty: true }) || element.closest("script, style")) continue;
    for (const name of ["aria-label", "title", "placeholder", "alt", "aria-description", "aria-roledescription"])
      if (element.getAttribute(name)) found.push(cut(element.getAttribute(name), spoken));
    for (const name of ["::before", "::after"]) found.push(getComputedStyle(element, name).content);
    if (!element.closest(said))
      for (const node of element.childNodes) if (node.nodeType === 3) found.push(node.textContent);
  }
  return found.map((text) => text.trim()).filter((text) => /\\p{L}/u.test(text));
}
"""
UNNAMED = """
() => [...document.querySelectorAll("button, [role=button], a[href], input, textarea")].filter((e) =>
  e.checkVisibility({ visibilityProperty: true }) && !e.ariaLabel?.trim() && !e.innerText?.trim() && !e.title
  && ![...(e.labels || [])].some((label) => label.innerText.trim())).map((e) => e.outerHTML.slice(0, 200))
"""
TURN = "() => JSON.parse(document.querySelector('#turn [data-turn]').dataset.turn).messages"  # the server's side

expect.set_options(timeout=TIMEOUT)


def launch(playwright: Playwright) -> Browser:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    return playwright.chromium.launch(executable_path=found, args=FLAGS)


def profile(playwright: Playwright, folder: Path, *, third_party_storage: bool) -> BrowserContext:
    """Returns a browser with a profile that says whether a site may store anything in someone else's page."""
    (folder / "Default").mkdir(parents=True)
    wishes = {
        "block_third_party_cookies": not third_party_storage,
        "cookie_controls_mode": int(not third_party_storage),
    }
    (folder / "Default/Preferences").write_text(json.dumps({"profile": wishes}))
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    return playwright.chromium.launch_persistent_context(folder, executable_path=found, args=FLAGS, locale="es-ES")


class Visit:
    """One person's page, whole or in someone else's frame."""

    def __init__(self, context: BrowserContext, url: str = "") -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.at: Page | Frame = self.page
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.add_init_script(RECORD)
        if url:
            self.open(url)

    def open(self, url: str) -> Response | None:
        answer = self.page.goto(url)
        expect(self.box).to_be_editable()
        expect(self.status).not_to_be_empty()
        return answer

    def find(self, selector: str) -> Locator:
        return self.at.locator(selector)

    @property
    def box(self) -> Locator:
        return self.find("#message textarea")

    @property
    def send_button(self) -> Locator:
        return self.find("#message .submit-button")

    @property
    def stop_button(self) -> Locator:
        return self.find("#message .stop-button")

    @property
    def go_on(self) -> Locator:
        return self.find("#go-on")

    @property
    def status(self) -> Locator:
        return self.find("#status")

    @property
    def rows(self) -> Locator:
        return self.find("#chat .message-row")

    @property
    def reply(self) -> Locator:
        return self.find("#chat .message-row [data-testid=bot]").last

    def button(self, name: str) -> Locator:
        """Returns the last button of this name in the conversation."""
        return self.find("#chat").get_by_role("button", name=name, exact=True).last

    def text(self) -> str:
        return " ".join(self.reply.inner_text().split())

    def send(self, words: str) -> None:
        """Sends with Enter, and returns when the words stand in the conversation."""
        before = self.rows.count()
        self.box.fill(words)
        self.box.press("Enter")
        self.find(f"#chat .message-row >> nth={before}").wait_for(timeout=TIMEOUT)

    def first_words(self, after: str = "") -> str:
        """Waits for the reply to hold more than `after`, and returns it."""
        self.at.wait_for_function(
            """(after) => [...document.querySelectorAll("#chat .message-row")].at(-1)
            ?.querySelector("[data-testid=bot]")?.innerText.trim().length > after""",
            arg=len(after),
            timeout=TIMEOUT,
        )
        return self.text()

    def settled(self, rows: int) -> str:
        """Waits until a turn has ended with so many bubbles, on the page and on the server; returns the reply."""
        expect(self.rows).to_have_count(rows)
        self.reply.wait_for(timeout=TIMEOUT)
        expect(self.stop_button).to_have_count(0, timeout=2 * TIMEOUT)
        expect(self.send_button).to_be_visible()
        expect(self.box).to_be_enabled()
        self.at.wait_for_function(f"() => ({TURN})().length === {rows}", timeout=TIMEOUT)
        expect(self.rows).to_have_count(rows)
        return self.text()

    def ask(self, words: str, rows: int) -> str:
        self.send(words)
        return self.settled(rows)

    def stop(self) -> None:
        self.stop_button.click()
        expect(self.stop_button).to_have_count(0)
        expect(self.box).to_be_enabled()

    def began_turns(self, count: int) -> None:
        """Waits until the status has told of so many replies since the page was opened."""
        self.at.wait_for_function(
            "(count) => seen.status.filter((state) => state === 'Respondiendo…').length >= count",
            arg=count,
            timeout=TIMEOUT,
        )

    def seen(self, what: str) -> list[str]:
        """Returns what the page has shown of `status` or of the last reply's `words`, in its order."""
        states: dict[str, list[str]] = self.at.evaluate("() => window.seen")
        return states[what]

    def foreign(self, own: str, other: str, also: re.Pattern[str] | None = None) -> set[str]:
        """Returns what stays in the other language on the page, or matches `also`, after time for translation."""
        strange = phrases(own, other)
        for _ in range(12):
            words: list[str] = self.at.evaluate(WORDS)
            found = {text for text in words if strange.search(text) or (also and also.search(text))}
            if not found:
                break
            self.page.wait_for_timeout(250)
        return found

    def back_online(self) -> None:
        """Ends `set_offline`, and lets what a page may do of itself, such as loading again, happen."""
        self.context.set_offline(False)
        self.page.wait_for_timeout(5000)

    def unnamed(self) -> list[str]:
        return list(self.at.evaluate(UNNAMED))

    def scrolls_sideways(self) -> bool:
        return bool(self.at.evaluate("() => document.documentElement.scrollWidth > innerWidth"))


Visiting = Callable[..., Visit]


class Site:
    """Someone else's site. Serves one page, and notes what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        site = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                site.asked.append(self.path)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://localhost:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def sentences(language: str) -> dict[str, str]:
    return dict(json.loads((ROOT / f"locales/{language}.json").read_text(encoding="utf-8")))


def phrases(own: str, other: str) -> re.Pattern[str]:
    """Returns what finds any sentence of the other language's catalogue, or a part of one, that is not also our own."""
    mine, theirs = sentences(own), sentences(other)
    pieces = {
        piece.strip()
        for key, text in theirs.items()
        if text != mine[key] and not key.startswith(("model.", "export."))
        for piece in re.split(r"\n|\*\*|^#+|^_|_$|\{\w+\}|^[.:]|^\d\.", text)
    }
    ours = "\n".join(mine.values())
    strange = [re.escape(piece) for piece in pieces if len(piece) > 2 and piece not in ours]
    return re.compile("|".join(rf"(?<!\w){piece}(?!\w)" for piece in strange))
