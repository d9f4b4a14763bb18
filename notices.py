"""What a person is told beside a reply: the help that a risk calls for, that this is an AI, on request and every three
hours, and who it is meant for.

The sentences stand above the reply, where the model does not read them, and the model answers all the same. Knows
nothing of the page, which shows the first notice before anything is written, nor of the model.
"""

import re
import time
import unicodedata
from dataclasses import replace

import safety
from counters import Counters
from safety.card import card_in
from sentences import LANGUAGES, Language, say
from session import Session

REMINDER_SECONDS = 3 * 3600.0  # New York GBL §§ 1700-1704; for minors California B&P §§ 22601-22605

_BEGIN = r"(?:^|[.,;:!?¿¡])\s*"
_END = r"\s*(?:$|[?.,;!]|\b(?:o|u|or|y|and)\b)"
_KIND_ES = (
    r"(?:(?:un|una)\s+)?(?:(?:ser\s+)?human[oa]s?|persona|robot|bot|chatbot|maquina|ia|ai|inteligencia artificial|"
    r"programa|alguien|profesional|medic[oa]|psicolog[oa]|terapeuta)"
)
_REAL_ES = r"(?:\s+(?:real|de verdad|de carne y hueso|verdader[oa]|human[oa]))"
_LEAD_ES = (
    r"(?:(?:oye|oiga|hola|perdona|perdon|disculpa|dime|y|pero|entonces|acaso|en serio|una pregunta|quiero saber|si|"
    r"no se|me pregunto|digame|tu|usted|vos|realmente|de verdad|me puedes decir)\s+)*+"
)
_KIND_EN = (
    r"(?:(?:an?|the|some)\s+)?(?:(?:real|actual|live|human|genuine)\s+)*"
    r"(?:humans?|person|people|being|robot|bot|chatbot|machine|ai|a\.i|artificial intelligence|program|someone|"
    r"professional|doctor|psychologist|therapist|counsell?or)"
)
_LEAD_EN = (
    r"(?:(?:hey|hi|hello|so|but|and|wait|ok|okay|sorry|please|tell me|be honest|honestly|seriously|just|question|"
    r"i wonder|or)\s+)*+"
)
ASKED = [
    re.compile(pattern)
    for pattern in (
        rf"{_BEGIN}{_LEAD_ES}(?:eres|sos|es usted)\s+(?:realmente\s+|de verdad\s+)?"
        rf"(?:{_KIND_ES}{_REAL_ES}?|real|de verdad){_END}",
        rf"{_BEGIN}{_LEAD_ES}(?:con\s+)?(?:quien|que)\s+(?:eres|sos|es usted)(?:\s+(?:tu|vos|realmente|en realidad))?"
        rf"{_END}",
        rf"{_BEGIN}{_LEAD_ES}con quien\s+(?:hablo|(?:estoy\s+)?(?:hablando|chateando))",
        rf"(?:hablo|hablando|chateando|escribiendo)\s+(?:con|a)\s+{_KIND_ES}(?:{_REAL_ES}|\s*\?|\s+o\s+(?:con\s+)?un)",
        rf"{_BEGIN}{_LEAD_ES}hay\s+{_KIND_ES}{_REAL_ES}?(?:\s+(?:ahi|aqui|detras|al otro lado))+"
        rf"(?:\s+de \w+(?: \w+)?)?{_END}",
        rf"{_BEGIN}{_LEAD_EN}are (?:you|u)\s+(?:really\s+|actually\s+|even\s+|just\s+)*(?:{_KIND_EN}|real)"
        rf"(?:\s+being)?{_END}",
        rf"{_BEGIN}{_LEAD_EN}(?:who|what) (?:are|r) (?:you|u)(?:\s+(?:really|exactly))?{_END}",
        rf"\bam i (?:really\s+|actually\s+)?(?:talking|speaking|chatting|writing|texting) (?:to|with)\s+{_KIND_EN}",
        rf"\bis (?:this|there)\s+(?:really\s+|actually\s+)?{_KIND_EN}(?:\s+(?:there|here|behind this))?\s*(?:\?|$)",
        rf"\b(?:you are|you're|youre) (?:just\s+)?{_KIND_EN}(?:,?\s*(?:right|no|aren't you))?\s*\?",
    )
]


def help_due(session: Session, seen: safety.Assessment, language: Language, *, has_eased: bool) -> tuple[str, bool]:
    """Returns the help that belongs above the reply, and whether it is a whole card, and notes that it was given.

    Each kind of crisis gets its whole card once and one line from then on. Below a crisis there is a soft line once a
    session, and after one its line once more: who takes back what they said keeps the help in sight.
    """
    country = session.country or None
    if seen.level != "crisis" and not has_eased:
        return ("" if session.helped != "none" else safety.card(seen, language, country)), False
    crisis = replace(seen, level="crisis")
    whole = safety.card(crisis, language, country)
    if has_eased or card_in(whole) in session.cards:
        return safety.card(crisis, language, country, compact=True), False
    session.cards.add(card_in(whole))
    return whole, True


def due(
    session: Session, seen: safety.Assessment, language: Language, counters: Counters, *, whole_card: bool
) -> list[str]:
    """Returns the notices that belong above the reply to the last message, and notes that they were given.

    Args:
        session: After the last message was put into its conversation.
        seen: What that message showed.
        whole_card: The crisis card is shown in this turn, with all its parts.
    """
    words = session.conversation.said("user")[-1]
    given = [_of_ai(session, words, language, counters, is_calm=seen.level != "crisis")]
    if not session.told_minor and seen.minor:
        session.told_minor = True
        counters.add("notice.minor")
        given += _of_minor(session, language, has_help=whole_card and seen.category == "minor")
    return [text for text in given if text]


def asks_who(words: str) -> bool:
    """Tells whether a message asks if a person or a machine answers here."""
    decomposed = unicodedata.normalize("NFKD", words.lower().replace("’", "'"))
    text = "".join(c for c in decomposed if not unicodedata.combining(c))
    text = " ".join(text.replace("\n", " . ").split())  # one space each: a flood of them is no work
    return any(pattern.search(text) for pattern in ASKED)


def moved(text: str, country: str | None) -> str:
    """Returns what stands above a reply with its card, and its line for the young, written for another country."""
    text = safety.moved(text, country)
    for language in LANGUAGES if any(say(one, "notice.minor") in text for one in LANGUAGES) else ():
        for before in (None, *safety.countries()):
            text = text.replace(_near(language, before), _near(language, country), 1)
    return text


def written_lines(language: Language, country: str | None) -> list[tuple[safety.Helpline, str]]:
    """Returns each helpline of a country with its line of Markdown, as the help panel writes it."""
    bullets = [row for row in safety.help_panel(language, country).splitlines() if row.startswith("- **")]
    return list(zip(safety.helplines(country), bullets, strict=False))  # the panel's last line is the directory


def _of_ai(session: Session, words: str, language: Language, counters: Counters, *, is_calm: bool) -> str:
    late = time.monotonic() - session.noticed >= REMINDER_SECONDS
    if not late and not asks_who(words):
        return ""
    session.noticed = time.monotonic()
    counters.add("notice.ai")
    # In danger nobody is told to take a break from the chat.
    return " ".join([say(language, "notice.ai"), *([say(language, "notice.pause")] if late and is_calm else [])])


def _of_minor(session: Session, language: Language, *, has_help: bool) -> list[str]:
    """Returns for whom the chat is meant; and who can help, where the card does not say that already."""
    if has_help:
        return [say(language, "notice.minor")]
    return [say(language, "notice.minor") + " " + _near(language, session.country or None)]


def _near(language: Language, country: str | None) -> str:
    """Returns who can help somebody young: an adult near them, and a line of a country."""
    lines = written_lines(language, country)
    young = [text for line, text in lines if line.is_for_young]
    line = (young or [lines[0][1]])[0].removeprefix("- ")
    return say(language, f"notice.minor.{'young' if young else 'line'}", line=line)
