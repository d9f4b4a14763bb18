"""Which harm a sentence of the model is like, by what it has in common with labelled sentences.

Logistic regression over the features of `safety.classifier`, with fixed weights in `data/guard_weights.npz`, made by
`python -m safety.guard_train`. It adds to what the rules of `safety.conduct` find and takes nothing from it. Its limit
is set so high that it hardly ever stops a kind reply, and so it finds few of the harms that the rules miss. Knows
nothing of the rules, of streams, or of what is shown instead.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safety.classifier import BUCKETS, Floats, Ints, pieces_of, vectors

WEIGHTS = Path(__file__).parent.parent / "data" / "guard_weights.npz"
FEWEST = 4  # words: a shorter sentence says too little to be judged by likeness


@dataclass(frozen=True)
class Weights:
    """The trained arrays: where each bucket's row is, and per row what it counts for and its weight."""

    rows: Ints
    scale: Floats
    harm: Floats
    bias: float
    limits: Floats  # log odds above which a sentence is stopped: outside of a crisis, and in one
    told: Ints  # of each row, its row among the weights of kinds, or -1
    kinds: Floats
    kind_bias: Floats
    names: tuple[str, ...]


def kind_of(text: str, *, crisis: bool = False) -> str | None:
    """Returns the kind of harm that a sentence in the plain words of `conduct.normal` is like, or None."""
    if not is_judged(text):
        return None
    weights = trained()
    ids, values = vectors([pieces_of(text)], weights.rows, weights.scale)[0]
    if float(values @ weights.harm[ids]) + weights.bias <= weights.limits[int(crisis)]:
        return None
    told = weights.told[ids]
    odds = values[told >= 0] @ weights.kinds[told[told >= 0]] + weights.kind_bias
    return weights.names[int(odds.argmax())]


def is_judged(text: str) -> bool:
    """Tells whether a sentence has words enough; numbers are none."""
    return sum(word[0].isalpha() for word in text.split()) >= FEWEST


@cache
def trained() -> Weights:
    """Returns the weights, read once.

    Raises:
        FileNotFoundError: where `data/guard_weights.npz` is missing.
    """
    with np.load(WEIGHTS, allow_pickle=False) as file:
        kept: dict[str, npt.NDArray[Any]] = {name: file[name] for name in file.files}
    rows = np.full(BUCKETS, -1, np.int64)
    rows[kept["buckets"]] = np.arange(len(kept["buckets"]))
    told = np.full(len(kept["buckets"]), -1, np.int64)
    told[kept["told"]] = np.arange(len(kept["told"]))
    return Weights(
        rows,
        kept["scale"].astype(np.float64),
        kept["harm"].astype(np.float64),
        float(kept["bias"]),
        kept["limits"].astype(np.float64),
        told,
        kept["kinds"] * kept["kind_scale"].astype(np.float64),
        kept["kind_bias"].astype(np.float64),
        tuple(map(str, kept["names"])),
    )
