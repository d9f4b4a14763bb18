"""Trains the weights of the risk classifier: `python -m safety.train` prints what they are worth and writes the file.

Reads the labelled messages of `data/risk_messages.jsonl`. A tenth of them, chosen by the hash of their group, is held
out of everything here and is for the tests alone. Of the rest, two divisions are measured, and no group is ever on both
sides: five folds, and leaving out one writer's file at a time, which is nearer to people who are not in the set. The
thresholds come from the second. Needs scikit-learn, which nothing else does.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from safety import classifier, risk
from safety.classifier import BUCKETS, WEIGHTS, Floats, Ints, Pieces
from safety.spelling import plain

MESSAGES = WEIGHTS.with_name("risk_messages.jsonl")
STRENGTH = 4.0  # C of the logistic regressions: the best of 1, 2, 4 and 8 on files left out
RARE = 2  # a feature that fewer messages than this have is left out
RATES = (0.10, 0.02)  # share of the harmless messages of an unseen writer that may be flagged, and called a crisis
CURVE = ((0.03, 0.01), (0.05, 0.01), (0.08, 0.02), (0.10, 0.02), (0.15, 0.03), (0.20, 0.05), (0.30, 0.05), (0.40, 0.10))
RANKS = ("none", "elevated", "crisis")
SLICES = ("lang", "directness", "category")

Row = dict[str, Any]
Bools = npt.NDArray[np.bool_]


def messages(*, held: bool) -> list[Row]:
    """Returns the labelled messages that are held out of training, or those that are not."""
    rows = map(json.loads, MESSAGES.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if is_held(row["group"]) == held]


def is_held(group: str) -> bool:
    return _hash(group) % 10 == 0


def rank_of(row: Row) -> int:
    return RANKS.index(row["level"])


def wilson(part: int, whole: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927)."""
    if not whole:
        return 0.0, 1.0
    z, share = 1.96, part / whole
    middle, spread = share + z * z / (2 * whole), z * sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return (middle - spread) / (1 + z * z / whole), (middle + spread) / (1 + z * z / whole)


class Model:
    """The vocabulary and the weights learned from some rows."""

    def __init__(self, rows: Sequence[Row], pieces: Sequence[Pieces]) -> None:
        counts = np.zeros(BUCKETS, np.int64)
        for one in pieces:
            counts[np.unique(np.concatenate(one.features))] += 1
        self.buckets: Ints = np.flatnonzero(counts >= RARE)
        self.rows: Ints = np.full(BUCKETS, -1, np.int64)
        self.rows[self.buckets] = np.arange(len(self.buckets))
        # As it is stored, so that what is measured is what is read.
        self.idf: Floats = (1 + np.log((1 + len(rows)) / (1 + counts[self.buckets]))).astype(np.float16).astype(float)
        table, ranks = self.table(pieces), np.array([rank_of(row) for row in rows])
        self.levels = [_fitted(table, ranks > below) for below in (0, 1)]

    def table(self, pieces: Sequence[Pieces]) -> Any:
        found = classifier.vectors(pieces, self.rows, self.idf)
        ends = np.cumsum([0, *(len(ids) for ids, _ in found)])
        values, ids = (np.concatenate([one[part] for one in found]) for part in (1, 0))
        return csr_matrix((values, ids, ends), shape=(len(found), len(self.buckets)))

    def logits(self, pieces: Sequence[Pieces]) -> Floats:
        table = self.table(pieces)
        return np.stack([level.decision_function(table) for level in self.levels], axis=1)


def unseen(rows: Sequence[Row], pieces: Sequence[Pieces], part: Callable[[Row], object]) -> Floats:
    """Returns each row's log odds from a model that saw no row of the same part."""
    parts = np.array([str(part(row)) for row in rows])
    logits = np.zeros((len(rows), 2))
    for one in sorted(set(parts)):
        seen, new = (np.flatnonzero(chosen).tolist() for chosen in (parts != one, parts == one))
        model = Model([rows[i] for i in seen], [pieces[i] for i in seen])
        logits[new] = model.logits([pieces[i] for i in new])
    return logits


def thresholds(rows: Sequence[Row], logits: Floats, rates: tuple[float, float]) -> Floats:
    """Returns the log odds that the given shares of the harmless rows exceed."""
    harmless = logits[[row["level"] == "none" for row in rows]]
    return np.array([np.quantile(harmless[:, level], 1 - rate) for level, rate in enumerate(rates)])


def ranks_at(logits: Floats, limits: Floats) -> Ints:
    flagged, crisis = (logits > limits).T
    return np.where(crisis, 2, np.where(flagged, 1, 0))


def measures(rows: Sequence[Row], found: Ints) -> Iterator[tuple[str, int, int]]:
    """Yields each measure of the levels to reach: its name, the part and the whole."""
    truth = np.array([rank_of(row) for row in rows])
    kind = np.array([row["directness"] for row in rows])
    wanted: list[tuple[str, Bools, int]] = [
        ("crisis direct -> crisis", kind == "direct", 2),
        ("crisis direct -> any flag", kind == "direct", 1),
        ("crisis veiled -> crisis", kind == "veiled", 2),
        ("crisis veiled -> any flag", kind == "veiled", 1),
        ("crisis all -> any flag", truth == 2, 1),
        ("elevated -> any flag", truth == 1, 1),
        ("elevated -> crisis", truth == 1, 2),
        ("none -> any flag", truth == 0, 1),
        ("none -> crisis", truth == 0, 2),
    ]
    for name, chosen, least in wanted:
        yield name, int((found[chosen] >= least).sum()), int(chosen.sum())


def main() -> None:
    """Measures, trains on every row that is not held out, and writes the weights."""
    argparse.ArgumentParser(prog="python -m safety.train", description=__doc__.splitlines()[0]).parse_args()
    rows = messages(held=False)
    pieces = [classifier.pieces_of(plain(joined(row))) for row in rows]
    rules = np.array([RANKS.index(risk.assess(row["turns"], trained=False).level) for row in rows])
    divisions: dict[str, Callable[[Row], object]] = {
        "five folds": lambda row: _hash("fold" + row["group"]) % 5,
        "a file left out": lambda row: row["group"][0],
    }
    limits = np.zeros(2)
    for name, part in divisions.items():
        logits = unseen(rows, pieces, part)
        limits = thresholds(rows, logits, RATES)
        _report(name, rows, rules, ranks_at(logits, limits))
        _curve(rows, rules, logits)
    _write(Model(rows, pieces), rows, pieces, limits)


def joined(row: Row) -> str:
    return " . ".join(row["turns"][-risk.JOINED :])


def _report(name: str, rows: Sequence[Row], rules: Ints, alone: Ints) -> None:
    both = np.maximum(rules, alone)
    for who, found in (("rules", rules), ("classifier", alone), ("both", both)):
        print(f"\n{name}, {who}")
        for measure, part, whole in measures(rows, found):
            print(_line(measure, part, whole))
    for key in SLICES:
        print(f"\n{name}, both, crisis flagged by {key}")
        for value in sorted({row[key] for row in rows if row["level"] == "crisis"}):
            chosen = np.array([row["level"] == "crisis" and row[key] == value for row in rows])
            print(_line(value, int((both[chosen] >= 1).sum()), int(chosen.sum())))


def _line(name: str, part: int, whole: int) -> str:
    low, high = wilson(part, whole)
    return f"  {name:28s} {part:5d}/{whole:<5d} {part / max(1, whole):.3f}  95% {low:.3f}-{high:.3f}"


def _curve(rows: Sequence[Row], rules: Ints, logits: Floats) -> None:
    print("\n  rates of none   " + "  ".join(name for name, _, _ in measures(rows, rules)))
    for rates in CURVE:
        both = np.maximum(rules, ranks_at(logits, thresholds(rows, logits, rates)))
        shares = (f"{part / max(1, whole):{len(name)}.3f}" for name, part, whole in measures(rows, both))
        print(f"  {rates[0]:.2f} {rates[1]:.2f}       " + "  ".join(shares))


def _write(model: Model, rows: Sequence[Row], pieces: Sequence[Pieces], limits: Floats) -> None:
    """Writes plain arrays, small ones: weights of levels in half precision, of categories in eight bits."""
    flagged = [i for i, row in enumerate(rows) if row["level"] != "none"]
    names = sorted({rows[i]["category"] for i in flagged})
    table = model.table([pieces[i] for i in flagged])
    kinds = [_fitted(table, np.array([rows[i]["category"] == name for i in flagged])) for name in names]
    weights = np.stack([kind.coef_[0] for kind in kinds], axis=1)
    scale = np.abs(weights).max(axis=0) / 127
    arrays = {
        "buckets": model.buckets.astype(np.int32),
        "idf": model.idf.astype(np.float16),
        "levels": np.stack([level.coef_[0] for level in model.levels], axis=1).astype(np.float16),
        "level_bias": np.array([level.intercept_[0] for level in model.levels]),
        "limits": limits,
        "categories": np.rint(weights / scale).astype(np.int8),
        "category_scale": scale,
        "category_bias": np.array([kind.intercept_[0] for kind in kinds]),
        "names": np.array(names),
    }
    np.savez_compressed(WEIGHTS, allow_pickle=False, **arrays)
    print(
        f"\n{Path(WEIGHTS).name}: {len(model.buckets)} features, {WEIGHTS.stat().st_size / 1e6:.2f} MB, limits {limits}"
    )


def _fitted(table: Any, truth: Bools) -> Any:
    return LogisticRegression(C=STRENGTH, solver="liblinear", random_state=0).fit(table, truth)


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


if __name__ == "__main__":
    main()
