"""What the model may not say: rules over one sentence, from `data/guard_rules.csv`, and likeness to labelled ones.

A row has the kind of harm, a pattern over plain words, what makes it pass (`unless`: right before the match where it
ends in `$`, else anywhere in the sentence), and a sentence for each side. A row whose kind is in angle brackets names a
piece of other patterns. Rules see words, not meaning, and the trained half (`safety.guard_classifier`) can only add to
what they find. Both miss two in five harms in fresh words (`tests/harmful.jsonl`): they are the last net, and no reason
to let the model answer a crisis by itself.

Knows nothing of streams, of the person's words, or of what is shown instead.
"""

import csv
import re
import unicodedata
from collections import defaultdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, cast, get_args

from safety import guard_classifier
from safety.spelling import LEET, LOOKALIKES
from sentences import LANGUAGES, Language, catalogue, say

Kind = Literal[
    "method",  # means, doses, places, times, hiding
    "agreement",  # that dying or hurting is right, or a reason for it
    "minimise",  # making it small, blame, guilt
    "promise",  # demanding one
    "diagnosis",  # a disorder named as the person's, a test read
    "medication",
    "identity",  # a human, a professional
    "action",  # somebody called or told
    "bond",  # secrecy, always, only me
    "discourage",  # against professional or close help
    "refusal",  # a bare one, or the end of the chat
    "delusion",  # voices or persecution confirmed
    "violence",  # staying with who hurts, confronting them, making it small
    "eating",  # eating less, purging, figures of weight
    "insult",  # contempt, moral condemnation
    "advance",  # romantic or sexual
    "leak",  # the system prompt, or a made-up turn
    "crisis",  # harmless elsewhere: means asked for, a number, a claim, advice other than reaching people
    "language",  # a whole sentence in another language
]
TABLE = Path(__file__).parent.parent / "data" / "guard_rules.csv"
NEAR = 90  # characters before a match where what lets it pass is looked for
BACK = 60  # characters of the sentence before in which a rule may begin
QUOTE = 80  # a longer quotation is the model's own words
SHARED = 7  # words in a row that are the prompt's and no coincidence
FOREIGN = 3  # words of another language, and none of the person's, that make a sentence foreign
STRICTLY_FOREIGN = 2  # such words that are enough in a crisis
# Only words that the other languages here do not have.
WORDS = {
    "es": "el los las que y con por para muy pero una eso esta este tu te lo es cuando hay mas puedes como del al si",
    "en": "the and you of to is that it with your this for are what have was not be how if can when i feel",
    "fr": "je vous et est pas que les des une avec pour dans c'est suis votre mais sur qui ne ce plus elle nous",
    "pt": "você não uma com para isso está são muito mas os em seu sua eu também ao pelo tem mais quando",
    "it": "che non sono una per con della è il di mi ti anche questo come più gli ma sei ho",
    "de": "ich und nicht das ist die der du sie mit für ein eine auf zu wir es dir dich auch",
}
_FOREIGN_LETTER = re.compile(r"[^\W\d_a-zà-ɏ]", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SPELLED = re.compile(r"(?<!\w)[a-z](?:[ .\-_*/|][a-z]){4,}(?!\w)")
_LEETED = re.compile(r"(?<!\w)[a-z]+[0-9$@][a-z0-9$@]*[a-z][a-z0-9$@]*")
_CONTRACTED = {"n't": " not", "'m": " am", "'re": " are", "'ll": " will", "'ve": " have", "'d": " would", "'s": " is"}
_CONTRACTION = re.compile(r"n't\b|'(?:m|re|ll|ve|d)\b|(?<=it|at|he|re)'s\b")
_SPACED = str.maketrans(
    {"!": ".", ";": ".", "\n": ".", "(": ",", ")": ",", "¿": "", "¡": "", "*": "", "_": "", "`": ""}
)
_TOKEN = re.compile(r'[a-z0-9]+|[.,:?"]')
_MARK = re.compile(r"[\u0300-\u036f\u00ad\u200b-\u200f\u2060\ufeff]")
_ENDED = re.compile(r"(?:[.!?…:;][\"'»”’)\]*_]*|\n)\s*\Z")
_QUOTED = re.compile(rf'" [^"]{{1,{QUOTE}}} "')
# What these rules forbid, a person's mother may have said: between quotation marks it is hers.
QUOTABLE = frozenset(
    {"minimise", "promise", "identity", "bond", "refusal", "delusion", "diagnosis", "violence", "insult", "advance"}
    | {"language"}
)


def breach(
    sentence: str, language: Language, *, before: str = "", crisis: bool = False, prompt: str = ""
) -> Kind | None:
    """Returns the kind of harm in a sentence, by the rules (the arguments are theirs) or by likeness, or None."""
    kind = by_rules(sentence, language, before=before, crisis=crisis, prompt=prompt)
    return kind or cast(Kind | None, guard_classifier.kind_of(normal(sentence), crisis=crisis))


def by_rules(
    sentence: str, language: Language, *, before: str = "", crisis: bool = False, prompt: str = ""
) -> Kind | None:
    """Returns the kind of the first rule that a sentence breaks, or None.

    Args:
        sentence: As it would be shown.
        language: The person's.
        before: What was shown before it; rules that span two sentences read its end.
        crisis: Whether the rules for a crisis hold too.
        prompt: The system prompt, which must not be repeated. Ours are known without it.
    """
    text, earlier = normal(sentence), ""
    if before:
        earlier = normal(before[-NEAR:].partition(" ")[2] if len(before) > NEAR else before)
    if earlier and not _ENDED.search(before):
        earlier, text = earlier[:-2], text[2:]  # one long sentence in two parts
    joined, start = earlier + text, len(earlier)
    unquoted = earlier + _QUOTED.sub(",", text) if text.count('"') > 1 else joined
    for kind, pattern, unless in _rules():
        if kind == "crisis" and not crisis:
            continue
        if _hits(unquoted if kind in QUOTABLE else joined, start, pattern, unless):
            return kind
    if _repeats(text, prompt):
        return "leak"
    if _is_foreign(sentence, language, strict=crisis):
        return "language"
    # Where a number or an address was taken out, the rest is no help in a crisis.
    return "crisis" if crisis and say(language, "safety.removed") in sentence else None


def normal(text: str) -> str:
    """Returns a sentence as plain words and marks, one space apart, with a full stop on both sides."""
    text = unicodedata.normalize("NFKC", text).lower()
    if not text.isascii():
        text = _MARK.sub("", unicodedata.normalize("NFD", text)).translate(LOOKALIKES)
    text = text.translate(_SPACED)
    text = _SPELLED.sub(lambda found: re.sub(r"\W|_", "", found[0]), text)
    text = _LEETED.sub(lambda found: found[0].translate(LEET), text)
    text = text.replace("can't", "can not").replace("cannot", "can not").replace("won't", "will not")
    text = _CONTRACTION.sub(lambda found: _CONTRACTED[found[0]], text).replace("'", "")
    return " . " + " ".join(_TOKEN.findall(text)) + " ."


def _hits(text: str, start: int, pattern: re.Pattern[str], unless: re.Pattern[str] | None) -> bool:
    for found in pattern.finditer(text, max(0, start - BACK)):
        if found.end() <= start + 2:
            continue  # it stands in what was shown before
        if not unless:
            return True
        head = text[max(0, found.start() - NEAR) : found.start() + 1]
        if not unless.search(head) and not unless.search(text, start):
            return True
    return False


def _repeats(text: str, prompt: str) -> bool:
    return not _runs(text).isdisjoint(_prompted(prompt))


@lru_cache(maxsize=8)
def _prompted(prompt: str) -> frozenset[tuple[str, ...]]:
    """Returns every run of words of the prompts, ours and an operator's."""
    prompts = [prompt, *(catalogue(language)["model.system"] for language in LANGUAGES)]
    return frozenset().union(*(_runs(normal(one)) for one in prompts))


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words = [word for word in text.split() if word[0].isalnum()]
    return frozenset(tuple(words[i : i + SHARED]) for i in range(len(words) - SHARED + 1))


def _is_foreign(sentence: str, language: Language, *, strict: bool = False) -> bool:
    """Tells whether a sentence is clearly in another language. Short or mixed text is not, nor what is quoted.

    A strict look takes two words of another language for clear where the person's has fewer.
    """
    said = re.sub(r'["«“][^"»”]*["»”]', " ", sentence)
    letters, others = len(_LETTER.findall(said)), len(_FOREIGN_LETTER.findall(said))
    if others > 5 and 2 * others > letters:
        return True
    words = _WORD.findall(said.lower().replace("’", "'"))
    counts = {name: sum(word in own for word in words) for name, own in _vocabulary().items()}
    own = counts.pop(language)
    most = max(counts.values())
    if strict and most > own and most >= STRICTLY_FOREIGN:
        return True
    return most >= FOREIGN and own * 4 <= most and most * 6 >= len(words)


@cache
def _vocabulary() -> dict[str, frozenset[str]]:
    return {name: frozenset(words.split()) for name, words in WORDS.items()}


@cache
def _rules() -> tuple[tuple[Kind, re.Pattern[str], re.Pattern[str] | None], ...]:
    """Returns the rules of a kind with the same exception as one pattern, in the order of the kinds."""
    pieces: dict[str, str] = {}
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pattern, unless = (_filled(row[name], pieces) for name in ("pattern", "unless"))
            if row["kind"].startswith("<"):
                pieces[row["kind"]] = pattern
            else:
                grouped[row["kind"], unless].append(pattern)
    ordered: list[tuple[Kind, re.Pattern[str], re.Pattern[str] | None]] = []
    for kind in get_args(Kind):
        for (name, unless), rows in grouped.items():
            if name == kind:
                # Words stand one space apart, so a literal space is the fast way to say where one begins.
                whole = re.compile(f" (?:{'|'.join(rows)})(?!\\w)")
                ordered.append((kind, whole, re.compile(rf"(?<!\w)(?:{unless})") if unless else None))
    return tuple(ordered)


def _filled(pattern: str, pieces: dict[str, str]) -> str:
    return re.sub(r"<\w+>", lambda found: pieces[found[0]], pattern)
