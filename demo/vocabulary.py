"""Which tokens the embedded model may say, and which words its replies begin with whatever was said.

    python -m demo.vocabulary

writes `adapter/vocabulary.npy`, one bit a token: those that Spanish and English are written with; and tells how many
there are and how much of unseen messages they cover. A word that is missing as a whole can still be said in pieces:
every letter and every byte is there. Writes `adapter/echo.json` too: the words that the first sentence of a reply likes
besides the person's own (`model.echo`), which are those that our dialogues often have there.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from config import Settings
from demo.data import OURS
from demo.train import HERE
from model import echo
from model.embedded import ensure_base
from model.persons import NUMBERS, WORD, words_said_back
from model.prompt import terminators

TARGET = HERE / "adapter" / "vocabulary.npy"
EARLY = 50_000  # byte-pair merges are numbered in the order in which they were learned: the most frequent come first
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzáéíóúüñ")
SENTENCE = re.compile(r"(?<=[.!?;]) ")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
OFTEN = 0.003  # share of a language's first sentences that have a word
BONUS = 4.0  # nats; from 3 to 5 the replies to 229 openings hardly differ, at 8 they break
UNSEEN = 10  # one message in so many is kept out when coverage is measured


def texts() -> list[str]:
    """Returns every message that we have written, in a fixed order."""
    dialogues = [row for file in OURS for row in lines(file)]
    told = [message["content"] for row in dialogues for message in row["messages"]]
    return told + [turn for row in lines(HERE.parent / "data" / "risk_messages.jsonl") for turn in row["turns"]]


def lines(file: Path) -> Iterator[Any]:
    yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def sayable(tokenizer: Any, counts: Counter[int]) -> set[int]:
    """Returns the ids of characters, bytes and what ends a reply, of frequent tokens in our letters, and `counts`."""
    found = set(counts) | terminators(tokenizer, None)
    for token, number in tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).items():
        if BYTE.fullmatch(token) or ((number < EARLY or len(token) == 1) and in_our_letters(token)):
            found.add(number)
    return found


def in_our_letters(token: str) -> bool:
    """Tells whether a token has no letter that neither language has."""
    return all(letter in LETTERS for letter in token.lower() if letter.isalpha())


def counted(tokenizer: Any, told: Sequence[str]) -> Counter[int]:
    read = tokenizer(list(told), add_special_tokens=False)["input_ids"]
    return Counter(number for ids in read for number in ids)


def coverage(tokenizer: Any, told: Sequence[str]) -> float:
    """Returns the share of tokens in messages kept out that the others' vocabulary has."""
    mixed = random.Random(0).sample(told, len(told))  # noqa: S311 - any order will do
    unseen = counted(tokenizer, mixed[::UNSEEN])
    known = sayable(tokenizer, counted(tokenizer, [text for number, text in enumerate(mixed) if number % UNSEEN]))
    return sum(number for token, number in unseen.items() if token in known) / unseen.total()


def everyday() -> list[str]:
    """Returns the words that first sentences have often and that are no form of a word said before; no numbers."""
    rows = list(lines(HERE / "echoes.jsonl"))
    found = {word for lang in ("es", "en") for word in often([row for row in rows if row["lang"] == lang])}
    return sorted(word for word in found - NUMBERS if not word.isdecimal())


def often(rows: Sequence[Any]) -> Iterator[str]:
    """Yields what a language's first sentences have often."""
    had = Counter[str]()
    for row in rows:
        said, reply = (message["content"] for message in row["messages"])
        turned = words_said_back(said) - {word.lower() for word in WORD.findall(said)}
        had.update({word.lower() for word in WORD.findall(SENTENCE.split(reply)[0])} - turned)
    yield from (word for word in had if had[word] >= OFTEN * len(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=TARGET)
    output = parser.parse_args().output
    tokenizer = AutoTokenizer.from_pretrained(ensure_base(Settings().cache_dir))
    told = texts()
    found = sayable(tokenizer, counted(tokenizer, told))
    bits = np.zeros(len(tokenizer), dtype=bool)
    bits[sorted(found)] = True
    np.save(output, np.packbits(bits))
    said = json.dumps({"bonus": BONUS, "words": everyday()}, ensure_ascii=False)
    output.with_name(echo.FILE).write_text(said + "\n", encoding="utf-8")
    print(f"{len(found):,} of {len(tokenizer):,} tokens, {coverage(tokenizer, told):.2%} of messages kept out")


if __name__ == "__main__":
    main()
