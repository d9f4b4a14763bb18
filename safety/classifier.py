"""How much risk a text shows by what it has in common with labelled messages: a linear model over pieces of words.

Logistic regression over hashed character n-grams, words and pairs of near words of the plain spelling
(`safety.spelling`), and over named clues that the caller found in the text, with fixed weights in
`data/risk_weights.npz`, made by `python -m safety.train`. Knows nothing of what the clues mean, of turns, of the model
or of the page. It keeps nothing of what it read.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

WEIGHTS = Path(__file__).parent.parent / "data" / "risk_weights.npz"
BUCKETS = 1 << 20  # hashed features are told apart up to this many
ORDERS = (3, 4, 5, 6)  # lengths of the character n-grams
REACH = 3  # words that a pair may be apart
WINDOW, STRIDE = 45, 20  # words: a long message is read piece by piece, so that a flood hides nothing
CLUE = 0.3  # value of a clue beside the vectors of pieces, whose norm is one
PENALTY = 0.5  # logits that a window loses for each e-fold of windows: the best of many is high by chance
PRIME = np.uint64(1099511628211)  # of the 64-bit FNV hash
MIXER = np.uint64(0x9E3779B97F4A7C15)  # of Fibonacci hashing: spreads close sums over the buckets

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pieces:
    """The hashed features of a text, and the word in which each begins: characters, and words with their pairs."""

    features: tuple[Ints, Ints]
    places: tuple[Ints, Ints]
    words: int


@dataclass(frozen=True)
class Weights:
    """The trained arrays: where each bucket's row is, and what its feature counts for, for each of two levels.

    The levels are "elevated or more" and "crisis". The weights of the clues stand after those of the buckets.
    """

    rows: Ints
    scales: Floats  # (features, 2)
    levels: Floats  # (features + clues, 2)
    level_bias: Floats
    limits: Floats  # log odds above which a text is taken as flagged, and as a crisis
    categories: Floats  # (features + clues, categories), over the scales of the first level
    category_bias: Floats
    names: tuple[str, ...]
    clues: dict[str, int]  # rows of the clues


@dataclass(frozen=True)
class Score:
    """Log odds, less the threshold of each, that a text is elevated or more and that it is a crisis; its category."""

    flagged: float
    crisis: float
    category: str


def score(text: str, clues: Iterable[str] = ()) -> Score:
    """Returns the score of a text in its plain spelling, or of its worst window if it is long, with its clues."""
    pieces, weights = pieces_of(text), trained()
    found = sorted(weights.clues[clue] for clue in clues if clue in weights.clues)
    spans = np.array(windows(pieces.words))
    logits = _window_logits(pieces, spans, weights) + CLUE * weights.levels[found].sum(axis=0)
    logits -= PENALTY * np.log(len(spans))
    worst = spans[int(logits.sum(axis=1).argmax())]
    ids, values = _vector(pieces, (int(worst[0]), int(worst[1])), weights.rows, weights.scales[:, 0])
    kinds = values @ weights.categories[ids] + CLUE * weights.categories[found].sum(axis=0) + weights.category_bias
    flagged, crisis = logits.max(axis=0) - weights.limits
    return Score(float(flagged), float(crisis), weights.names[int(kinds.argmax())])


def windows(words: int) -> list[tuple[int, int]]:
    """Returns the spans of words that are scored: the whole, or overlapping windows where the text is long."""
    if words <= WINDOW + STRIDE:
        return [(0, words + 1)]
    return [(start, start + WINDOW) for start in range(0, words - WINDOW + STRIDE, STRIDE)]


def pieces_of(text: str) -> Pieces:
    """Returns the features of a text in its plain spelling."""
    words = text.split()
    text = f" {' '.join(words)} "
    letters = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)
    word_of = np.cumsum(letters == ord(" ")) - 1
    rolling, grams, places = np.zeros(len(letters), np.uint64), [], []
    for order in range(1, max(ORDERS) + 1):
        end = len(letters) - order + 1
        if end <= 0:
            break
        rolling = rolling[:end] * PRIME + letters[order - 1 :].astype(np.uint64) + np.uint64(order)
        if order in ORDERS:
            grams.append(_bucket(rolling))
            places.append(np.minimum(word_of[:end], max(0, len(words) - 1)))
    hashes = np.array([zlib.crc32(word.encode()) for word in words], np.uint64)
    pairs = [_bucket(hashes * PRIME)]
    starts = [np.arange(len(words))]
    for apart in range(1, min(REACH, len(words) - 1) + 1):
        pairs.append(_bucket(hashes[:-apart] * MIXER + hashes[apart:] * PRIME))
        starts.append(np.arange(len(words) - apart))
    none = [np.zeros(0, np.int64)]
    return Pieces(
        (np.concatenate(grams or none), np.concatenate(pairs)),
        (np.concatenate(places or none), np.concatenate(starts)),
        len(words),
    )


@cache
def trained() -> Weights:
    """Returns the weights, read once.

    Raises:
        FileNotFoundError: where `data/risk_weights.npz` is missing.
    """
    with np.load(WEIGHTS, allow_pickle=False) as file:
        kept: dict[str, npt.NDArray[Any]] = {name: file[name] for name in file.files}
    rows = np.full(BUCKETS, -1, np.int64)
    rows[kept["buckets"]] = np.arange(len(kept["buckets"]))
    return Weights(
        rows,
        kept["scales"].astype(np.float64),
        kept["levels"].astype(np.float64),
        kept["level_bias"].astype(np.float64),
        kept["limits"].astype(np.float64),
        kept["categories"] * kept["category_scale"].astype(np.float64),
        kept["category_bias"].astype(np.float64),
        tuple(map(str, kept["names"])),
        {str(name): len(kept["buckets"]) + place for place, name in enumerate(kept["clues"])},
    )


def _bucket(hashes: npt.NDArray[np.uint64]) -> Ints:
    return cast(Ints, ((hashes * MIXER) >> np.uint64(44)).astype(np.int64))


def _vector(pieces: Pieces, span: tuple[int, int], rows: Ints, scale: Floats) -> tuple[Ints, Floats]:
    """Returns the rows and values of the known features that begin in a span of words; each sort has a norm of one.

    A feature that comes twice is there twice, so that sums over words add up to windows.
    """
    ids, values = [], []
    for features, places in zip(pieces.features, pieces.places, strict=True):
        known = rows[features[(places >= span[0]) & (places < span[1])]]
        known = known[known >= 0]
        ids.append(known)
        values.append(scale[known] / max(1e-9, float(np.sqrt(np.square(scale[known]).sum()))))
    return np.concatenate(ids), np.concatenate(values)


def _window_logits(pieces: Pieces, spans: Ints, weights: Weights) -> Floats:
    """Returns the log odds of each span: differences of running sums over words, so that many windows cost as one."""
    logits = np.tile(weights.level_bias, (len(spans), 1))
    ends = np.minimum(spans, pieces.words)
    for features, places in zip(pieces.features, pieces.places, strict=True):
        found = weights.rows[features]
        known, where = found[found >= 0], places[found >= 0]
        for level in (0, 1):
            scale = weights.scales[known, level]
            norm = np.sqrt(np.maximum(_spanned(where, np.square(scale), ends), 1e-9))
            logits[:, level] += _spanned(where, scale * weights.levels[known, level], ends) / norm
    return logits


def _spanned(places: Ints, values: Floats, ends: Ints) -> Floats:
    sums = np.concatenate([[0.0], np.cumsum(np.bincount(places, values, minlength=int(ends.max())))])
    return cast(Floats, sums[ends[:, 1]] - sums[ends[:, 0]])


def vectors(texts: Sequence[Pieces], rows: Ints, scale: Floats) -> list[tuple[Ints, Floats]]:
    """Returns the rows and values of each whole text: what training sees is what is read later."""
    return [_vector(text, (0, text.words + 1), rows, scale) for text in texts]
