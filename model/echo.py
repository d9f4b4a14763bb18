"""A liking for the person's own words in the first sentence of a reply, where a small model says back what it read.

With 270 million weights it makes up forms and takes one rare word for another: "te muelas" for "me mudo", a chemist for
a farmer. Here every token that goes on with a word of the message, or with what that word becomes when it is said back,
is made likelier: constraints on words in beam search (Post & Vilar 2018, arXiv:1804.06609), but soft, and for sampling.
The model still chooses among all tokens.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from transformers import PreTrainedTokenizerBase

from model.persons import words_said_back

FILE = "echo.json"  # in an adapter's folder: {"bonus": nats, "words": [...]}; see demo/vocabulary.py
LONGEST = 1000  # characters of a message whose words are liked: what is said back is seldom further on
ENDS = frozenset(".!?…")
BETWEEN = frozenset(",;:'\"")


@dataclass
class Node:
    """Where the tokens of some words have come to, and how they may go on."""

    next: dict[int, "Node"] = field(default_factory=dict)
    ends: bool = False  # whether a word may end here

    def add(self, words: Iterable[Sequence[int]]) -> None:
        """Puts in words, each as its token ids."""
        for ids in words:
            node = self
            for number in ids:
                node = node.next.setdefault(number, Node())
            node.ends = True


class Echoes:
    """What the replies of an adapter are liked to begin with, whatever the message."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: Iterable[str], bonus: float) -> None:
        """Takes everyday words, which are liked after every message, and what a liked token gains, in nats."""
        self.tokenizer = tokenizer
        self.bonus = bonus
        self.common = self.spelled(words)
        self.between = {number for mark in BETWEEN for number in self._ids([mark])[0]}
        self.ends = [number for mark in ENDS for number in self._ids([mark])[0]]

    @classmethod
    def read(cls, adapter: Path | None, tokenizer: PreTrainedTokenizerBase) -> Self | None:
        """Reads those of an adapter's folder; None if it has none."""
        if adapter is None or not (adapter / FILE).exists():
            return None
        told = json.loads((adapter / FILE).read_text(encoding="utf-8"))
        return cls(tokenizer, told["words"], told["bonus"])

    def of(self, message: str) -> "Echo":
        """Returns what a reply to a message is liked to begin with."""
        return Echo(self, message[:LONGEST])

    def spelled(self, words: Iterable[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Returns words as tokens, at the beginning of a reply and within it."""
        within = sorted(set(words))
        return self._ids([word[0].upper() + word[1:] for word in within]), self._ids([f" {word}" for word in within])

    def _ids(self, words: list[str]) -> list[list[int]]:
        found = self.tokenizer.backend_tokenizer.encode_batch(words, add_special_tokens=False)
        return [one.ids for one in found]


class Echo:
    """The liked tokens of one reply, as it grows."""

    def __init__(self, echoes: Echoes, message: str) -> None:
        self._echoes = echoes
        self._words = Node()
        self._at: Node | None = Node()
        own = echoes.spelled(words_said_back(message))
        for node, common, mine in zip((self._at, self._words), echoes.common, own, strict=True):
            node.add(common)
            node.add(mine)
        self._between = [*self._words.next, *echoes.between, *echoes.ends]
        self._read = 0

    def prefer(self, logits: torch.Tensor, said: Sequence[int]) -> torch.Tensor:
        """Returns the logits, shape `(vocabulary,)`, with the bonus of what is liked after the tokens said so far."""
        ids = self.liked(said)
        if not ids:
            return logits
        raised = logits.to(torch.float32, copy=True)
        raised[torch.tensor(ids, device=logits.device)] += self._echoes.bonus
        return raised

    def liked(self, said: Sequence[int]) -> list[int]:
        """Returns the ids that are liked next: none in the middle of a word that is not liked, or after a sentence."""
        for token in said[self._read :]:
            self._go(token)
        self._read = len(said)
        if self._at is None:
            return []
        return [*self._at.next, *self._between] if self._at.ends else list(self._at.next)

    def _go(self, token: int) -> None:
        here, piece = self._at, self._echoes.tokenizer.convert_ids_to_tokens(token)
        if not self._words.next or ENDS.intersection(piece):
            self._words, self._at = Node(), None  # the first sentence is over
        elif here and token in here.next:
            self._at = here.next[token]
        elif token in self._echoes.between:
            self._at = Node(ends=True)
        else:
            self._at = self._words.next.get(token)
