"""The trained half of the detector: what it catches of messages it never saw, and what it may not do."""

import json
import time
from collections.abc import Callable
from math import isclose
from pathlib import Path

import numpy as np
import pytest

from safety import assess, classifier, risk, train
from safety.risk import RANK
from safety.spelling import plain

HELD = train.messages(held=True)
LEARNED = train.messages(held=False)
# Fresh wordings, each seen, or left alone, by what was learned.
FRESH = [
    "le regalé mi perro a mi vecina y ya dejé las llaves sobre la mesa, mañana no voy a estar",
    "gave my sister all my records and wrote everyone a letter, tonight is the last time",
    "hoy horneamos pan con mi abuela y nos quedó riquísimo",
    "we painted the kitchen yellow this weekend and it looks great",
]
# Floors, a little below what these messages measured; ceilings a little above. Shares of the held-out tenth.
FLOORS = {
    "crisis direct -> crisis": 0.83,
    "crisis direct -> any flag": 0.91,
    "crisis veiled -> crisis": 0.60,
    "crisis veiled -> any flag": 0.86,
    "elevated -> any flag": 0.88,
}
CEILINGS = {
    "elevated -> crisis": 0.16,
    "none -> any flag": 0.25,
    "none -> crisis": 0.12,
    "dialogues -> any flag": 0.30,
    "dialogues -> crisis": 0.11,
}


def levels(rows: list[train.Row], *, trained: bool) -> list[int]:
    return [RANK[assess(row["turns"], trained=trained).level] for row in rows]


def test_unseen_messages_keep_the_measured_levels(record_property: Callable[[str, object], None]) -> None:
    found = np.array(levels(HELD, trained=True))
    shares = {name: part / whole for name, part, whole in train.measures(HELD, found)}
    record_property("shares", {name: round(share, 3) for name, share in shares.items()})
    assert {name: shares[name] for name, least in FLOORS.items() if shares[name] < least} == {}
    assert {name: shares[name] for name, most in CEILINGS.items() if shares[name] > most} == {}


def test_the_classifier_sees_many_crises_that_the_rules_miss() -> None:
    crises = [row for row in HELD if row["level"] == "crisis"]
    rules, both = (sum(found > 0 for found in levels(crises, trained=trained)) for trained in (False, True))
    assert both > 1.4 * rules


def test_it_never_lowers_what_a_sure_phrase_says() -> None:
    rows = [row for row in HELD + LEARNED[::19] if len(row["turns"]) == 1]
    sure = [RANK[risk.sure(row["turns"])] for row in rows]
    # A joke in the same breath takes a step off, whoever judges.
    joke = [RANK["crisis"] - 1 if "joke" in risk._kinds("retract", f" {plain(row['turns'][0])}") else 2 for row in rows]
    assert sum(sure) > 50
    for alone, both, most in zip(sure, levels(rows, trained=True), joke, strict=True):
        assert both >= min(alone, most)


def test_a_clue_of_the_table_counts_beside_the_words() -> None:
    clues = classifier.trained().clues
    assert {"idiom any", "crisis suicide", "kept crisis suicide", "signal minor"} <= set(clues)
    told, untold = classifier.score("algo", ["crisis suicide", "kept crisis suicide"]), classifier.score("algo")
    assert told.flagged > untold.flagged and told.crisis > untold.crisis
    assert classifier.score("algo", ["a clue that nobody learned"]) == untold


def test_no_group_is_both_learned_from_and_held_out() -> None:
    assert 0.08 < len(HELD) / (len(HELD) + len(LEARNED)) < 0.12
    assert not {row["group"] for row in HELD} & {row["group"] for row in LEARNED}
    rows = map(json.loads, train.MESSAGES.read_text(encoding="utf-8").splitlines())
    assert all(row.get("held", False) == train.is_held(row["group"]) for row in rows)


def test_every_message_is_labelled_with_words_of_the_contract_and_comes_once() -> None:
    rows = [row for row in HELD + LEARNED if row["group"][0] != train.ORDINARY]
    assert len({row["id"] for row in rows}) == len({tuple(row["turns"]) for row in rows}) == len(rows)
    assert {(row["level"] == "crisis") == (row["directness"] != "") for row in rows} == {True}
    assert {row["level"] for row in rows} == set(RANK)


def test_the_weights_are_small_plain_arrays() -> None:
    assert classifier.WEIGHTS.stat().st_size < 5_000_000
    with np.load(classifier.WEIGHTS, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_the_same_text_always_gets_the_same_score() -> None:
    for text in FRESH:
        assert len({classifier.score(plain(text)) for _ in range(5)}) == 1


def test_what_training_saw_is_what_is_read() -> None:
    weights = classifier.trained()
    for row in HELD[:50]:
        pieces = classifier.pieces_of(plain(row["turns"][-1]))
        if pieces.words > classifier.WINDOW:
            continue
        logits = weights.level_bias - weights.limits
        for level in (0, 1):
            ids, values = classifier.vectors([pieces], weights.rows, weights.scales[:, level])[0]
            logits[level] += values @ weights.levels[ids, level]
        found = classifier.score(plain(row["turns"][-1]))
        assert isclose(found.flagged, logits[0], abs_tol=1e-6) and isclose(found.crisis, logits[1], abs_tol=1e-6)


VARIANTS: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "no accents": lambda text: text.translate(str.maketrans("áéíóúñ", "aeioun")),
    "zero-width": "\u200b".join,
    "emoji": lambda text: f"🙂 {text} 🌙",
    "more space": lambda text: text.replace(" ", "   "),
    "full width": lambda text: "".join(chr(ord(one) + 0xFEE0) if "a" <= one <= "z" else one for one in text),
    "Cyrillic": lambda text: text.translate(str.maketrans("aeo", "аео")),
    "leet": lambda text: " ".join(word[0] + word[1:].translate(str.maketrans("eo", "30")) for word in text.split(" ")),
    "spaced letters": lambda text: text.replace("mañana", "m a ñ a n a").replace("letter", "l e t t e r"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("text", FRESH)
def test_a_disguise_does_not_change_the_level(text: str, variant: str) -> None:
    assert assess([VARIANTS[variant](text)]).level == assess([text]).level


def test_the_fresh_messages_are_told_apart() -> None:
    assert [assess([text]).level != "none" for text in FRESH] == [True, True, False, False]


@pytest.mark.parametrize("text", ["", " ", ".", "🙂", "a", "ok", "你好", "x" * 4000, "\x00\ud800 hola"])
def test_any_text_can_be_scored(text: str) -> None:
    assert np.isfinite(classifier.score(plain(text)).flagged)


def test_a_clause_in_a_flood_is_seen() -> None:
    flood = "hoy fui al mercado y compré pan, tomate y queso para la cena de todos. " * 50
    assert assess([flood]).level == "none"
    for cut in (0, len(flood) // 2, len(flood)):
        assert assess([f"{flood[:cut]} {FRESH[0]}. {flood[cut:]}"]).level != "none"


def test_turns_add_up_to_what_none_says_alone() -> None:
    rows = [row for row in HELD if row["level"] == "crisis" and len(row["turns"]) > 1]
    alone = sum(assess([row["turns"][-1]]).level != "none" for row in rows)
    assert sum(assess(row["turns"]).level != "none" for row in rows) > alone


def test_the_time_of_a_long_message_is_told(record_property: Callable[[str, object], None]) -> None:
    text = " ".join(row["turns"][0] for row in LEARNED if row["level"] == "none")[:4000]
    classifier.score(plain(text))
    start = time.perf_counter()
    classifier.score(plain(text))
    record_property("milliseconds_for_4000_characters", round(1000 * (time.perf_counter() - start), 2))


def test_training_needs_what_running_does_not() -> None:
    needed = (Path(train.__file__).parent.parent / "requirements.txt").read_text()
    assert "scikit" not in needed
