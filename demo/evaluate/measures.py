"""Measures of replies, each of which a bad reply fails. They judge form and likeness, not whether a reply helps.

Knows nothing of models or files.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from demo.data.rules import QUESTIONS, faults, questions
from demo.data.text import grams, is_in, likeness, plain, sentences
from sentences import Language

LOOP = 3  # times that the same four words are said
FITTING_WORDS = (12, 75)
PARROT_LIKENESS, PARROT_RUN = 0.5, 12  # Jaccard index of 5-character runs; words in a row
STEM = 5  # letters: enough to tell most words apart, few enough to join "examen" and "exámenes"
Z = 1.96  # of a 95 % interval


class Reply(NamedTuple):
    """A reply to an opening, in the language that was asked for, and how it ended (`stop` is by itself)."""

    name: str
    lang: Language
    opening: str
    text: str
    finish: str


class Share(NamedTuple):
    """So many of so many."""

    number: int
    of: int

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.number / self.of:.0%} [{low:.0%}, {high:.0%}]" if self.of else "–"

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % interval of the share (Wilson 1927)."""
        if not self.of:
            return 0.0, 1.0
        share, spread = self.number / self.of, Z * Z / self.of
        half = Z * math.sqrt(share * (1 - share) / self.of + spread / (4 * self.of))
        return tuple((share + spread / 2 + sign * half) / (1 + spread) for sign in (-1, 1))  # type: ignore[return-value]


class Match(NamedTuple):
    """Likeness of an opening to its own reply, to the others' replies, and how often its own is the likelier.

    `own_wins` is 0.5 for replies that have nothing to do with what was said (an area under the ROC curve).
    """

    own: float
    others: float
    own_wins: float


def loops(text: str) -> bool:
    """Tells whether a text says the same four words three times, or the same sentence twice."""
    words = plain(text).split()
    fours = Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3))
    said = Counter(plain(sentence) for sentence in sentences(text))
    return max(fours.values(), default=0) >= LOOP or max(said.values(), default=0) > 1


def fits(text: str) -> bool:
    """Tells whether a reply is neither too short nor too long."""
    return FITTING_WORDS[0] <= len(text.split()) <= FITTING_WORDS[1]


def is_allowed(text: str, lang: Language) -> bool:
    """Tells whether a reply breaks no rule on what it may say; its language and questions count elsewhere."""
    return all(fault.kind in ("questions", "guard: language") for fault in faults(text, lang))


def distinct(texts: Iterable[str], size: int) -> float:
    """Returns the different n-grams of words as a share of all (distinct-n; Li et al. 2016, arXiv:1510.03055)."""
    runs = [
        tuple(words[i : i + size]) for words in (plain(t).split() for t in texts) for i in range(len(words) - size + 1)
    ]
    return len(set(runs)) / len(runs) if runs else 0.0


class Known:
    """The replies that a model was trained on, to tell whether it says them again."""

    def __init__(self, replies: Sequence[str]) -> None:
        self._grams = [grams(reply) for reply in replies]
        self._text = "\n".join(f" {plain(reply)} " for reply in replies)
        self._likeness: dict[str, float] = {}

    def likeness(self, text: str) -> float:
        """Returns the highest likeness to any of them, 0 to 1."""
        if text not in self._likeness:
            own = grams(text)
            self._likeness[text] = max((likeness(own, other) for other in self._grams), default=0.0)
        return self._likeness[text]

    def run(self, text: str) -> int:
        """Returns the most words in a row that one of them has too."""
        words, longest, start = plain(text).split(), 0, 0
        for end in range(1, len(words) + 1):
            while start < end and f" {' '.join(words[start:end])} " not in self._text:
                start += 1
            longest = max(longest, end - start)
        return longest

    def is_parroted(self, text: str) -> bool:
        """Tells whether a text is much like one of them, or has a long run of its words."""
        return self.likeness(text) >= PARROT_LIKENESS or self.run(text) >= PARROT_RUN


class Topic:
    """What texts are about, by their rarer words: weighs words by how few of the `corpus` have them."""

    def __init__(self, corpus: Sequence[str]) -> None:
        self._texts = len(corpus)
        self._holding = Counter(stem for text in corpus for stem in _stems(text))

    def overlap(self, opening: str, reply: str) -> float:
        """Returns which share of the weight of an opening's words the reply takes up, 0 to 1."""
        weights = {stem: math.log((self._texts + 1) / (self._holding[stem] + 1)) for stem in _stems(opening)}
        taken = sum(weight for stem, weight in weights.items() if stem in _stems(reply))
        whole = sum(weights.values())
        return taken / whole if whole else 0.0


def _stems(text: str) -> set[str]:
    return {word[:STEM] for word in plain(text).split()}


def match(pairs: Sequence[tuple[str, str]], score: Callable[[str, str], float]) -> Match | None:
    """Compares each opening with its own reply and with every other's; None for fewer than two pairs."""
    if len(pairs) < 2:
        return None
    own, others, wins = [], [], []
    for index, (opening, reply) in enumerate(pairs):
        mine = score(opening, reply)
        theirs = [score(opening, other) for number, (_, other) in enumerate(pairs) if number != index]
        own.append(mine)
        others.append(sum(theirs) / len(theirs))
        wins.append(sum((mine > one) + 0.5 * (mine == one) for one in theirs) / len(theirs))
    return Match(*(sum(values) / len(pairs) for values in (own, others, wins)))


def shares(replies: Sequence[Reply], known: Known) -> dict[str, Share]:
    """Returns the measures that are a share of the replies; of each, 100 % is best."""
    passed: dict[str, Callable[[Reply], bool]] = {
        "in the person's language": lambda reply: is_in(reply.text, reply.lang),
        "no repetition loop": lambda reply: not loops(reply.text),
        f"{FITTING_WORDS[0]} to {FITTING_WORDS[1]} words": lambda reply: fits(reply.text),
        "ends by itself": lambda reply: reply.finish == "stop",
        "at most one question": lambda reply: questions(reply.text) <= QUESTIONS,
        "nothing forbidden": lambda reply: is_allowed(reply.text, reply.lang),
        "no training reply said again": lambda reply: not known.is_parroted(reply.text),
    }
    results = {name: [test(reply) for reply in replies] for name, test in passed.items()}
    results["all of these"] = [all(row) for row in zip(*results.values(), strict=True)]
    return {name: Share(sum(result), len(replies)) for name, result in results.items()}
