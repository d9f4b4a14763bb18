"""Replaces what could name a person: names, phones, e-mails, addresses, identity numbers; in Spanish and English.

The rules are Presidio's (https://microsoft.github.io/presidio), without a language model: PyPI has none of spaCy's for
both languages. In their place stand Faker's lists of first names and surnames (Spain, Mexico, Argentina, Chile,
Colombia, United States, United Kingdom), what introduces a name ("me llamo", "my brother"), and patterns of addresses.

**This is no anonymisation.** Rare names, nicknames and names written in small letters stay, unless something introduces
them; so do places, jobs, schools, dates and whatever happened, from which people who know someone can tell who it is.
Harmless words that look like names are replaced too. So an export is for people who are bound to secrecy, and is
read by a person before anyone else gets it. `tests/test_history_research.py` has the measured share that is found.
"""

import logging
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from history.search import fold

try:
    import spacy
    import tldextract
    from faker import Generator
    from presidio_analyzer import AnalyzerEngine, EntityRecognizer, Pattern, PatternRecognizer, RecognizerRegistry
    from presidio_analyzer import RecognizerResult as Found
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer
except ImportError:
    raise SystemExit("The pseudonymised export needs Presidio: pip install -r requirements-research.txt") from None

LANGUAGES = ("es", "en")
NAME_LISTS = ("es_ES", "es_MX", "es_AR", "es_CL", "es_CO", "en_US", "en_GB")
PHONE_REGIONS = ("ES", "MX", "AR", "CL", "CO", "PE", "US", "GB")
LEAST_SCORE = 0.3
LINKS = frozenset({"de", "del", "la", "las", "los", "van", "von", "di", "da"})
# Names that are words as well, which begin sentences.
ALSO_WORDS = (
    "will may mark rose hope grace joy faith dawn bill art sol luz mar paz rosa alba cielo dolores consuelo soledad "
    "esperanza pilar angustias salvador leal franco blanco rico bravo calvo"
)
WORDS = frozenset(ALSO_WORDS.split())
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
KIN = (
    "hermano hermana hijo hija madre padre novio novia marido mujer esposo esposa amigo amiga primo prima tío tía jefe "
    "jefa brother sister son daughter mother father boyfriend girlfriend husband wife friend cousin uncle aunt boss"
)
INTRODUCED = re.compile(r"(?i:\b(?:me llamo|mi nombre es|se llama|my name is|is called) )([^\W\d_]+)")
RELATED = re.compile(rf"(?i:\b(?:mi|su|my|his|her) (?:{'|'.join(KIN.split())})(?:,| es| is)? )([^\W\d_]+)")
STREET = (
    r"(?i:\b(?:calle|c/|avenida|avda?\.?|plaza|pza\.?|paseo|carretera|ctra\.?|camino|ronda|travesía|urbanización|"
    r"colonia)) ?"
    r"(?:(?:de|del|la|las|los|el) )*[A-ZÁÉÍÓÚÑ\d][\w.]*(?: (?:(?:de|del|la|las|los|y) )*[A-ZÁÉÍÓÚÑ]\w*)*"
    r"(?:,? ?(?i:n[úu]m(?:ero|\.)?|nº|n°|#)? ?\d+(?: ?[-–] ?\d+)?[a-zA-Z]?\b(?:,? ?\d+ ?[ºª°](?: ?\w\b)?)?)?"
)
STREET_EN = (
    r"\b\d{1,5} (?:[A-Z][\w.]* ){1,4}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Way|Court|Ct|"
    r"Place|Pl|Square|Sq)\b\.?(?:,? (?:Apt|Apartment|Flat|Unit) ?\w+)?"
)
# How sure each is decides what a span is called that several find: a phone is found with 0.4, a name with 0.6.
PATTERNS = (
    ("ADDRESS", 0.7, (STREET, STREET_EN, r"\b\d{5},? [A-ZÁÉÍÓÚÑ]\w+", r"\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b")),
    ("ID", 0.7, (r"\b[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d\b", r"\b\d{3}-\d{2}-\d{4}\b")),
    ("ID", 0.7, (r"\b[XYZ]\d{7}[A-Z]\b", r"\b\d{8}-?[A-Z]\b")),  # also where the check letter is wrong
    ("ID", 0.35, (r"\b(?:\d[ .-]?){7,}\d\b",)),
    ("HANDLE", 0.5, (r"(?<!\w)@\w{3,}",)),
)


class Pseudonyms:
    """Replaces what it finds by its kind and a number, the same for the same thing: `<PERSON 1>`. One for a person."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def replace(self, text: str) -> str:
        """Returns the text with everything replaced that the rules find."""
        parts, end = [], 0
        for kind, start, stop in _spans(text):
            parts += [text[end:start], f"<{kind} {self._number(kind, fold(text[start:stop]))}>"]
            end = stop
        return "".join([*parts, text[end:]])

    def _number(self, kind: str, what: str) -> int:
        known = sum(1 for other, _ in self._known if other == kind)
        return self._known.setdefault((kind, what), known + 1)


def _spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Yields kind, start and end of what is to be replaced; what overlaps is one, under the surest one's kind."""
    engine = _engine()
    found = [one for language in LANGUAGES for one in engine.analyze(text, language, score_threshold=LEAST_SCORE)]
    joined: list[Found] = []
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if joined and one.start < joined[-1].end:
            surest = max(joined[-1], one, key=lambda each: each.score)
            joined[-1] = Found(surest.entity_type, joined[-1].start, max(joined[-1].end, one.end), surest.score)
        else:
            joined.append(one)
    for one in joined:
        yield KINDS.get(one.entity_type, "ID"), one.start, one.end


KINDS = {
    "PERSON": "PERSON",
    "ADDRESS": "ADDRESS",
    "HANDLE": "HANDLE",
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "URL": "LINK",
    "IP_ADDRESS": "LINK",
}


class Names(EntityRecognizer):  # type: ignore[misc, unused-ignore]
    """Finds names: words of the lists with a capital, with the surnames behind them, and what is introduced as one."""

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Found]:  # noqa: ARG002
        related = [match for match in RELATED.finditer(text) if match[1][0].isupper() or fold(match[1]) in _names()]
        introduced = [(match.start(1), match.end(1)) for match in [*INTRODUCED.finditer(text), *related]]
        return [Found("PERSON", start, end, 0.6) for start, end in [*self._listed(text), *introduced]]

    def _listed(self, text: str) -> Iterator[tuple[int, int]]:
        words = list(WORD.finditer(text))
        at = 0
        while at < len(words):
            if not _is_name(text, words[at]):
                at += 1
                continue
            last = at
            while last + 1 < len(words) and _goes_on(text, words[last], words[last + 1]):
                last += 1
            while words[last][0].lower() in LINKS:
                last -= 1
            yield words[at].start(), words[last].end()
            at = last + 1


def _is_name(text: str, word: re.Match[str]) -> bool:
    name = word[0]
    if not name[0].isupper() or fold(name) not in _names():
        return False
    begins = not text[: word.start()].rstrip(" \"'«(¿¡—-") or text[: word.start()].rstrip(" \"'«(¿¡—-")[-1] in ".!?\n:…"
    return not (begins and fold(name) in WORDS)


def _goes_on(text: str, word: re.Match[str], following: re.Match[str]) -> bool:
    between = text[word.end() : following.start()]
    return between == " " and (following[0][0].isupper() or following[0] in LINKS)


@cache
def _names() -> frozenset[str]:
    """Returns first names and surnames, folded."""
    found: set[str] = set()
    for locale in NAME_LISTS:
        provider = import_module(f"faker.providers.person.{locale}").Provider(Generator())
        for kind in ("first_names", "first_names_female", "first_names_male", "last_names"):
            found |= {fold(name) for name in getattr(provider, kind, ()) if len(name) > 2}
    return frozenset(found)


@cache
def _engine() -> AnalyzerEngine:
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)  # it logs what it finds nowhere, and much else
    offline: Any = tldextract.TLDExtract(suffix_list_urls=())  # or it asks the network for a newer list
    tldextract.extract = offline
    registry = RecognizerRegistry(supported_languages=list(LANGUAGES))
    registry.load_predefined_recognizers(languages=list(LANGUAGES))
    for language in LANGUAGES:
        registry.add_recognizer(Names(supported_entities=["PERSON"], supported_language=language))
        registry.add_recognizer(PhoneRecognizer(supported_language=language, supported_regions=PHONE_REGIONS))
        for kind, score, patterns in PATTERNS:
            rules = [Pattern(kind, pattern, score) for pattern in patterns]
            registry.add_recognizer(
                PatternRecognizer(kind, patterns=rules, supported_language=language, global_regex_flags=re.MULTILINE)
            )
    return AnalyzerEngine(registry=registry, nlp_engine=_Blank(), supported_languages=list(LANGUAGES))


class _Blank(SpacyNlpEngine):  # type: ignore[misc, unused-ignore]
    """Splits words alone: no model is needed for rules."""

    def __init__(self) -> None:
        super().__init__()
        blank: Any = {language: spacy.blank(language) for language in LANGUAGES}
        self.nlp = blank

    def load(self) -> None:
        """Nothing to load."""
