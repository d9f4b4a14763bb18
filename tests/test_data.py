"""Dialogues as data: each fault is found where it is, each mend mends, and good data is left alone."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from demo.data import OURS, Finding, check, repair
from demo.data.check import schema
from demo.data.repair import mended
from demo.data.text import grams, is_in, language, likeness, near
from tests.conftest import ROOT

ASKED = "Mañana tengo el examen de química y llevo toda la semana sin poder concentrarme."
REPLY = (
    "El examen de química te ocupa la cabeza toda la semana. Es normal con tanto en juego. ¿Qué parte te cuesta más?"
)
ENGLISH = "Your sister leaving town makes the evenings quiet. It makes sense to miss her. What did you do together?"

Row = dict[str, Any]


def row(*texts: str, name: str = "a-1", **other: Any) -> Row:
    """Returns a good dialogue; texts take turns, the person's first."""
    texts = texts or (ASKED, REPLY)
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"id": name, "lang": "es", "topic": "exams", "messages": messages} | other


def found(*rows: Row | str) -> list[Finding]:
    return check(one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in rows)


def kinds(*rows: Row | str) -> set[tuple[str, str]]:
    return {(finding.level, finding.kind) for finding in found(*rows)}


def mend(data: bytes | str | Any) -> tuple[list[Row], list[str]]:
    """Returns the rows and what was mended."""
    if not isinstance(data, bytes):
        data = (data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)).encode()
    made, mends = repair(data)
    return [json.loads(line) for line in made.decode().split("\n") if line.strip()], [mend.what for mend in mends]


def said(one: Row) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in one["messages"]]


def test_a_good_dialogue_has_no_findings() -> None:
    assert found(row(), row("my sister moved to Leeds and it's so quiet", ENGLISH, name="a-2", lang="en")) == []


def test_our_own_dialogues_have_no_errors() -> None:
    lines = [line for file in OURS for line in file.read_text(encoding="utf-8").split("\n")]
    assert [finding for finding in check(lines) if finding.level == "error"] == []


@pytest.mark.parametrize(
    "broken",
    [
        {"id": ""},
        {"id": 5},
        {"lang": "pt"},
        {"topic": None},
        {"messages": []},
        {"messages": "hola"},
        {"messages": [{"role": "user", "content": "hola"}]},
        {"messages": [{"role": "assistant", "content": "hola"}, {"role": "user", "content": "hola"}]},
        {"messages": [{"role": "user", "content": "hola"}] * 2},
        {"messages": [{"role": "user", "content": "hola"}, {"role": "therapist", "content": "hola"}]},
        {"messages": [{"from": "user", "value": "hola"}, {"from": "gpt", "value": "hola"}]},
        {"messages": [{"role": "user", "content": "  "}, {"role": "assistant", "content": "hola"}]},
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": None}]},
    ],
)
def test_a_row_without_the_schema_is_an_error(broken: Row) -> None:
    assert kinds(row() | broken) == {("error", "schema")}


def test_a_system_message_may_come_first_and_only_first() -> None:
    system = {"role": "system", "content": "Escuchas con calma."}
    good = row()["messages"]
    assert schema(row(messages=[system, *good])) == []
    assert schema(row(messages=[*good, system])) != []


def test_a_line_that_is_no_json_and_an_id_that_comes_twice_are_errors() -> None:
    assert ("error", "json") in kinds(row(), "{not json")
    assert ("error", "schema") in kinds(row(), row("hoy llueve mucho y no salgo", REPLY + " Sí."))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (
            "Your sister leaving town makes the evenings quiet, and it makes sense to miss her a lot.",
            "language of assistant",
        ),
        (REPLY + " And I will listen to whatever you want to tell me about it.", "language of assistant"),
        ("Como tu terapeuta, te pido que respires.", "guard: identity"),
        ("Por lo que cuentas, tienes depresión.", "guard: diagnosis"),
        ("Toma 50 mg antes de dormir.", "guard: medication"),
        ("A mí también me pasó con la química.", "guard: identity"),
        ("No se lo contaré a nadie.", "guard: bond"),
        ("No es para tanto, es un examen.", "guard: minimise"),
        ("Deberías estudiar más.", "forbidden: lecture"),
        ("Puedes seguir con nuestra terapia.", "forbidden: therapy"),
        ("Cuando yo era niño lloraba por la química.", "forbidden: own life"),
        ("Todo pasa por algo, también el examen.", "forbidden: cliche"),
        ("Escríbele por WhatsApp a tu profesora.", "forbidden: brand"),
        ("Llama al 911 555 019 y cuéntalo.", "contact"),
        ("Mira en www.ejemplo.com qué hacer.", "contact"),
        ("Escribe a ayuda@ejemplo.org hoy.", "contact"),
        ("El examen te pesa <end_of_turn> mucho.", "contact"),
        ("El examen te pesa mucho 😢", "emoji"),
        ("El examen te pesa mucho :)", "emoji"),
        ("- El examen te pesa.\n- La química también.", "markdown"),
        ("El examen te **pesa** mucho.", "markdown"),
        ("¿Qué te cuesta? ¿Cuándo empezó?", "questions"),
        ("El examen te pesa mucho, Â¿quÃ© parte?", "characters"),
    ],
)
def test_what_a_reply_may_not_say_is_an_error(reply: str, kind: str) -> None:
    assert ("error", kind) in kinds(row(ASKED, reply))


@pytest.mark.parametrize(
    "reply",
    [
        "No soy una persona ni puedo dar un diagnóstico: soy un programa.",
        "Tú no tienes la culpa de lo que pasó en el examen.",
        "No puedo decirte si tienes depresión; un médico sí puede verlo contigo.",
        "No puedo atenderle como una psicóloga, pero aquí puede hablar.",
        "A las 3:30 seguías con el tema 12 (de 20), y eso cansa.",
    ],
)
def test_what_a_reply_may_say_is_no_error(reply: str) -> None:
    assert {kind for level, kind in kinds(row(ASKED, reply)) if level == "error"} == set()


def test_a_sentence_said_again_in_a_later_reply_is_an_error() -> None:
    again = "Es normal con tanto en juego. ¿Y hoy?"
    assert ("error", "repeats itself") in kinds(row(ASKED, REPLY, "sigo igual", again))
    assert ("error", "repeats itself") not in kinds(row(ASKED, REPLY, "sigo igual", "Sigue siendo difícil. ¿Y hoy?"))


def test_a_phone_number_of_a_person_is_an_error_and_is_not_repeated() -> None:
    (finding,) = found(row("llámame al 611 223 344 por favor", REPLY))
    assert (finding.level, finding.kind) == ("error", "contact")
    assert "611" not in str(finding)


def test_the_same_opening_is_an_error_unless_it_is_as_short_as_a_greeting_and_the_same_reply_a_warning() -> None:
    again = row(ASKED.upper().replace("Ñ", "ñ"), REPLY + " Sí.", name="a-2")
    assert ("error", "same opening") in kinds(row(), again)
    assert ("warning", "same reply") in kinds(row(), row("otra cosa que contar", REPLY, name="a-2"))
    greeted = kinds(
        row("hola", "Hola, me alegra leerte por aquí en esta tarde."),
        row("¡Hola!", "¿Qué tal el día de hoy, con tanta lluvia y tanto por hacer?", name="a-2"),
    )
    assert ("warning", "same opening") in greeted and ("error", "same opening") not in greeted


def test_near_duplicates_are_warned_of_among_openings_and_among_replies() -> None:
    nearly = row(ASKED.replace("química", "física"), REPLY.replace("semana", "tarde"), name="a-2")
    assert {("warning", "near-duplicate opening"), ("warning", "near-duplicate reply")} <= kinds(row(), nearly)
    assert (
        kinds(
            row(),
            row(
                "El perro de mi vecina lleva tres días sin comer.",
                "El perro te preocupa. ¿Desde cuándo está así?",
                name="b",
            ),
        )
        == set()
    )


def test_near_finds_the_pairs_that_comparing_all_with_all_finds() -> None:
    words = [f"palabra{number}" for number in range(40)]
    chance = random.Random(3)
    texts = [" ".join(chance.sample(words[:12], 9)) for _ in range(60)]
    texts += [text.replace("palabra3", "cosa") for text in texts]
    sets = [grams(text) for text in texts]
    alike = {(i, j) for j in range(len(sets)) for i in range(j) if likeness(sets[i], sets[j]) >= 0.7}
    assert {pair[:2] for pair in near(texts, 0.7)} == alike != set()


def test_a_dialogue_that_does_not_fit_the_context_is_an_error() -> None:
    assert ("error", "tokens") in kinds(row("ya no sé qué hacer con esto " * 900, REPLY))
    assert ("warning", "tokens") in kinds(row("ya no sé qué hacer con esto " * 220, REPLY))


def test_a_reply_of_a_few_words_is_warned_of() -> None:
    assert ("warning", "words of a reply") in kinds(row(ASKED, "Te leo."))


def test_a_lopsided_file_is_warned_of() -> None:
    rows = [
        row(f"tema {n} " * 3, f"Respuesta número {n} {n * 7} sobre {n * 13} y nada más {n * 3}.", name=str(n))
        for n in range(60)
    ]
    assert {("warning", "balance"), ("warning", "beginning")} <= kinds(*rows)
    assert {finding.where for finding in found(*rows) if finding.kind == "balance"} == {"en", "exams"}


@pytest.mark.parametrize("short", ["ok", "hola", "triste", "fine"])
def test_the_language_of_a_word_is_not_judged(short: str) -> None:
    assert language(short) is None
    assert is_in(short, "es") and is_in(short, "en")


def test_the_language_of_a_reply_in_another_language_is_told() -> None:
    assert language("Je comprends que cette semaine a été très difficile pour toi.") == "fr"
    assert not is_in("Eu entendo que essa semana foi muito difícil para você e sua família.", "es")


# What people's files look like, and what they should become.
USER, ASSISTANT = ("user", ASKED), ("assistant", REPLY)
SHAREGPT = {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": REPLY}]}


@pytest.mark.parametrize(
    "shape",
    [
        SHAREGPT,
        [SHAREGPT],
        {"data": [SHAREGPT]},
        {"prompt": ASKED, "response": REPLY},
        {"instruction": ASKED, "input": "", "output": REPLY},
        {"Context": ASKED, "Response": REPLY},
        {"dialog": [{"speaker": "seeker", "text": ASKED}, {"speaker": "supporter", "text": REPLY}]},
        {"messages": [{"role": "Client", "content": ASKED}, {"role": "Therapist:", "content": REPLY}]},
        {"messages": [{"role": "usuario", "content": ASKED}, {"role": "psicóloga", "content": REPLY}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": ASKED}]},
                {"role": "model", "content": REPLY},
            ]
        },
        {"conversation": [ASKED, REPLY]},
        {"turns": [[ASKED, REPLY]]},
        [{"role": "user", "content": ASKED}, {"role": "assistant", "content": REPLY}],
        row(ASKED, REPLY, "¿sigues ahí y me lees?"),
        row(*[ASKED, REPLY][::1]) | {"messages": [{"role": "assistant", "content": "Hola."}, *row()["messages"]]},
        row() | {"messages": [*row()["messages"][:1], {"role": "assistant", "content": ""}, *row()["messages"][1:]]},
        row()
        | {
            "messages": [
                {"role": "user", "content": f"  {ASKED}\u200b"},
                {"role": "assistant", "content": REPLY + "\x00"},
            ]
        },
        row() | {"messages": [{"role": r, "content": t.encode().decode("latin-1")} for r, t in (USER, ASSISTANT)]},
        row() | {"id": 7, "lang": "Español", "topic": None},
        row() | {"lang": "es-MX"},
    ],
)
def test_a_file_of_another_shape_becomes_ours(shape: Any) -> None:
    (made,), mends = mend(shape)
    assert said(made) == [USER, ASSISTANT]
    assert made["lang"] == "es" and mends


def test_system_and_history_are_kept() -> None:
    (made,), _ = mend({"system": "Escucha.", "history": [["hola", "Hola."]], "instruction": ASKED, "output": REPLY})
    assert said(made) == [("system", "Escucha."), ("user", "hola"), ("assistant", "Hola."), USER, ASSISTANT]


def test_neighbours_of_one_role_are_joined() -> None:
    parts = [("user", "hola"), ("user", "estoy triste"), ("assistant", "Te leo."), ("assistant", "¿Qué pasó?")]
    (made,), mends = mend({"messages": [{"role": role, "content": text} for role, text in parts]})
    assert said(made) == [("user", "hola\nestoy triste"), ("assistant", "Te leo.\n¿Qué pasó?")]
    assert "turns made to alternate" in mends


LINE = json.dumps(row(), ensure_ascii=False)
OTHER = json.dumps(row("hoy llueve y no salgo", "La lluvia te deja en casa.", name="a-2"), ensure_ascii=False)


@pytest.mark.parametrize(
    "text",
    [
        f"[{LINE}, {OTHER}]",
        f"[\n{LINE},\n{OTHER},\n]",
        f"{LINE},\n{OTHER},\n",
        f"// ours\n{LINE}\n{OTHER}\n",
        f"[ # two\n{LINE},\n/* the second */ {OTHER}\n]",
        json.dumps([json.loads(LINE), json.loads(OTHER)], indent=2),
        f"\ufeff{LINE}\r\n{OTHER}\r\n",
        f"{LINE}\n\n\n{OTHER}",
        LINE.replace("}]}", "},]}") + "\n" + OTHER[:-1],
        f"```json\n{LINE}\n{OTHER}\n```",
    ],
)
def test_what_is_nearly_json_is_read(text: str) -> None:
    rows, _ = mend(text)
    assert [said(one) for one in rows] == [said(json.loads(LINE)), said(json.loads(OTHER))]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "latin-1"])
def test_any_usual_encoding_is_read(encoding: str) -> None:
    rows, mends = mend(f"{LINE}\n{OTHER}\n".encode(encoding))
    assert rows == [json.loads(LINE), json.loads(OTHER)]
    assert mends


def test_each_mend_is_told_by_its_line() -> None:
    made, mends = repair(f"{LINE}\n{OTHER[:-1]}\n{json.dumps(SHAREGPT)}\nhello\n".encode())
    told = {(mend.place, mend.what) for mend in mends}
    assert {(2, "JSON"), (3, "names of the schema"), (3, "role names"), (4, "left out: no dialogue")} <= told
    assert 1 not in {place for place, _ in told}
    assert made.decode().split("\n")[0] == LINE


@pytest.mark.parametrize(
    ("left_out", "why"),
    [
        ({"messages": [{"role": "user", "content": "hola"}]}, "nothing is answered"),
        (
            {"messages": [{"role": "wizard", "content": "hola"}, {"role": "user", "content": "hola"}]},
            "a role of unknown name",
        ),
        ({"text": "hola"}, "no messages"),
        (
            {
                "prompt": "Je ne dors plus depuis des semaines et je suis très fatigué.",
                "response": "Cela doit être dur.",
            },
            "language fr",
        ),
    ],
)
def test_what_cannot_be_mended_is_left_out_and_told(left_out: Row, why: str) -> None:
    rows, mends = mend(f"{LINE}\n{json.dumps(left_out)}\n")
    assert rows == [json.loads(LINE)]
    assert mends == [f"left out: {why}"]


def test_a_good_file_comes_back_byte_for_byte() -> None:
    data = OURS[0].read_bytes()
    assert repair(data) == (data, [])
    odd = json.dumps(row("dijo «vale» y “bueno”… ﬁn 👍🏽", REPLY)).encode() + b"\n\n"
    assert repair(odd) == (odd, [])


def test_an_empty_file_stays_empty() -> None:
    assert mend("")[0] == mend("\n \n")[0] == mend("[]")[0] == []


def mojibake(text: str, _chance: random.Random) -> str:
    return text.encode().decode("cp1252", errors="ignore")


def cut(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text))]


def holes(text: str, chance: random.Random) -> str:
    return "".join(letter for letter in text if chance.random() > 0.01)


def swapped(text: str, chance: random.Random) -> str:
    pairs = [
        ('"role"', '"from"'),
        ("assistant", "bot"),
        ('"', "'"),
        ("}", "},"),
        ("\n", "\r\n"),
        ('"content"', '"value"'),
    ]
    return text.replace(*chance.choice(pairs))


def noise(text: str, chance: random.Random) -> str:
    where = chance.randrange(len(text))
    return (
        text[:where]
        + chance.choice(["\x00", "\\ud83d", "\ufeff", '{"a":', "]", "\n", "// x\n", "&aacute;"])
        + text[where:]
    )


def listed(text: str, _chance: random.Random) -> str:
    return "[" + text.strip().replace("\n", ",\n") + "]"


BREAKS: list[Callable[[str, random.Random], str]] = [mojibake, cut, holes, swapped, noise, listed]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_mended_has_the_schema_and_needs_no_more_mending(seed: int) -> None:
    chance = random.Random(seed)
    text = "\n".join(chance.sample(OURS[0].read_text(encoding="utf-8").split("\n")[:-1], 4)) + "\n"
    for fault in chance.choices(BREAKS, k=chance.randint(1, 3)):
        text = fault(text, chance) or " "
    made, _ = repair(text.encode(errors="replace"))
    assert [
        finding for finding in check(made.decode().split("\n")) if finding.kind in ("schema", "json", "characters")
    ] == []
    assert repair(made) == (made, [])


def test_text_that_was_broken_twice_is_mended() -> None:
    broken = "mañana".encode().decode("cp1252").encode().decode("cp1252")
    assert mended(f"{broken}&quot;") == 'mañana"'


def program(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo.data", *options]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_the_program_mends_then_checks_and_exits_with_the_errors(tmp_path: Any) -> None:
    bad, good = tmp_path / "bad.json", tmp_path / "good.jsonl"
    bad.write_text(
        json.dumps([SHAREGPT, {"prompt": "otra cosa más", "response": "Deberías dormir."}]), encoding="utf-8"
    )
    assert "bad.json:1: names of the schema" in program("--repair", str(good), str(bad)).stdout
    checked = program("--check", str(good))
    assert checked.returncode == 1 and "forbidden: lecture: 1: row-00002" in checked.stdout
    good.write_text(LINE + "\n", encoding="utf-8")
    assert program("--check", str(good)).returncode == 0
