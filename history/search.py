"""Finds words in what was said, whatever their accents and capitals. Knows nothing of where it lies."""

import unicodedata
from collections.abc import Sequence

AROUND = 60  # characters of an excerpt on each side of what was found
MAX_WORDS = 20


def fold(text: str) -> str:
    """Returns the text without accents and capitals: `Canción` and `CANCION` become the same."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def find(texts: Sequence[str], words: str) -> str | None:
    """Returns an excerpt around the first of the words, if all of them occur in these texts; else None."""
    wanted = fold(words).split()[:MAX_WORDS]
    folded = [fold(text) for text in texts]
    if not wanted or not all(any(word in text for text in folded) for word in wanted):
        return None
    where = next(i for i, text in enumerate(folded) if wanted[0] in text)
    return _excerpt(texts[where], wanted[0])


def _excerpt(text: str, word: str) -> str:
    folded, places = "", list[int]()  # of each folded character, where it stands in the text
    for place, c in enumerate(text):
        piece = fold(c)
        folded += piece
        places += [place] * len(piece)
    at = folded.find(word)
    start = places[at] if 0 <= at < len(places) else 0
    first, last = max(0, start - AROUND), min(len(text), start + len(word) + AROUND)
    return ("…" if first else "") + " ".join(text[first:last].split()) + ("…" if last < len(text) else "")
