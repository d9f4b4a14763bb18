"""Trains the weights of the risk classifier: `python -m safety.train` prints what they are worth and writes the file.

Reads the labelled messages of `data/risk_messages.jsonl`, and as ordinary ones what the people say in our own
dialogues, in which nobody is in danger. A tenth, chosen by the hash of the group, is held out of everything here and is
for the tests alone. The rest is measured, and the thresholds are set, by leaving out one writer's file at a time, which
is near to people who are not in the set. Needs scikit-learn, which nothing else does.
"""

import argparse
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, hstack  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from safety import classifier, risk
from safety.classifier import BUCKETS, WEIGHTS, Floats, Ints, Pieces

MESSAGES = WEIGHTS.with_name("risk_messages.jsonl")
DIALOGUES = [WEIGHTS.parent.parent / "demo" / name for name in ("dialogues.jsonl", "plain.jsonl", "simple.jsonl")]
ORDINARY = "@"  # stands in the place of a writer for what is said in the dialogues
STRENGTH = 8.0  # C of the logistic regressions: the best of 2, 4, 8 and 16 on files left out
SMOOTH = 0.3  # what a feature counts for that is as frequent on both sides
RARE = 3  # a feature that fewer messages than this have is left out
RATES = (0.18, 0.08)  # share of the harmless messages of an unseen writer that may be flagged, and called a crisis
CURVE = ((0.03, 0.01), (0.05, 0.02), (0.08, 0.03), (0.10, 0.04), (0.12, 0.05), (0.15, 0.06), (0.20, 0.08), (0.30, 0.10))
RANKS = ("none", "elevated", "crisis")
SLICES = ("lang", "directness", "category")

Row = dict[str, Any]
Bools = npt.NDArray[np.bool_]


def messages(*, held: bool) -> list[Row]:
    """Returns the labelled messages that are held out of training, or those that are not."""
    rows = itertools.chain(_lines(MESSAGES), ordinary())
    return [row for row in rows if is_held(row["group"]) == held]


def ordinary() -> Iterator[Row]:
    """Yields what the people of our own dialogues say, as harmless: each message, and all of them together.

    Those in which the table finds anything are left out: a person may be worse there than the dialogue needed.
    """
    for dialogue in itertools.chain.from_iterable(map(_lines, DIALOGUES)):
        said = [message["content"] for message in dialogue["messages"] if message["role"] == "user"]
        row = {"level": "none", "category": "none", "directness": "", "lang": dialogue["lang"]}
        for turns in [[one] for one in said] + [said] * (len(said) > 1):
            if not any(clue.startswith(RANKS[1:]) for clue in risk.evidence(turns)[1]):
                yield {**row, "turns": turns, "group": f"{ORDINARY}{dialogue['id']}"}


def _lines(path: Path) -> Iterator[Row]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


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
        ranks = np.array([rank_of(row) for row in rows])
        counts = [_counts(pieces, ranks > below) for below in (0, 1)]
        everywhere = _counts(pieces, ranks >= 0)
        self.buckets: Ints = np.flatnonzero(everywhere >= RARE)
        self.rows: Ints = np.full(BUCKETS, -1, np.int64)
        self.rows[self.buckets] = np.arange(len(self.buckets))
        self.clues = sorted({clue for row in rows for clue in row["clues"]})
        kept, total = everywhere[self.buckets], len(rows)
        scales = [_scale(kept, count[self.buckets], total) for count in counts]
        # As they are stored, so that what is measured is what is read.
        self.scales: Floats = np.stack(scales, axis=1).astype(np.float16).astype(float)
        self.levels = [_fitted(self.table(rows, pieces, level), ranks > level) for level in (0, 1)]

    def table(self, rows: Sequence[Row], pieces: Sequence[Pieces], level: int) -> Any:
        found = classifier.vectors(pieces, self.rows, self.scales[:, level])
        places = {clue: place for place, clue in enumerate(self.clues)}
        clues = np.zeros((len(rows), len(self.clues)))
        for number, row in enumerate(rows):
            clues[number, [places[clue] for clue in row["clues"] if clue in places]] = classifier.CLUE
        ends = np.cumsum([0, *(len(ids) for ids, _ in found)])
        values, ids = (np.concatenate([one[part] for one in found]) for part in (1, 0))
        words = csr_matrix((values, ids, ends), shape=(len(found), len(self.buckets)))
        return hstack([words, csr_matrix(clues)]).tocsr()

    def logits(self, rows: Sequence[Row], pieces: Sequence[Pieces]) -> Floats:
        return np.stack(
            [fitted.decision_function(self.table(rows, pieces, level)) for level, fitted in enumerate(self.levels)],
            axis=1,
        )


def _counts(pieces: Sequence[Pieces], chosen: Bools) -> Ints:
    """Returns in how many of the chosen texts each bucket is."""
    counts = np.zeros(BUCKETS, np.int64)
    for one in itertools.compress(pieces, chosen):
        counts[np.unique(np.concatenate(one.features))] += 1
    return counts


def _scale(everywhere: Ints, inside: Ints, total: int) -> Floats:
    """Returns what each feature counts for: its inverse document frequency times how much it tells the sides apart.

    The second factor is the log-count ratio of Wang and Manning (2012), "Baselines and Bigrams", as a magnitude.
    """
    idf = 1 + np.log((1 + total) / (1 + everywhere))
    one, other = inside + 1, everywhere - inside + 1
    ratio = np.abs(np.log((one / one.sum()) / (other / other.sum())))
    return cast(Floats, idf * (SMOOTH + ratio))


def unseen(rows: Sequence[Row], pieces: Sequence[Pieces], part: Callable[[Row], object]) -> Floats:
    """Returns each row's log odds from a model that saw no row of the same part."""
    parts = np.array([str(part(row)) for row in rows])
    logits = np.zeros((len(rows), 2))
    for one in sorted(set(parts)):
        seen, new = (np.flatnonzero(chosen).tolist() for chosen in (parts != one, parts == one))
        model = Model([rows[i] for i in seen], [pieces[i] for i in seen])
        logits[new] = model.logits([rows[i] for i in new], [pieces[i] for i in new])
    return logits


def thresholds(rows: Sequence[Row], logits: Floats, rates: tuple[float, float]) -> Floats:
    """Returns the log odds that the given shares of the harmless rows exceed, most of them made to look alike."""
    harmless = logits[[row["level"] == "none" and row["group"][0] != ORDINARY for row in rows]]
    return np.array([np.quantile(harmless[:, level], 1 - rate) for level, rate in enumerate(rates)])


def ranks_at(logits: Floats, limits: Floats) -> Ints:
    flagged, crisis = (logits > limits).T
    return np.where(crisis, 2, np.where(flagged, 1, 0))


def measures(rows: Sequence[Row], found: Ints) -> Iterator[tuple[str, int, int]]:
    """Yields each measure of the levels to reach: its name, the part and the whole."""
    truth = np.array([rank_of(row) for row in rows])
    kind = np.array([row["directness"] for row in rows])
    plain = np.array([row["group"][0] == ORDINARY for row in rows])
    wanted: list[tuple[str, Bools, int]] = [
        ("crisis direct -> crisis", kind == "direct", 2),
        ("crisis direct -> any flag", kind == "direct", 1),
        ("crisis veiled -> crisis", kind == "veiled", 2),
        ("crisis veiled -> any flag", kind == "veiled", 1),
        ("crisis all -> any flag", truth == 2, 1),
        ("elevated -> any flag", truth == 1, 1),
        ("elevated -> crisis", truth == 1, 2),
        ("none -> any flag", (truth == 0) & ~plain, 1),
        ("none -> crisis", (truth == 0) & ~plain, 2),
        ("dialogues -> any flag", plain, 1),
        ("dialogues -> crisis", plain, 2),
    ]
    for name, chosen, least in wanted:
        yield name, int((found[chosen] >= least).sum()), int(chosen.sum())


def main() -> None:
    """Measures, trains on every row that is not held out, and writes the weights."""
    argparse.ArgumentParser(prog="python -m safety.train", description=__doc__.splitlines()[0]).parse_args()
    rows = messages(held=False)
    pieces = read(rows)
    sure = np.array([RANKS.index(risk.sure(row["turns"])) for row in rows])
    logits = unseen(rows, pieces, lambda row: row["group"][0])
    limits = thresholds(rows, logits, RATES)
    _report(rows, sure, ranks_at(logits, limits))
    _curve(rows, sure, logits)
    _write(Model(rows, pieces), rows, pieces, limits)


def read(rows: Sequence[Row]) -> list[Pieces]:
    """Returns the features of each row's last turns, and notes its clues in it."""
    texts = []
    for row in rows:
        text, row["clues"] = risk.evidence(row["turns"][-risk.JOINED :])
        texts.append(text)
    return [classifier.pieces_of(text) for text in texts]


def _report(rows: Sequence[Row], sure: Ints, alone: Ints) -> None:
    both = np.maximum(sure, alone)
    for who, found in (("sure phrases", sure), ("classifier", alone), ("both", both)):
        print(f"\na writer left out, {who}")
        for measure, part, whole in measures(rows, found):
            print(_line(measure, part, whole))
    for key in SLICES:
        print(f"\na writer left out, both, crisis flagged by {key}")
        for value in sorted({row[key] for row in rows if row["level"] == "crisis"}):
            chosen = np.array([row["level"] == "crisis" and row[key] == value for row in rows])
            print(_line(value, int((both[chosen] >= 1).sum()), int(chosen.sum())))


def _line(name: str, part: int, whole: int) -> str:
    low, high = wilson(part, whole)
    return f"  {name:28s} {part:5d}/{whole:<5d} {part / max(1, whole):.3f}  95% {low:.3f}-{high:.3f}"


def _curve(rows: Sequence[Row], sure: Ints, logits: Floats) -> None:
    print("\n  rates of none   " + "  ".join(name for name, _, _ in measures(rows, sure)))
    for rates in CURVE:
        both = np.maximum(sure, ranks_at(logits, thresholds(rows, logits, rates)))
        shares = (f"{part / max(1, whole):{len(name)}.3f}" for name, part, whole in measures(rows, both))
        print(f"  {rates[0]:.2f} {rates[1]:.2f}       " + "  ".join(shares))


def _write(model: Model, rows: Sequence[Row], pieces: Sequence[Pieces], limits: Floats) -> None:
    """Writes plain arrays, small ones: weights of levels in half precision, of categories in eight bits."""
    flagged = [i for i, row in enumerate(rows) if row["level"] != "none"]
    names = sorted({rows[i]["category"] for i in flagged})
    table = model.table([rows[i] for i in flagged], [pieces[i] for i in flagged], 0)
    kinds = [_fitted(table, np.array([rows[i]["category"] == name for i in flagged])) for name in names]
    weights = np.stack([kind.coef_[0] for kind in kinds], axis=1)
    scale = np.abs(weights).max(axis=0) / 127
    arrays = {
        "buckets": model.buckets.astype(np.int32),
        "scales": model.scales.astype(np.float16),
        "levels": np.stack([level.coef_[0] for level in model.levels], axis=1).astype(np.float16),
        "level_bias": np.array([level.intercept_[0] for level in model.levels]),
        "limits": limits,
        "categories": np.rint(weights / scale).astype(np.int8),
        "category_scale": scale,
        "category_bias": np.array([kind.intercept_[0] for kind in kinds]),
        "names": np.array(names),
        "clues": np.array(model.clues),
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
