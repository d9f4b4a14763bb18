"""The safety plan's page: a form that a script in the person's browser keeps, prints and downloads. Nothing is sent.

The steps follow Stanley and Brown's Safety Planning Intervention (Cognitive and Behavioral Practice 19, 2012): warning
signs, what helps alone, people and places, whom to ask, professionals, a safer place; and what is worth living for.
Knows nothing of requests, nor of the frame around it, which is `papers.py`'s.
"""

import html
import json
from pathlib import Path

from markdown_it import MarkdownIt

import safety
from fragments import exercises
from notices import written_lines
from sentences import Language, catalogue, say

ASSETS = Path(__file__).parent / "assets"
STEPS = ("signs", "alone", "places", "people", "pros", "safe", "live")
NUMBERS = {"people": 3, "pros": 2}  # rows of a name and a phone
SCRIPTS = ("where.js", "leave.js", "calm.js", "plan.js")


def plan(language: Language) -> str:
    """Returns the HTML of the page's body."""
    return (
        f"<h1>{_says(language, 'page.plan')}</h1>"
        f'<p><button type="button" id="leave">{_says(language, "safety.leave")}</button></p>'
        f'<p>{_says(language, "safety.plan.intro")}</p><p id="private">{_says(language, "safety.plan.private")}</p>'
        f"<noscript><p>{_says(language, 'safety.plan.script')}</p></noscript>"
        '<p id="kept" role="status"></p><form id="plan" autocomplete="off">'
        + "".join(_step(language, step, number) for number, step in enumerate(STEPS, start=1))
        + f'<p><label><input type="checkbox" name="erase"> {_says(language, "safety.plan.erase")}</label></p>'
        f'<p class="tools">{_buttons(language, "download", "print", "delete")}</p>'
        f'<p class="tools" id="sure" hidden tabindex="-1"><span>{_says(language, "safety.plan.delete.sure")}</span> '
        f"{_buttons(language, 'delete.yes', 'delete.no')}</p></form>"
        f'{exercises(language)}<p class="leaving">{_says(language, "safety.leave.how")}</p>'
        '<article id="sheet"></article>'
    )


def plan_script(language: Language) -> str:
    """Returns the page's script, with the words that it says itself."""
    words = {key: text for key, text in catalogue(language).items() if key.startswith(("safety.plan.", "safety.calm."))}
    begin = {"language": language, "title": say(language, "page.plan"), "words": words, "steps": STEPS}
    head = f"window.remanso = {json.dumps(begin, ensure_ascii=False)};".replace("<", "\\u003c")
    return "\n".join([head, *((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)])


def _step(language: Language, step: str, number: int) -> str:
    label, hint = _says(language, f"safety.plan.{step}"), _says(language, f"safety.plan.{step}.hint")
    hinted = f'<p class="hint" id="{step}-hint">{hint}</p>'
    if step in NUMBERS:
        rows = "".join(_contact(language, step, row) for row in range(1, NUMBERS[step] + 1))
        more = _country(language) if step == "pros" else ""
        return f"<fieldset><legend><h2>{number}. {label}</h2></legend>{hinted}{rows}{more}</fieldset>"
    return (
        f'<section><h2><label for="{step}">{number}. {label}</label></h2>{hinted}'
        f'<textarea id="{step}" name="{step}" rows="3" aria-describedby="{step}-hint"></textarea></section>'
    )


def _contact(language: Language, step: str, row: int) -> str:
    name, phone = (html.escape(say(language, f"safety.plan.{part}", number=row)) for part in ("name", "phone"))
    return (
        f'<p class="contact"><label>{name}<input name="{step}.{row}.name"></label>'
        f'<label>{phone}<input name="{step}.{row}.phone" type="tel"></label>'
        f'<a hidden data-call="{step}.{row}">{_says(language, "safety.plan.call")}</a></p>'
    )


def _country(language: Language) -> str:
    """Returns the choice of a country and, for each, its lines; the script shows those of the chosen one."""
    named = [*safety.countries_by_name(language), (say(language, "safety.plan.nowhere"), "")]
    options = "".join(f'<option value="{code}">{html.escape(name)}</option>' for name, code in named)
    lines = "".join(_lines(language, code) for _, code in named)
    label = _says(language, "safety.plan.country")
    return f'<p><label>{label} <select name="country">{options}</select></label></p>{lines}'


def _lines(language: Language, code: str) -> str:
    written = "\n".join(text for _, text in written_lines(language, code or None))
    urgent = safety.emergency_line(language, code or None)
    shown = MarkdownIt("commonmark", {"html": False}).render(f"{urgent}\n\n{written}")
    return f'<div data-country="{code}" hidden>{shown}</div>'


def _buttons(language: Language, *names: str) -> str:
    return " ".join(
        f'<button type="button" data-do="{name}">{_says(language, f"safety.plan.{name}")}</button>' for name in names
    )


def _says(language: Language, key: str) -> str:
    return html.escape(say(language, key))
