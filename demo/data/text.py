"""Text as the checks compare it: plain spelling, likeness, language, sentences. Knows nothing of dialogues."""

import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped] # ships no types

from sentences import LANGUAGES, Language

GRAM = 5  # characters
# Ours, and those that a Spanish or English text is most often taken for, or that a model falls into.
TOLD_APART = ["es", "en", "pt", "fr", "it", "ca", "gl", "eu", "de", "nl"]
TELLING = 30  # characters: of shorter texts one in four is taken for another language, of longer ones one in 160
SURE = 0.99  # probability from which a single sentence is taken at its word
BANDS, ROWS = 32, 3  # a pair of likeness s is compared with the chance 1 - (1 - s**ROWS)**BANDS
_PRIME = np.uint64(4294967291)  # the largest below 2**32: products of two smaller numbers fit 64 bits
_chance = np.random.default_rng(7)
_FACTORS = _chance.integers(1, _PRIME, BANDS * ROWS, dtype=np.uint64)
_TERMS = _chance.integers(0, _PRIME, BANDS * ROWS, dtype=np.uint64)
_SENTENCE = re.compile(r"(?<=[.!?…])[\"»”')]*\s+|\n+")


class Pair(NamedTuple):
    """Two texts by their index, the earlier one first, and how alike they are, 0 to 1."""

    first: int
    second: int
    score: float


def plain(text: str) -> str:
    """Returns the words of a text in small letters without accents, one space apart."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", bare))


def grams(text: str) -> frozenset[str]:
    """Returns the runs of five characters in the plain spelling; a text without words is its own only run."""
    padded = f" {plain(text)} "
    runs = frozenset(padded[i : i + GRAM] for i in range(len(padded) - GRAM + 1))
    return runs or frozenset([plain(text) or text])


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Returns the Jaccard index of two sets of runs."""
    return len(one & other) / len(one | other)


def near(texts: Sequence[str], least: float) -> list[Pair]:
    """Returns the pairs of texts whose likeness is at least `least`, without comparing all with all.

    Only pairs that share a band of MinHash values are compared (Broder 1997, "On the resemblance and containment of
    documents"). Of the pairs that are alike by 0.5, this finds 98.6 %, and by 0.6 or more 99.9 %.
    """
    sets = [grams(text) for text in texts]
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, bands in enumerate(map(_bands, sets)):
        for number, band in enumerate(bands):
            buckets[number, band.tobytes()].append(index)
    candidates = {pair for bucket in buckets.values() for pair in combinations(bucket, 2)}
    pairs = [Pair(one, other, likeness(sets[one], sets[other])) for one, other in sorted(candidates)]
    return [pair for pair in pairs if pair.score >= least]


def _bands(runs: frozenset[str]) -> NDArray[np.uint64]:
    """Returns the MinHash values of a set, shape `(BANDS, ROWS)`."""
    hashes = np.array([zlib.crc32(run.encode()) for run in runs], dtype=np.uint64)
    mixed = (hashes[:, None] * _FACTORS + _TERMS) % _PRIME
    lowest: NDArray[np.uint64] = mixed.min(axis=0).reshape(BANDS, ROWS)
    return lowest


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


@cache
def _identifier() -> Any:
    made = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    made.set_languages(TOLD_APART)
    return made


def language(text: str, sure: float = 0.0) -> str | None:
    """Returns the likeliest language of a text, or None where it is too short or the likelihood is below `sure`."""
    if len(text) < TELLING:
        return None
    code, probability = _identifier().classify(text)
    return str(code) if probability >= sure else None


def is_in(text: str, wanted: str) -> bool:
    """Tells whether a text is in a language: the whole of it, and every sentence that is long enough to tell.

    A text too short to tell is taken to be.
    """
    told = {language(sentence, SURE) for sentence in sentences(text)} & set(LANGUAGES)
    return language(text) in (wanted, None) and told <= {wanted}


def nearest_language(text: str) -> Language:
    """Returns which of our languages a text is likeliest in."""
    codes = [code for code, _ in _identifier().rank(text)]
    return min(LANGUAGES, key=codes.index)
