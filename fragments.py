"""Pieces of HTML that stand both on the chat's page and on the plan's: words that a script may translate, exercises,
first aid by situation.

They say all they have to say without a script; `assets/calm.js` adds the pace. Knows nothing of who is there.
"""

import html

import safety
from sentences import Language, say

SENSES = 5


def said(language: Language, tag: str, key: str, attributes: str = "") -> str:
    """Returns an element whose words the page's script keeps in the person's language."""
    return f'<{tag} data-say="{key}" {attributes}>{html.escape(say(language, key))}</{tag}>'


def exercises(language: Language) -> str:
    """Returns two exercises to calm down: a paced breath, and the five senses counted down."""
    senses = "".join(said(language, "li", f"safety.calm.senses.{number}") for number in range(1, SENSES + 1))
    breath = '<p class="lung" hidden><b aria-hidden="true"></b></p>'
    return (
        '<section class="calm">'
        + said(language, "h3", "safety.calm.title")
        + _exercise(language, "breathe", breath, "start")
        + _exercise(language, "senses", f"<ol>{senses}</ol>", "step")
        + "</section>"
    )


def _exercise(language: Language, name: str, body: str, button: str) -> str:
    return (
        f'<details data-calm="{name}">{said(language, "summary", f"safety.calm.{name}")}'
        f"{said(language, 'p', f'safety.calm.{name}.how')}{body}"
        f'<p class="now" role="status"></p>{said(language, "button", f"safety.calm.{button}", "type=button")}</details>'
    )


def situations(language: Language) -> str:
    """Returns what to do first in each situation that has a card of its own, in the card's words."""
    parts = []
    for variant in safety.VARIANTS:
        words = "".join(said(language, "p", safety.part_key(language, part, variant)) for part in ("now", "near"))
        parts.append(f"<details>{said(language, 'summary', f'safety.aid.{variant}')}{words}</details>")
    heading = said(language, "summary", "safety.aid.situations")
    return f'<details class="situations">{heading}{"".join(parts)}</details>'
