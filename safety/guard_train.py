"""Trains the weights of the guard's classifier: `python -m safety.guard_train` prints what they are worth, and writes.

Reads the labelled sentences of `data/guard_sentences.jsonl`, the examples of the rules, and every reply of our own
dialogues and echoes as harmless. All figures are of sentences that the model which judges them never saw: five folds,
in which no dialogue is on both sides. The limits are the log odds that the shares `STOPPED` of the dialogues' replies
exceed there. Needs scikit-learn, which nothing at run time does.
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from safety.classifier import BUCKETS, Floats, Ints, Pieces, pieces_of, vectors
from safety.conduct import TABLE, by_rules, normal
from safety.guard import in_sentences
from safety.guard_classifier import WEIGHTS, is_judged
from safety.train import wilson
from sentences import LANGUAGES, Language, catalogue

SENTENCES = WEIGHTS.with_name("guard_sentences.jsonl")
DIALOGUES, ECHOES = (WEIGHTS.parent.parent / "demo" / f"{name}.jsonl" for name in ("dialogues", "echoes"))
OURS = ("guard.", "reply.", "notice.")  # keys of sentences of our own that stand where a reply stands
HARMLESS = "harmless"
STOPPED = (0.001, 0.02)  # share of our own replies that may be stopped: outside of a crisis, and in one
FOLDS = 5
STRENGTH = 8.0  # C of the logistic regressions: better than 2 and 4 on folds left out
SMOOTH = 1.0  # what a feature counts for that is as frequent on both sides
RARE, TELLING = 2, 4  # sentences that must have a feature: to be kept, and to tell a kind of harm
BY_WORDS = frozenset({"crisis", "language"})  # kinds of rules that are no harm everywhere, or none of meaning

Bools = npt.NDArray[np.bool_]


class Row(NamedTuple):
    """One labelled sentence; `reply` names the reply of ours that it is from, if any."""

    text: str
    label: str
    lang: Language
    group: str
    reply: str = ""

    @property
    def is_harmful(self) -> bool:
        return self.label != HARMLESS


def labelled() -> list[Row]:
    """Returns the labelled sentences, and the examples of the rules."""
    lines = map(json.loads, SENTENCES.read_text(encoding="utf-8").splitlines())
    rows = [Row(line["text"], line["label"], line["lang"], line["text"]) for line in lines]
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if not row["kind"].startswith("<"):
                rows.append(Row(row["pass"], HARMLESS, row["language"] or "en", row["pass"]))  # type: ignore[arg-type]
                if row["kind"] not in BY_WORDS:
                    rows.append(Row(row["hit"], row["kind"], row["language"] or "en", row["hit"]))  # type: ignore[arg-type]
    return list({row.text: row for row in rows}.values())


def ours() -> Iterator[Row]:
    """Yields every sentence of our own replies and echoes, all of them harmless."""
    for file in (DIALOGUES, ECHOES):
        for dialogue in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            for number, message in enumerate(dialogue["messages"]):
                if message["role"] == "assistant":
                    # What only says back a clause is far from any harm, and would set the limits too low.
                    reply = f"{dialogue['id']} {number}" if file == DIALOGUES else ""
                    for text in in_sentences([message["content"]]):
                        yield Row(text, HARMLESS, dialogue["lang"], dialogue["id"], reply)
    for language in LANGUAGES:
        for key, text in catalogue(language).items():
            if key.startswith(OURS):
                for one in in_sentences([text]):
                    yield Row(one, HARMLESS, language, key)


class Model:
    """The vocabulary and the weights learned from some rows."""

    def __init__(self, rows: Sequence[Row], pieces: Sequence[Pieces]) -> None:
        harmful = np.array([row.is_harmful for row in rows])
        everywhere, inside = _counts(pieces), _counts([pieces[i] for i in np.flatnonzero(harmful).tolist()])
        self.buckets: Ints = np.flatnonzero(everywhere >= RARE)
        self.rows: Ints = np.full(BUCKETS, -1, np.int64)
        self.rows[self.buckets] = np.arange(len(self.buckets))
        self.told: Ints = np.flatnonzero(inside[self.buckets] >= TELLING)
        # As it is stored, so that what is measured is what is read.
        scale = _scale(everywhere[self.buckets], inside[self.buckets], len(rows))
        self.scale: Floats = scale.astype(np.float16).astype(np.float64)
        self.harm = _fitted(self.table(pieces), harmful)

    def table(self, pieces: Sequence[Pieces]) -> Any:
        found = vectors(pieces, self.rows, self.scale)
        ends = np.cumsum([0, *(len(ids) for ids, _ in found)])
        values, ids = (np.concatenate([one[part] for one in found]) for part in (1, 0))
        return csr_matrix((values, ids, ends), shape=(len(found), len(self.buckets)))

    def odds(self, pieces: Sequence[Pieces]) -> Floats:
        found: Floats = self.harm.decision_function(self.table(pieces))
        return found


def unseen(rows: Sequence[Row], pieces: Sequence[Pieces]) -> Floats:
    """Returns each row's log odds from a model that saw no row of its fold."""
    folds = np.array([int(hashlib.sha256(row.group.encode()).hexdigest(), 16) % FOLDS for row in rows])
    odds = np.zeros(len(rows))
    for fold in range(FOLDS):
        seen, new = np.flatnonzero(folds != fold).tolist(), np.flatnonzero(folds == fold).tolist()
        odds[new] = Model([rows[i] for i in seen], [pieces[i] for i in seen]).odds([pieces[i] for i in new])
    return odds


def limits(rows: Sequence[Row], odds: Floats) -> Floats:
    """Returns the log odds that the shares `STOPPED` of our own replies exceed."""
    highest: dict[str, float] = {}
    for row, found in zip(rows, odds, strict=True):
        if row.reply:
            highest[row.reply] = max(found, highest.get(row.reply, -np.inf))
    ordered = sorted(highest.values(), reverse=True)
    return np.array([ordered[round(share * len(ordered))] for share in STOPPED]) + 1e-6


def main() -> None:
    """Measures, trains on every row, and writes the weights."""
    argparse.ArgumentParser(prog="python -m safety.guard_train", description=__doc__.splitlines()[0]).parse_args()
    rows = [*labelled(), *ours()]
    pieces = [pieces_of(normal(row.text)) for row in rows]
    odds = unseen(rows, pieces)
    odds[[not is_judged(normal(row.text)) for row in rows]] = -np.inf
    found = limits(rows, odds)
    _report(rows, odds, found)
    _write(Model(rows, pieces), rows, pieces, found)


def _report(rows: Sequence[Row], odds: Floats, found: Floats) -> None:
    ruled = np.array([by_rules(row.text, row.lang) not in (None, "language") for row in rows])
    harmful, reply = np.array([row.is_harmful for row in rows]), np.array([bool(row.reply) for row in rows])
    for name, limit in zip(("outside of a crisis", "in a crisis"), found, strict=True):
        stopped = odds > limit
        print(f"\n{name}, limit {limit:.2f}")
        _line("harmful, classifier", stopped[harmful])
        _line("harmful, missed by the rules", stopped[harmful & ~ruled])
        _line("harmful, both (rules are tuned)", (stopped | ruled)[harmful])
        _line("harmless, labelled", stopped[~harmful & ~reply])
        replies = {row.reply for row in rows if row.reply}
        _line("our own replies", np.array([*map(bool, _replies(rows, stopped, replies))]))


def _replies(rows: Sequence[Row], stopped: Bools, replies: set[str]) -> list[bool]:
    hit = {row.reply for row, one in zip(rows, stopped, strict=True) if one and row.reply}
    return [reply in hit for reply in sorted(replies)]


def _line(name: str, stopped: Bools) -> None:
    part, whole = int(stopped.sum()), len(stopped)
    low, high = wilson(part, whole)
    print(f"  {name:32s} {part:5d}/{whole:<5d} {part / max(1, whole):.4f}  95% {low:.4f}-{high:.4f}")


def _write(model: Model, rows: Sequence[Row], pieces: Sequence[Pieces], found: Floats) -> None:
    """Writes plain arrays, small ones: weights of harm in half precision, of its kinds in eight bits."""
    harmful = [i for i, row in enumerate(rows) if row.is_harmful]
    names = sorted({rows[i].label for i in harmful})
    table = model.table([pieces[i] for i in harmful])[:, model.told]
    kinds = [_fitted(table, np.array([rows[i].label == name for i in harmful])) for name in names]
    weights = np.stack([kind.coef_[0] for kind in kinds], axis=1)
    scale = np.abs(weights).max(axis=0) / 127
    arrays = {
        "buckets": model.buckets.astype(np.int32),
        "scale": model.scale.astype(np.float16),
        "harm": model.harm.coef_[0].astype(np.float16),
        "bias": np.array(model.harm.intercept_[0]),
        "limits": found,
        "told": model.told.astype(np.int32),
        "kinds": np.rint(weights / scale).astype(np.int8),
        "kind_scale": scale,
        "kind_bias": np.array([kind.intercept_[0] for kind in kinds]),
        "names": np.array(names),
    }
    np.savez_compressed(WEIGHTS, allow_pickle=False, **arrays)
    print(f"\n{WEIGHTS.name}: {len(model.buckets)} features, {WEIGHTS.stat().st_size / 1e6:.2f} MB, {len(rows)} rows")


def _counts(pieces: Sequence[Pieces]) -> Ints:
    """Returns in how many of the sentences each bucket is."""
    counts = np.zeros(BUCKETS, np.int64)
    for one in pieces:
        counts[np.unique(np.concatenate(one.features))] += 1
    return counts


def _scale(everywhere: Ints, inside: Ints, total: int) -> Floats:
    """Returns what each feature counts for: its inverse document frequency times how well it tells the sides apart.

    The second factor is the log-count ratio of Wang and Manning (2012), "Baselines and Bigrams", as a magnitude.
    """
    one, other = inside + 1, everywhere - inside + 1
    ratio: Floats = np.abs(np.log((one / one.sum()) / (other / other.sum())))
    found: Floats = (1 + np.log((1 + total) / (1 + everywhere))) * (SMOOTH + ratio)
    return found


def _fitted(table: Any, truth: Bools) -> Any:
    return LogisticRegression(C=STRENGTH, solver="liblinear", random_state=0).fit(table, truth)


if __name__ == "__main__":
    main()
