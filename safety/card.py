"""The help that code writes beside the model's answer: a card in a crisis, a soft line below it, and the help panel.

Every word comes from `locales/*.json`, every number and address from the helpline table; the model adds nothing. Knows
nothing of how a risk is found, nor of the page that shows the text.
"""

import re

from safety.helplines import ANYWHERE, PHONE, Helpline, countries, digits, emergency, helplines
from safety.risk import Assessment, Category
from sentences import Language, catalogue, say

MOST = 3  # lines of help in a card; the panel has them all
# What a card may have of its own. A part that a variant lacks is the general one.
VARIANT: dict[Category, str] = {
    "overdose": "overdose",
    "violence": "violence",
    "abuse": "violence",
    "harm_to_others": "others",
    "third_party": "third_party",
    "minor": "minor",
    "psychosis": "psychosis",
    "eating": "eating",
}
# Where waiting for a helpline may cost a life, the emergency number stands above the lines.
URGENT = {"overdose", "violence", "others", "psychosis"}


def card(assessment: Assessment, language: Language, country: str | None, *, compact: bool = False) -> str:
    """Returns the Markdown of the help that an assessment calls for, or "" where it calls for none.

    Args:
        assessment: The state of the conversation.
        language: The language of the page.
        country: The country that the person chose, or None.
        compact: One line, for the turns after the one that showed the whole card.
    """
    if assessment.level == "none":
        return ""
    urgent = _emergency(language, country)
    if assessment.level == "elevated":
        return say(language, "safety.card.soft", emergency=urgent)
    if compact:
        first = _written(_chosen(country, assessment.category)[0], language)
        return say(language, "safety.card.compact", emergency=urgent, line=first)
    return _whole(language, country, assessment.category, urgent)


def help_panel(language: Language, country: str | None) -> str:
    """Returns the Markdown behind the help button: every line of the country, the directory and a short exercise."""
    lines = helplines(country)
    directory = () if lines[0].country == ANYWHERE else helplines(None)[:1]
    return "\n\n".join(
        [
            say(language, "safety.panel.title"),
            say(language, "safety.card.emergency", emergency=_emergency(language, country)),
            "\n".join(f"- {_written(line, language)}" for line in (*lines, *directory)),
            say(language, "safety.panel.breathe"),
            say(language, "safety.panel.close"),
        ]
    )


def _whole(language: Language, country: str | None, category: Category, urgent: str) -> str:
    variant = VARIANT.get(category, "general")
    lines = "\n".join(f"- {_written(line, language)}" for line in _chosen(country, category))
    help_now = [lines, say(language, "safety.card.emergency", emergency=urgent)]
    parts = [
        _part(language, "care", variant),
        *(reversed(help_now) if variant in URGENT else help_now),
        _part(language, "now", variant),
        _part(language, "near", variant),
        _part(language, "ask", variant),
        say(language, "safety.card.who"),
    ]
    return "\n\n".join(parts)


def _part(language: Language, part: str, variant: str) -> str:
    key = f"safety.card.{part}.{variant}"
    return say(language, key if key in catalogue(language) else f"safety.card.{part}.general")


def _chosen(country: str | None, category: Category) -> tuple[Helpline, ...]:
    """Returns the few lines of a card: those made for what happens first, those made for something else not at all."""
    variant = VARIANT.get(category)
    lines = [line for line in helplines(country) if variant == "violence" or not line.is_for_violence]
    lines.sort(key=lambda line: (not line.is_for_violence, line.is_for_young == (variant != "minor")))
    return tuple(lines[:MOST]) or helplines(country)[:MOST]


def _written(line: Helpline, language: Language) -> str:
    parts = [_dialled(line.phone)] if line.phone else []
    if line.text_channel and not line.text_channel.startswith("http"):
        parts.append(say(language, "safety.line.text", channel=line.text_channel))
    if line.country != ANYWHERE:
        parts.append(line.hours or say(language, "safety.line.hours"))
    if line.unconfirmed:
        parts.append(say(language, "safety.line.unconfirmed"))
    name = line.service.replace("*", r"\*")
    return f"**[{name}]({line.url})**" + (": " if parts else "") + " · ".join(parts)


def _emergency(language: Language, country: str | None) -> str:
    numbers = _dialled(emergency(country))
    known = (country or "").strip().upper() in countries()
    return numbers if known else say(language, "safety.card.anywhere", emergency=numbers)


def _dialled(text: str) -> str:
    """Returns a text with each phone number made a link of its own. A star is dialled, and shown as itself."""

    def link(found: re.Match[str]) -> str:
        number, star = digits(found[0]), "*" if found[0].startswith("*") else ""
        shown = found[0].replace("*", r"\*")
        # The option to press after a number ("113 opción 5") is no number to call.
        return f"[{shown}](tel:{star}{number})" if len(number) > 2 else found[0]

    return PHONE.sub(link, text)
