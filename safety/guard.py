"""Checks the model's text sentence by sentence before it is shown, and takes over with reviewed words where one fails.

    pieces -> scrub (numbers, addresses, tokens) -> sentences -> conduct (what may not be said) -> words

A sentence is held back until it has ended and passed; what was shown before a breach stays, the rest is dropped, and
`guard.<kind>` of the catalogue follows. In a crisis reviewed words stand before the model's already, so there the text
just ends. The result is the same however the text arrives. Knows the rules only through `conduct`, and nothing of the
model, the turn or the page.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from typing import Self

from safety.conduct import Kind, breach
from safety.contempt import is_first_to_say
from safety.scrub import scrub
from sentences import Language, say

LONGEST = 300  # characters after which a sentence that does not end is cut at a space and checked as it stands
CRISIS_WORDS, CRISIS_SENTENCES = 60, 2  # in a crisis the model adds a short paragraph at most
CONTEXT = 200  # characters of what was shown that a check may look back on

_END = re.compile(r"""[.!?…]+["'»”’)\]*_]*(?=\s)|\n""")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'«“¿¡])(?:p|ej|sr|sra|srta|dr|dra|prof|ud|uds|vd|núm|nº|aprox|pág|mr|mrs|ms|st|vs|e\.g|i\.e|[^\W\d_])\.\Z"
    r"|(?:^|\n)\s*\d+\.\Z",  # the number of a list's item
    re.IGNORECASE,
)
_PIECE = re.compile(r"\s*\S+|\s+")
_LABEL = re.compile(r"\A(\s*)(?:asistente|assistant|remanso)\s*:\s*", re.IGNORECASE)


class Guarded(Iterator[str]):
    """The text that may be shown, word by word.

    Attributes:
        blocked: The kind of breach that ended the model's text, or None as long as there was none.
    """

    def __init__(self, pieces: Iterable[str], language: Language, *, crisis: bool, prompt: str, before: str) -> None:
        self.blocked: Kind | None = None
        self._pieces, self._language = pieces, language
        self._heard: str | None = None
        self._crisis, self._prompt, self._shown = crisis, prompt, before
        self._words, self._left = CRISIS_WORDS, CRISIS_SENTENCES
        self._text = self._run()

    def __next__(self) -> str:
        return next(self._text)

    def hearing(self, said: str) -> Self:
        """Takes what the person has said: the model is not to be the first that calls them something hard."""
        self._heard = said
        return self

    def close(self) -> None:
        """Ends the text, and the pieces it is made of."""
        self._text.close()
        if isinstance(self._pieces, Generator):
            self._pieces.close()

    def _run(self) -> Generator[str]:
        for held in in_sentences(scrub(self._pieces, self._language)):
            opens = held.startswith("\n") or not self._shown.strip()
            sentence = _LABEL.sub(r"\1", held) if opens else held
            if self._crisis and not self._has_room(sentence):
                break
            self.blocked = self._breach(sentence)
            if self.blocked:
                if not self._crisis:
                    yield self._reply(self.blocked)
                break
            self._shown += sentence
            yield from _PIECE.findall(sentence)
        if isinstance(self._pieces, Generator):
            self._pieces.close()  # nobody reads on: the model may stop

    def _breach(self, sentence: str) -> Kind | None:
        if not sentence.strip():
            return None
        if self._heard is not None and is_first_to_say(sentence, self._heard):
            return "insult"
        before = self._shown[-CONTEXT:]
        return breach(sentence, self._language, before=before, crisis=self._crisis, prompt=self._prompt)

    def _has_room(self, sentence: str) -> bool:
        self._words -= len(sentence.split())
        self._left -= bool(sentence.strip())
        is_new_paragraph = bool(self._shown.strip() and sentence.startswith("\n") and sentence.strip())
        return self._words >= 0 and self._left >= 0 and not is_new_paragraph

    def _reply(self, kind: Kind) -> str:
        return ("\n\n" if self._shown.strip() else "") + say(self._language, f"guard.{kind}")


def guard(
    pieces: Iterable[str], language: Language = "es", *, crisis: bool = False, prompt: str = "", before: str = ""
) -> Guarded:
    """Returns the text of the pieces that may be shown; its `blocked` tells afterwards whether something may not.

    Args:
        pieces: The model's text as it comes. A generator is closed when nothing more of it is read.
        language: The person's; the reply that takes over is in it.
        crisis: At most `CRISIS_WORDS` words in `CRISIS_SENTENCES` sentences of one paragraph, stricter rules, and
            nothing that takes over.
        prompt: The system prompt where an operator has set one: it is not repeated.
        before: The part of the same reply that is shown already, when a reply is gone on with.
    """
    return Guarded(pieces, language, crisis=crisis, prompt=prompt, before=before)


def in_sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Yields a text sentence by sentence, white space first; together they are the whole text.

    When the pieces end in an error, what is held goes out before it: a person keeps what was said so far.
    """
    held = ""
    try:
        for piece in pieces:
            held += piece
            while end := _end(held):
                yield held[:end]
                held = held[end:]
    except Exception:
        yield held
        raise
    yield held


def _end(held: str) -> int:
    """Returns the length of the first sentence, or 0 while it has not ended."""
    first = len(held) - len(held.lstrip())
    for found in _END.finditer(held, first, LONGEST + 1):
        if found[0] == "\n":
            return found.start()
        if not (_ABBREVIATION.search(held, max(0, found.end() - 12), found.end()) or _is_quoting(held[: found.end()])):
            return found.end()
    if len(held) <= LONGEST:
        return 0
    space = held.rfind(" ", first + 1, LONGEST)
    return space if space > 0 else LONGEST


def _is_quoting(text: str) -> bool:
    """Tells whether a quotation is open at the end of a text."""
    return text.count('"') % 2 == 1 or text.count("«") > text.count("»") or text.count("“") > text.count("”")
