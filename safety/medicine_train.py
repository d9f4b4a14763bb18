"""Trains the weights that see questions about medicines: `python -m safety.medicine_train` prints their worth.

Reads our own dialogues (`demo/*.jsonl`): whose first reply sends the person to a pharmacist, and what else people say.
All figures are of messages that the model which judges them never saw, five folds. The limit is the log odds that the
share `MISTAKEN` of the other messages exceeds there. Needs scikit-learn, which nothing at run time does.
"""

import argparse
import json
import re
from collections.abc import Iterator

import numpy as np

from demo.data import OURS
from safety.classifier import Ints, pieces_of
from safety.guard_train import HARMLESS, Model, Row, unseen
from safety.medicine import WEIGHTS, by_rules
from safety.spelling import plain
from safety.train import wilson

MISTAKEN = 0.005
# A reply that names a pharmacist and declines or sends on; one that only says back "you work in a pharmacy" does not.
SENT_ON = re.compile(
    r"^(?=.*(?:farmac|pharmac)).*"
    r"(?:\bpuedo\b|pued[ea]n? decir|pregunt[aeáé]|consult[aeo]\b|can(?:'t|not)|can tell|\bask )",
    re.DOTALL,
)
UNSURE = ("medicin", "medication", "medicación", "symptoms", "pain", "test results")  # topics that hold both sorts


def labelled() -> list[Row]:
    """Returns every message of a person in our dialogues, each once; those that could be taken for both left out."""
    rows = (row for file in OURS for line in file.read_text(encoding="utf-8").splitlines() for row in _rows(line))
    return list({plain(row.text): row for row in rows}.values())


def _rows(line: str) -> Iterator[Row]:
    dialogue = json.loads(line)
    replies = [message["content"] for message in dialogue["messages"] if message["role"] == "assistant"]
    asked = bool(SENT_ON.search(replies[0].lower()))
    if not asked and dialogue["topic"].startswith(UNSURE):
        return
    said = [message["content"] for message in dialogue["messages"] if message["role"] == "user"]
    yield Row(said[0], "medicine" if asked else HARMLESS, dialogue["lang"], said[0])
    for text in said[1:]:
        yield Row(text, HARMLESS, dialogue["lang"], text)


def main() -> None:
    """Measures, trains on every message, and writes the weights."""
    argparse.ArgumentParser(prog="python -m safety.medicine_train", description=__doc__.splitlines()[0]).parse_args()
    rows = labelled()
    pieces = [pieces_of(plain(row.text)) for row in rows]
    odds, asked = unseen(rows, pieces), np.array([row.is_harmful for row in rows])
    limit = float(np.quantile(odds[~asked], 1 - MISTAKEN))
    ruled = np.array([by_rules(row.text) for row in rows])
    for name, found in (("rules (tuned on these)", ruled), ("weights", odds > limit), ("both", ruled | (odds > limit))):
        for side, part in (("asked", found[asked]), ("other", found[~asked])):
            low, high = wilson(int(part.sum()), len(part))
            print(f"{name:24s} {side} {part.sum():5d}/{len(part):<6d} {part.mean():.4f}  95% {low:.4f}-{high:.4f}")
    _write(Model(rows, pieces), limit)


def _write(model: Model, limit: float) -> None:
    buckets: Ints = model.buckets
    np.savez_compressed(
        WEIGHTS,
        allow_pickle=False,
        buckets=buckets.astype(np.int32),
        scale=model.scale.astype(np.float16),
        weights=model.harm.coef_[0].astype(np.float16),
        limit=np.array(limit - model.harm.intercept_[0]),
    )
    print(f"{WEIGHTS.name}: {len(buckets)} features, {WEIGHTS.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
