"""The pages that stand beside the chat: what it does when there is danger, what it keeps, and the safety plan.

Made once, at the start, from `assets/pages/*.md` and the helpline table, so they are there whatever the model does. The
plan alone has a script. Knows nothing of requests; `edge.py` serves them.
"""

import html
import re
from pathlib import Path

from markdown_it import MarkdownIt

import safety
from config import Settings
from notices import written_lines
from plan import plan, plan_script
from sentences import LANGUAGES, Language, say

NAMES = ("crisis", "privacy")  # those written in Markdown
LINKED = ("plan", *NAMES)
ASSETS = Path(__file__).parent / "assets"
FOLDER = ASSETS / "pages"
PART = re.compile(r"^\[\[(\w+)\]\]\n(.*?)^\[\[end\]\]\n", re.DOTALL | re.MULTILINE)
Papers = dict[tuple[str, Language], str]
# Relative links: behind a proxy the chat need not stand at the root.
FRAME = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading} · {title}</title>
<style>
{style}</style>
</head>
<body>
<nav aria-label="{languages}"><a href="./?lang={language}">{back}</a>
<a href="./{name}?lang={other}" hreflang="{other}" lang="{other}">{switch}</a>
<a href="./{beside}?lang={language}">{beside_heading}</a></nav>
<main>
{body}</main>
<footer><p>{reminder}</p></footer>
{script}</body>
</html>
"""


def papers(settings: Settings) -> Papers:
    """Returns the HTML of each page, by name and language."""
    written = {(name, language): _page(name, language, settings) for name in NAMES for language in LANGUAGES}
    return written | {("plan", language): _plan(language, settings) for language in LANGUAGES}


def _page(name: str, language: Language, settings: Settings) -> str:
    text = _true_here((FOLDER / f"{name}.{language}.md").read_text(encoding="utf-8"), settings)
    text = text.replace("HELPLINES", _helplines(language)).replace(
        "GRACE", _duration(settings.session_grace_seconds, language)
    )
    days = say(language, "kept.long", days=settings.history_days) if settings.history_days else ""
    text = text.replace("DAYS", days or say(language, "kept.long.ever"))
    beside = next(one for one in NAMES if one != name)
    return _framed(name, beside, language, settings, MarkdownIt("commonmark", {"html": False}).render(text))


def _true_here(text: str, settings: Settings) -> str:
    """Leaves the parts of a text that are true of this service: `[[none]]` where nothing is kept, else `[[kept]]`, and
    within it `[[hub]]` where that lies with Hugging Face."""
    url = settings.history_url
    true = {"kept"} if url else {"none"}
    true |= {"hub"} if url.startswith("hf://") else set()
    return PART.sub(lambda found: found[2] if found[1] in true else "", text)


def _plan(language: Language, settings: Settings) -> str:
    style = "".join((ASSETS / name).read_text(encoding="utf-8") for name in ("calm.css", "pages/plan.css"))
    script = f"<script>{plan_script(language)}</script>\n"
    return _framed("plan", "crisis", language, settings, plan(language), style=style, script=script)


def _framed(  # noqa: PLR0913 - what a page is made of, each by its name
    name: str, beside: str, language: Language, settings: Settings, body: str, *, style: str = "", script: str = ""
) -> str:
    other = next(one for one in LANGUAGES if one != language)
    words = {
        "title": settings.title or say(language, "page.title"),
        "heading": say(language, f"page.{name}"),
        "beside_heading": say(language, f"page.{beside}"),
        "languages": say(language, "paper.languages"),
        "back": say(language, "paper.back"),
        "switch": say(language, "page.switch"),
        "reminder": say(language, "page.reminder"),
    }
    return FRAME.format(
        name=name,
        beside=beside,
        language=language,
        other=other,
        style=(FOLDER / "paper.css").read_text(encoding="utf-8") + style,
        body=body,
        script=script,
        **{key: html.escape(value) for key, value in words.items()},
    )


def _helplines(language: Language) -> str:
    """Returns every line that may be shown, by country, and the international directory at the end."""
    parts = []
    for country, code in safety.countries_by_name(language):
        lines = [text for line, text in written_lines(language, code) if line.country == code]
        parts.append(f"### {country} · {safety.emergency(code)}")
        parts.append("\n".join(lines) or say(language, "paper.nowhere"))
    directory = "\n".join(text for _, text in written_lines(language, None))
    return "\n\n".join([*parts, f"### {say(language, 'paper.anywhere')}", directory])


def _duration(seconds: float, language: Language) -> str:
    minutes = round(seconds / 60)
    if minutes > 1:
        return say(language, "paper.minutes", count=minutes)
    return say(language, "paper.seconds", count=f"{seconds:g}")
