"""The export for research, and the other commands."""

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from history import Message
from history.__main__ import main
from history.research import Pseudonyms
from tests.conftest import ROOT
from tests.services.places import NAME, Place
from tests.test_history_archive import kept, said, settle, someone

pytest_plugins = ["tests.services.places"]

# What could name somebody stands in braces. Written after lists and patterns, which found 34 of the 37. One pattern was
# added because of it since: identity numbers whose check letter is wrong.
LABELLED = """
Hola, soy {Marta Jiménez} y llevo semanas sin dormir.
Me llamo {Xoán} y no sé qué hacer.
Mi novio {Álvaro} me ha dejado por {Lucía}.
mi hermana {carmen} no me habla desde la boda
Ayer discutí con {Juan Carlos} y con su madre, {Doña Inmaculada}.
Mi jefa, {Verónica Salgado}, me grita delante de todos.
Puedes llamarme al {634 55 21 09} por la tarde.
Mi número es {+34 911 234 567}.
Apunta: {+52 55 4321 8765}, es de mi casa en México.
Escríbeme a {marta.jimenez92@gmail.com}, por favor.
Vivo en {Calle Alcalá 145}, cerca del metro.
Nos mudamos a la {Avenida de la Constitución, 23}.
Mi dirección: {C/ Serrano 12, 4º B}, {28001 Madrid}.
Mi DNI es {53412876Q} y me da miedo darlo.
Tengo el NIE {X7834512K}.
La cuenta es {ES7921000813610123456789}.
En Instagram soy {@laurita_92}.
Mi CURP es {GOMC900514MDFRRN09}.
El doctor {Ruiz} no me escucha.
{Guadalupe} dice que exagero, pero {Sofía} me cree.
My name is {Emily Carter} and I can't stop crying.
My brother {Kevin} hit me again last night.
I told {Jessica} everything, she told {Brandon}.
my boss {greg} makes fun of me
You can reach me at {(415) 555-0199}.
Call {212-555-0147} if you like.
My SSN is {219-09-9999}, why would they need it?
Email: {sad.girl@outlook.com}
I live at {742 Evergreen Terrace} with my mom.
We moved to {12 Baker Street} in May.
My landlord {Mr. Patel} wants us out.
{Siobhan} stopped answering me.
"""
HARMLESS = """
Hoy me siento solo y no tengo ganas de nada.
El martes a las 10:30 tengo cita con el médico y cuesta 1500 euros.
Mi padre dice que no valgo nada.
Me gusta el mar, la luz y la paz del campo.
Will you listen to me? May I tell you something?
I have 2 sisters and 3 brothers, and I am 34 years old.
Llevo 12 semanas así, desde el 14 de febrero de 2025.
Tengo dolores de cabeza. Dolores fuertes.
"""


def labelled() -> list[tuple[str, list[str]]]:
    found = []
    for line in LABELLED.strip().splitlines():
        parts = line.replace("}", "{").split("{")
        found.append(("".join(parts), parts[1::2]))
    return found


def test_most_of_what_could_name_somebody_is_replaced() -> None:
    missed = [name for text, names in labelled() for name in names if name in Pseudonyms().replace(text)]
    total = sum(len(names) for _, names in labelled())
    print(f"{total - len(missed)} of {total} replaced; missed: {missed}")
    assert total == 37 and len(missed) <= 2


def test_what_names_nobody_is_left_as_it_is() -> None:
    changed = [line for line in HARMLESS.strip().splitlines() if Pseudonyms().replace(line) != line]
    assert changed == []


def test_the_same_person_has_the_same_name_throughout() -> None:
    pseudonyms = Pseudonyms()
    assert pseudonyms.replace("Sofía y Álvaro") == "<PERSON 1> y <PERSON 2>"
    assert pseudonyms.replace("ALVARO no vino; Sofía sí") == "<PERSON 2> no vino; <PERSON 1> sí"
    assert Pseudonyms().replace("Álvaro") == "<PERSON 1>"


# The commands


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command in this process: Presidio alone takes seconds to load."""

    def call(place: Place, *arguments: str, **more: str) -> Done:
        settings = place.settings()
        values = {"HISTORY_URL": settings.history_url, "HISTORY_SALT": settings.history_salt,
                  "HF_TOKEN": settings.hf_token, "HISTORY_JOURNAL": str(settings.history_journal), **more}  # fmt: skip
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["history", *arguments])
        code: int | str | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return call


def test_the_commands_are_there() -> None:
    command = [sys.executable, "-m", "history", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert all(word in done.stdout for word in ("check", "purge", "export"))


def test_the_export_names_nobody_and_leaves_out_who_withdrew(
    sqlite_place: Place, tmp_path: Path, run: Callable[..., Done]
) -> None:
    key = Fernet.generate_key().decode()
    archive = sqlite_place.archive(history_key=key)
    ana, bea = someone(archive), someone(archive)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    messages = [
        Message("user", "Me llamo Marta y mi correo es marta@ejemplo.es", start),
        Message("assistant", "Te leo, Marta.", start + timedelta(seconds=7), "stop", aside="☎ 024"),
    ]
    id = uuid4().hex
    archive.record(ana, id, "Lo de Marta", messages)
    archive.rate(ana, id, messages[1].id, False, "Marta no quiere eso")
    kept(archive, bea, "otra cosa")
    archive.consent(bea, False)
    settle(archive)
    out = tmp_path / "export.jsonl"
    done = run(sqlite_place, "export", "--pseudonymise", "--out", str(out), HISTORY_KEY=key)
    assert done.code == 0 and "no anonymisation" in done.err and "1 conversations" in done.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    (line,) = out.read_text().splitlines()
    row = json.loads(line)
    assert row["messages"][0]["text"] == "Me llamo <PERSON 1> y mi correo es <EMAIL 1>"
    assert row["messages"][1]["seconds"] == 7 and row["messages"][1]["up"] is False
    for secret in ("Marta", "ejemplo.es", ana, id, messages[0].id, "2026", "024"):
        assert secret not in line


def test_an_export_without_pseudonyms_is_not_to_be_had(sqlite_place: Place, run: Callable[..., Done]) -> None:
    done = run(sqlite_place, "export")
    assert done.code == 2 and "--pseudonymise" in done.err


def test_check_says_what_is_there_and_who_may_read_it(hub_place: Place, run: Callable[..., Done]) -> None:
    archive = hub_place.archive()
    kept(archive, someone(archive), "alpaca")
    settle(archive)
    done = run(hub_place, "check")
    assert done.code == 0
    assert "private" in done.out and "1 people, 1 of them consenting, 1 conversations" in done.out
    assert "alpaca" not in done.out + done.err
    assert hub_place.hub
    hub_place.hub.datasets[NAME].private = hub_place.hub.buckets[NAME].private = False
    refused = run(hub_place, "check")
    assert "is public" in str(refused.code)


def test_purge_deletes_what_is_old(sqlite_place: Place, run: Callable[..., Done]) -> None:
    old = sqlite_place.archive(now=lambda: datetime.now(UTC) - timedelta(days=40))
    old.record(someone(old), uuid4().hex, None, said("a"))
    assert old.close(10)
    assert "0 conversations deleted" in run(sqlite_place, "purge", HISTORY_DAYS="50").out
    assert "1 conversations deleted" in run(sqlite_place, "purge", HISTORY_DAYS="30").out
    assert sqlite_place.documents() == {}


@pytest.mark.parametrize("command", [["check"], ["export", "--pseudonymise"]])
def test_without_an_address_the_commands_say_so(
    sqlite_place: Place, command: list[str], run: Callable[..., Done]
) -> None:
    done = run(sqlite_place, *command, HISTORY_URL="")
    assert "HISTORY_URL is not set" in str(done.code)
