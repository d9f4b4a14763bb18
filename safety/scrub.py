"""Takes numbers and addresses that the helpline table lacks, and control tokens, out of text as it streams.

A model invents helplines, and an invented one is worse than none. The text is cut at white space into blocks that no
number or address can cross, so a block is judged once and the result is the same however the text arrives. Numbers
written in words ("nueve uno uno") and addresses read aloud ("arroba") pass unseen. Knows nothing of sentences.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise

from safety.helplines import bare_address, digits, known_addresses, known_numbers
from sentences import Language, say

CONTEXT = 80  # characters of text before a number in which "call" is looked for
SHORTEST = 7  # digits that read like a phone without the word "call" before them

# White space between digits does not end a block: a phone is often written in groups.
_BLOCK = re.compile(r"\S+(?:(?<=[\d)\].+*_/·–-])[^\S\n]+(?=[\d(\[+*_/·–-])\S+)*")
_OPEN_END = re.compile(r"[\d)\].+*_/·–-][^\S\n]*\Z")
_TOKEN = re.compile(
    r"<\|start_header_id\|>(?:system|user|assistant|model)?<\|end_header_id\|>|<\|[^|<>\s]{1,40}\|>"
    r"|<start_of_turn>(?:system|user|model)?|</?(?:end_of_turn|start_of_image|bos|eos|pad|unk|s|think|mask)>"
    r"|<unused\d+>|\[/?INST\]|<</?SYS>>|<｜[^｜<>\s]{1,40}｜>",
    re.IGNORECASE,
)
_PATH = r"(?:/[^\s<>()\[\]\"'*]*)?"
_ADDRESS = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?i:https?://|www\.)[^\s<>()\[\]\"'*]+"
    rf"|\b(?i:(?:[\w-]+\.)+(?:com|org|net|info|edu|gov|app|help|chat|online)\b){_PATH}"
    # Small letters only: "hola.Es tarde" lacks a space and is no address.
    r"|\b(?:[\w-]+\.)+(?:gob|mil|io|dev|health|site|xyz|eu|es|mx|ar|co|cl|pe|uy|ve|ec|bo|py|cr|pa|do|pr|gt|hn|sv|ni|cu"
    rf"|us|uk|ca|au|nz|ie|in|ph|ly|tv)\b{_PATH}",
)
_NUMBER = re.compile(r"[+*]?\(?\d(?:[\d \t\u00a0().*_/·–-]*\d)?(?:-[A-Z]{4,})?")
_ORDINARY = re.compile(
    r"\d{1,4}([/.-])\d{1,2}\1\d{1,4}"  # a date
    r"|(?:19|20)\d\d(?:[ /–-]+(?:19|20)\d\d)+"  # years
    r"|\d{1,3}(?:[.\u00a0 ]000)+"  # round thousands
)
_CALL = re.compile(
    r"\b(?:ll[aá]m\w*|marc\w*|disc\w*|telefone\w*|tel[eé]fono|tel|tfno|l[ií]nea|whatsapp|sms|call\w*|dial\w*|phone|ring"
    r"|hotline|helpline|lifeline|text|contact\w*|comun[ií]c\w*|emergenc\w+)\b"
    r"(?:\W+(?:al|a|el|la|los|de|del|ya|ahora|mismo|por|favor|con|es|n[uú]mero|l[ií]nea|tel[eé]fono|ayuda|emergencias?|gratis"
    r"|crisis|vida|suicidio|the|at|to|on|now|us|is|line|number|services?|or|o|y|and|please|\d+))*\W*\Z",
    re.IGNORECASE,
)


def scrub(pieces: Iterable[str], language: Language) -> Iterator[str]:
    """Yields the text of the pieces without unknown numbers, addresses and tokens, each word as soon as it is whole."""
    held, before = "", ""
    for piece in pieces:
        held += piece
        cut = _settled(held)
        yield from _shown(held[:cut], before, language)
        before, held = (before + held[:cut])[-CONTEXT:], held[cut:]
    yield from _shown(held, before, language)


def _settled(text: str) -> int:
    """Returns how much of the text no later piece can change."""
    last = next(reversed(list(_BLOCK.finditer(text))), None)
    if last is None:
        return len(text)
    rest = text[last.end() :]
    is_open = not rest or ("\n" not in rest and _OPEN_END.search(text))
    return last.start() if is_open else len(text)


def _shown(text: str, before: str, language: Language) -> Iterator[str]:
    said = before + text

    def cleaned(block: re.Match[str]) -> str:
        context = said[: len(before) + block.start()][-CONTEXT:]
        return _clean(block[0], context, say(language, "safety.removed"))

    if shown := _BLOCK.sub(cleaned, text):
        yield shown


def _clean(block: str, context: str, removed: str) -> str:
    # Look-alike digits and invisible characters are read as what they show; an innocent block is left as it came.
    plain = "".join(char for char in unicodedata.normalize("NFKC", block) if unicodedata.category(char) != "Cf")
    text = _without_tokens(plain)
    text = _ADDRESS.sub(lambda found: found[0] if bare_address(found[0]) in known_addresses() else removed, text)

    def number(found: re.Match[str]) -> str:
        is_phone = _is_phone(found[0], (context + text[: found.start()])[-CONTEXT:])
        return removed if is_phone else found[0]

    text = _NUMBER.sub(number, text)
    return block if text == plain else text


def _without_tokens(text: str) -> str:
    while (stripped := _TOKEN.sub("", text)) != text:
        text = stripped  # what is left may join into another token
    return text


def _is_phone(written: str, context: str) -> bool:
    written = re.sub(r"\D*24/7$", "", written)  # opening hours after a number are no part of it
    if _ORDINARY.fullmatch(written) or _is_counting(written):
        return False
    if all(digits(part) in known_numbers() for part in written.split("/")):
        return False
    number = digits(written)
    return len(number) >= SHORTEST or written[-1:].isalpha() or (len(number) >= 3 and bool(_CALL.search(context)))


def _is_counting(written: str) -> bool:
    """Tells whether somebody counts aloud, as breathing exercises do: 1 2 3 4, or 5 - 4 - 3."""
    counted = [int(number) for number in re.findall(r"\d+", written)]
    steps = {after - one for one, after in pairwise(counted)}
    return len(counted) > 2 and steps in ({1}, {-1})
