"""What no reply may say: the application's guard, and what else the dialogues are written by, as far as code can tell.

The rules find words, not meanings: a reply that passes may still be a bad one. Knows nothing of files or models.
"""

import re
from typing import NamedTuple

import safety
from demo.data.text import plain, sentences
from safety.scrub import scrub
from sentences import Language


class Fault(NamedTuple):
    """A rule that a text breaks, and the words or the sign that break it; empty where they could be personal."""

    kind: str
    found: str = ""


# What the application's guard has no rule for. Looked for in the plain spelling: small letters, no accents, no
# punctuation, one space between words.
FORBIDDEN = {
    "therapy": r"(?:est[ae]|nuestra|mi) (?:psico)?terapia|terapeuta virtual|(?:this|our|my) (?:psycho)?therapy",
    "own life": r"cuando yo (?:era|tenia)|yo tambien (?:he|estuve|pase|perdi|senti)"
    r"|como (?:tu amig[oa]|amig[oa] tuy[oa])|as (?:your|a) friend",
    "cliche": r"todo pasa por algo|el tiempo lo cura|podria ser peor|hay gente (?:que esta )?peor|supera(?:lo|rlo) ya"
    r"|everything happens for a reason|time heals|could be worse|others have it worse|just get over it|you ve got this",
    "lecture": r"deber(?:ias|ia usted)|tienes la culpa|es (?:tu|su) culpa|you should(?:n t| not)? have"
    r"|it s your (?:own )?fault",
    "brand": r"(?:whatsapp|instagram|facebook|tiktok|twitter|snapchat|tinder|netflix|youtube|spotify|google|amazon|uber"
    r"|chatgpt|openai|gemini|alexa|siri|headspace|wysa|woebot|replika|prozac|lexapro|zoloft|xanax|valium|trankimazin"
    r"|orfidal|rivotril|lorazepam|diazepam|sertralina|sertraline|escitalopram|fluoxetina|fluoxetine)",
}
# "Tú no tienes la culpa" is what a reply is to say.
_FORBIDDEN = {
    kind: re.compile(rf"(?<!\bno )(?<!\bnot )(?<!\bni )\b(?:{pattern})\b") for kind, pattern in FORBIDDEN.items()
}
# Words that a reply may use of what the person told ("tu terapeuta"), and that a reader has to look at.
DELICATE = re.compile(r"\b(?:psico)?(?:terapia|terapeutas?|therap(?:y|ists?)|diagnos\w+)\b")
EMOJI = re.compile(
    r"[\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]|(?:[:;]-?[)(DPp])(?!\w)"
)
MARKDOWN = re.compile(
    r"^\s*(?:[-*•]\s|#{1,6}\s|\d+[.)]\s|>\s|```)|\*\*|__|(?<!\w)\*\w[^*\n]*\*|`[^`]+`|\]\(|\|.+\|", re.MULTILINE
)
QUESTIONS = 1  # in a reply


def contacts(text: str) -> list[Fault]:
    """Returns a fault if a text has a phone number, an address or a control token that the helplines do not have."""
    return [] if "".join(scrub([text], "es")) == text else [Fault("contact")]


def faults(reply: str, lang: Language) -> list[Fault]:
    """Returns every rule that a reply breaks by itself; the first of the guard's."""
    guarded, words = safety.guard([reply], lang), plain(reply)
    for _ in guarded:
        pass
    found = [Fault(f"guard: {guarded.blocked}")] if guarded.blocked else []
    found += [Fault(f"forbidden: {kind}", hit[0]) for kind, rule in _FORBIDDEN.items() if (hit := rule.search(words))]
    found += contacts(reply)
    found += [Fault("emoji", hit[0]) for hit in [EMOJI.search(reply)] if hit]
    found += [Fault("markdown", hit[0].strip()) for hit in [MARKDOWN.search(reply)] if hit]
    if questions(reply) > QUESTIONS:
        found.append(Fault("questions", str(questions(reply))))
    return found


def questions(reply: str) -> int:
    """Returns how many questions a reply asks."""
    return len(re.findall(r"\?+", reply))


def repeated(reply: str, earlier: list[str]) -> list[str]:
    """Returns the sentences of four words and more that the earlier replies have too."""
    said = {plain(sentence) for text in earlier for sentence in sentences(text)}
    return [one for one in map(plain, sentences(reply)) if one.count(" ") >= 3 and one in said]
