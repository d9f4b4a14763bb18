"""The help that code writes beside the model's answer: a card in a crisis, a soft line below it, and the help panel.

What was written is found again in a text (`card_in`) and written for another country (`moved`). Every word comes from
`locales/*.json`, every number and address from the helpline table; the model adds nothing. Knows nothing of how a risk
is found, nor of the page that shows the text.
"""

import re
from collections.abc import Iterator
from typing import get_args

from safety.helplines import ANYWHERE, PHONE, Helpline, countries, digits, emergency, helplines
from safety.risk import Assessment, Category
from sentences import LANGUAGES, Language, catalogue, say

MOST = 3  # lines of help in a card; the panel has them all
# What a card may have of its own. A part that a variant lacks is the general one.
VARIANT: dict[Category, str] = {
    "self_harm": "self_harm",
    "overdose": "overdose",
    "violence": "violence",
    "abuse": "violence",
    "harm_to_others": "others",
    "third_party": "third_party",
    "minor": "minor",
    "psychosis": "psychosis",
    "eating": "eating",
}
VARIANTS = ("general", *dict.fromkeys(VARIANT.values()))
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
    return _whole(language, country, assessment.category)


def help_panel(language: Language, country: str | None) -> str:
    """Returns the Markdown behind the help button: every line of the country, and the directory."""
    lines = helplines(country)
    directory = () if lines[0].country == ANYWHERE else helplines(None)[:1]
    return "\n\n".join(
        [
            say(language, "safety.panel.title"),
            emergency_line(language, country),
            "\n".join(f"- {_written(line, language)}" for line in (*lines, *directory)),
            say(language, "safety.panel.close"),
        ]
    )


def emergency_line(language: Language, country: str | None) -> str:
    """Returns the Markdown that says which number to call when there is danger now."""
    return say(language, "safety.card.emergency", emergency=_emergency(language, country))


def card_in(text: str) -> str:
    """Returns what help a text holds: a variant of the whole card, "compact", "soft", or "" where it holds none."""
    return next((kind for kind, opening, *_ in _kinds() if opening in text), "")


def moved(text: str, country: str | None) -> str:
    """Returns a text with the card in it written for another country; as it is, where it holds none.

    The help is looked for as each country of the table would have it, so nobody has to remember which one it was.
    """
    for _, opening, seen, language, compact in _kinds():
        for before in (None, *countries()) if opening in text else ():
            if (old := card(seen, language, before, compact=compact)) in text:
                return text.replace(old, card(seen, language, country, compact=compact), 1)
    return text


def countries_by_name(language: Language) -> list[tuple[str, str]]:
    """Returns name and code of each country in the table, by its name in a language."""
    return sorted((say(language, f"safety.country.{code}"), code) for code in countries())


def _kinds() -> Iterator[tuple[str, str, Assessment, Language, bool]]:
    """Yields each help there is: its kind, how it begins whatever the country, and what it is made from."""
    for language in LANGUAGES:
        for category in get_args(Category):
            seen, variant = Assessment("crisis", category), VARIANT.get(category, "general")
            yield variant, _part(language, "care", variant), seen, language, False
            yield "compact", _opening(language, "compact"), seen, language, True
        yield "soft", _opening(language, "soft"), Assessment("elevated"), language, False


def _opening(language: Language, kind: str) -> str:
    return catalogue(language)[f"safety.card.{kind}"].partition("{")[0]


def _whole(language: Language, country: str | None, category: Category) -> str:
    variant = VARIANT.get(category, "general")
    lines = "\n".join(f"- {_written(line, language)}" for line in _chosen(country, category))
    help_now = [lines, emergency_line(language, country)]
    parts = [
        _part(language, "care", variant),
        *(reversed(help_now) if variant in URGENT else help_now),
        _part(language, "now", variant),
        _part(language, "near", variant),
        _part(language, "ask", variant),
        _part(language, "calm", variant),
        say(language, "safety.card.who"),
    ]
    return "\n\n".join(parts)


def part_key(language: Language, part: str, variant: str) -> str:
    """Returns the key of the sentence that a part of a variant's card is made of."""
    key = f"safety.card.{part}.{variant}"
    return key if key in catalogue(language) else f"safety.card.{part}.general"


def _part(language: Language, part: str, variant: str) -> str:
    return say(language, part_key(language, part, variant))


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
        parts.append(say(language, f"safety.line.{'unconfirmed' if line.phone else 'unchecked'}"))
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
