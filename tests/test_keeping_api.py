"""What is kept, through the named endpoints of the real server; and strangers who try to get at it."""

import asyncio
import dataclasses
import gc
import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import app
from chat import Chat
from config import Settings
from history import Archive
from keeping import Keeping
from session import Session
from tests.fakes import FakeModel, host_of
from tests.services.archived import SALT, Server

pytest_plugins = ["tests.services.archived"]

KEY = re.compile(r"[A-Za-z0-9_-]{43}")
PLAIN = {"/chat", "/new", "/history", "/export", "/helplines", "/health", "/consent", "/delete"}
KEPT = PLAIN | {"/conversations", "/open", "/rename", "/search", "/import", "/export_kept", "/feedback"}
UNKNOWN = "A" * 43
ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server(kept_server: Server) -> Server:
    return kept_server


@pytest.fixture
def ana(server: Server) -> Client:
    """Somebody who consents to nothing yet."""
    return Client(server.url, verbose=False)


def call(client: Client, name: str, **values: Any) -> Any:
    return client.predict(api_name=f"/{name}", **values)


def consenting(server: Server) -> tuple[Client, str]:
    client = Client(server.url, verbose=False)
    return client, call(client, "consent", yes=True)["key"]


def one_message(role: str, count: int = 1) -> str:
    row = {"role": role, "text": "a", "time": "2026-01-01"}
    return json.dumps({"schema": "remanso.conversation/1", "messages": [row] * count})


def texts(client: Client) -> list[str]:
    return [message["text"] for message in call(client, "history")]


def test_the_endpoints_are_typed_and_described(ana: Client) -> None:
    info = ana.view_api(return_format="dict")["named_endpoints"]
    assert set(info) == KEPT
    assert all(len(endpoint["description"]) > 20 for endpoint in info.values())
    consent, delete = (info[name]["parameters"] for name in ("/consent", "/delete"))
    assert [(p["parameter_name"], p["python_type"]["type"]) for p in consent] == [("yes", "bool"), ("key", "str")]
    assert all(p["parameter_has_default"] for p in [*consent[1:], *delete])


def test_nothing_is_kept_before_the_consent_and_all_of_the_conversation_after_it(server: Server, ana: Client) -> None:
    call(ana, "chat", message="Hola nutria.")
    with pytest.raises(AppError, match="Falta tu clave"):
        call(ana, "conversations")
    with pytest.raises(AppError, match="clave"):
        call(ana, "feedback", up=True)
    assert b"nutria" not in server.database.read_bytes() if server.database.exists() else True
    answer = call(ana, "consent", yes=True)
    assert answer["kept"] is True and KEY.fullmatch(answer["key"]) and answer["days"] == 365
    call(ana, "chat", message="Y otra cosa.")
    (one,) = call(ana, "conversations")
    assert one["title"] == "Hola nutria." and one["messages"] == 4
    other = Client(server.url, verbose=False)
    assert call(other, "open", id=one["id"], key=answer["key"])["messages"] == 4
    assert texts(other) == texts(ana)
    call(other, "chat", message="Desde otro sitio.")
    (same,) = call(other, "conversations")
    assert same["id"] == one["id"] and same["messages"] == 6


def test_the_same_words_said_twice_are_kept_twice_and_two_who_go_on_lose_nothing(server: Server) -> None:
    ana, key = consenting(server)
    for _ in range(3):
        call(ana, "chat", message="Sí.")
    (one,) = call(ana, "conversations")
    assert one["messages"] == 6
    other = Client(server.url, verbose=False)
    call(other, "open", id=one["id"], key=key)
    call(other, "chat", message="Desde el móvil.")
    call(ana, "chat", message="Desde el ordenador.")
    call(ana, "conversations")
    call(other, "open", id=one["id"])
    said = [message["text"] for message in call(other, "history") if message["role"] == "user"]
    assert sorted(said) == ["Desde el móvil.", "Desde el ordenador.", "Sí.", "Sí.", "Sí."]


def test_a_title_is_found_and_changed_and_a_search_knows_no_accents(server: Server) -> None:
    ana, _ = consenting(server)
    call(ana, "chat", message="Hoy fui a la montaña con Inés.")
    call(ana, "new")
    call(ana, "chat", message="Mañana trabajo.")
    first, second = call(ana, "conversations")
    assert [first["title"], second["title"]] == ["Mañana trabajo.", "Hoy fui a la montaña con Inés."]
    (found,) = call(ana, "search", words="INES montana")
    assert found["id"] == second["id"] and "montaña" in found["excerpt"]
    assert call(ana, "search", words="ballena") == []
    nasty = "<img src=x onerror=alert(1)> **a** '; drop table documents; --"
    assert nasty in [one["title"] for one in call(ana, "rename", id=second["id"], title=nasty)]
    call(ana, "rename", id=second["id"], title="")
    assert "Hoy fui a la montaña con Inés." in [one["title"] for one in call(ana, "conversations")]


def test_an_export_comes_back_unchanged_and_reads_as_markdown(server: Server) -> None:
    ana, _ = consenting(server)
    call(ana, "chat", message="Una **cosa** <b>rara</b>.")
    assert call(ana, "feedback", up=False, word="No me entendió.")["up"] is False
    (one,) = call(ana, "conversations")
    exported = call(ana, "export_kept", format="json")
    assert json.loads(exported)["conversations"][0]["ratings"][0]["word"] == "No me entendió."
    assert "Una **cosa** \\<b>rara" in call(ana, "export_kept", format="md", id=one["id"])
    call(ana, "delete")
    with pytest.raises(AppError, match="nada guardado"):
        call(ana, "conversations")
    call(ana, "consent", yes=True)
    (back,) = call(ana, "import", text=exported)
    assert back["id"] != one["id"] and back["messages"] == 2
    again = json.loads(call(ana, "export_kept", format="json"))["conversations"]
    assert again[0]["messages"] == json.loads(exported)["conversations"][0]["messages"]
    assert again[0]["ratings"] == json.loads(exported)["conversations"][0]["ratings"]


def test_a_withdrawn_consent_ends_the_keeping_and_deletes_nothing(server: Server) -> None:
    ana, key = consenting(server)
    call(ana, "chat", message="Antes.")
    assert call(ana, "consent", yes=False) == {"kept": False, "key": "", "days": 365}
    call(ana, "chat", message="Después.")
    (one,) = call(ana, "conversations", key=key)
    assert one["messages"] == 2
    with pytest.raises(AppError, match="quieras guardar"):
        call(ana, "import", text='{"schema": "remanso.conversation/1", "messages": []}')
    with pytest.raises(AppError, match="quieras guardar"):
        call(ana, "feedback", up=True)


def test_what_is_deleted_is_gone_for_everyone_and_from_the_disk(server: Server) -> None:
    ana, key = consenting(server)
    call(ana, "chat", message="Primera gacela.")
    call(ana, "new")
    call(ana, "chat", message="Segunda gacela.")
    running, first = call(ana, "conversations")
    assert call(ana, "delete", id=first["id"]) == {"deleted": 1, "confirmed": True, "remains": "nothing"}
    assert len(texts(ana)) == 2  # the running one is another
    with pytest.raises(AppError, match="no está"):
        call(ana, "open", id=first["id"])
    assert call(ana, "delete")["deleted"] == 1
    assert texts(ana) == []
    call(ana, "chat", message="Esto ya no se guarda: gacela.")
    for name, values in (("open", {"id": running["id"]}), ("conversations", {}), ("export_kept", {})):
        with pytest.raises(AppError, match=r"no está|nada guardado"):
            call(Client(server.url, verbose=False), name, key=key, **values)
    at_rest = b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())
    assert b"gacela" not in at_rest


def test_consent_and_delete_need_no_key_in_the_callers_own_session(server: Server, ana: Client) -> None:
    assert call(ana, "delete") == {"deleted": 0, "confirmed": True, "remains": "nothing"}
    assert call(ana, "consent", yes=False)["kept"] is False
    ana.predict(True, api_name="/consent")
    call(ana, "chat", message="Hola.")
    assert ana.predict(api_name="/delete")["deleted"] == 1


# Strangers


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("clave", "Eso no es una clave"),
        ("../" * 14 + "a", "Eso no es una clave"),
        ("' or 1=1 --" + "a" * 32, "Eso no es una clave"),
        (UNKNOWN, "nada guardado"),
    ],
)
def test_a_wrong_key_opens_nothing_and_says_so(ana: Client, key: str, sentence: str) -> None:
    for name, values in (("conversations", {}), ("search", {"words": "a"}), ("export_kept", {"format": "json"})):
        with pytest.raises(AppError, match=sentence):
            call(ana, name, key=key, **values)


def test_a_wrong_key_is_told_in_english_to_whom_reads_english(server: Server) -> None:
    client = Client(server.url, verbose=False, headers={"accept-language": "en-GB"})
    with pytest.raises(AppError, match="Nothing is kept under this key"):
        call(client, "conversations", key=UNKNOWN)


def test_anothers_id_with_ones_own_key_gets_nothing_and_changes_nothing(server: Server) -> None:
    ana, _ = consenting(server)
    call(ana, "chat", message="Secreto de Ana.")
    (one,) = call(ana, "conversations")
    eve, _ = consenting(server)
    for id in (one["id"], ID, f"../{one['id']}", "person", "*", "a" * 10_000, "' or 1=1 --"):
        for name, values in (("open", {}), ("rename", {"title": "mío"}), ("export_kept", {}), ("delete", {})):
            with pytest.raises(AppError, match="no está"):
                call(eve, name, id=id, **values)
        with pytest.raises(AppError, match="no está"):
            call(eve, "feedback", up=True, id=id)
    assert call(ana, "conversations")[0]["title"] == "Secreto de Ana."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no es una copia"),
        ("no es JSON", "no es una copia"),
        ('{"schema": "otro/1"}', "no es una copia"),
        ("[" * 100_000, "no es una copia"),
        (one_message("system"), "no es una copia"),
        (one_message("user", count=10_001), "demasiado grande"),
        ("a" * 5_000_001, "demasiado grande"),
    ],
)
def test_an_import_that_is_none_or_too_large_is_refused_and_keeps_nothing(
    server: Server, text: str, sentence: str
) -> None:
    ana, _ = consenting(server)
    with pytest.raises(AppError, match=sentence):
        call(ana, "import", text=text)
    assert call(ana, "conversations") == []


def test_the_pages_own_event_gives_a_stranger_nothing_and_survives_nonsense(server: Server) -> None:
    ana, _ = consenting(server)
    call(ana, "chat", message="Secreto de Ana.")
    (one,) = call(ana, "conversations")
    eve, own = consenting(server)
    event = next(d["id"] for d in eve.config["dependencies"] if str(d["api_name"]).startswith("act"))

    def ask(wish: object) -> dict[str, Any]:
        text = wish if isinstance(wish, str) else json.dumps(wish)
        answer: dict[str, Any] = json.loads(eve.predict(text, [], fn_index=event)[0])
        return answer

    for do in ("open", "rename", "export", "delete"):
        answer = ask({"do": do, "key": own, "id": one["id"], "title": "mío", "form": "json"})
        assert answer["code"] == "history_missing" and "Secreto" not in json.dumps(answer)
    assert ask({"do": "arrive", "key": own, "conversation": one["id"]})["conversation"] != one["id"]
    assert texts(eve) == []
    assert ask({"do": "list", "key": "x"})["code"] == "history_key"
    for nonsense in ("", "[1]", "{", "[" * 50_000, "7", {"do": {"a": 1}}, {"do": "open", "id": {"a": []}, "key": own}):
        assert "Secreto" not in json.dumps(ask(nonsense))
    assert len(call(ana, "conversations")) == 1


def test_no_word_and_no_key_is_in_the_log(server: Server) -> None:
    ana, key = consenting(server)
    call(ana, "chat", message="Palabra zanahoria.")
    call(ana, "search", words="zanahoria")
    with pytest.raises(AppError):
        call(ana, "import", text='{"zanahoria": 1}')
    log = server.log.read_text()
    assert "zanahoria" not in log and key not in log and "Traceback" not in log


def test_a_wrong_store_is_told_in_one_line_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, told in (("sqlite:///kept.db", "HISTORY_SALT has to be"), ("ftp://kept", "HISTORY_URL is none of")):
        monkeypatch.setenv("HISTORY_URL", wrong)
        with pytest.raises(SystemExit, match=told):
            app.main()
        monkeypatch.setenv("HISTORY_SALT", SALT)


# In memory


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    url = f"sqlite:///{tmp_path}/kept.db"
    archive = Archive(Settings(history_url=url, history_salt=SALT, history_journal=tmp_path / "journal"))
    yield archive
    archive.close()


def reachable(words: str) -> list[str]:
    """Returns kinds of objects in this process that hold text with these words."""
    gc.collect()
    found = []
    for thing in gc.get_objects():
        if isinstance(thing, dict):
            held = list(thing.values())
        elif isinstance(thing, (list, tuple, set, deque)):
            held = list(thing)
        elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            held = [getattr(thing, field.name, None) for field in dataclasses.fields(thing)]
        else:
            continue
        if any(isinstance(one, str) and words in one for one in held):
            found.append(type(thing).__name__)
    return found


def test_a_visit_that_was_left_leaves_no_word_in_memory(archive: Archive) -> None:
    model, words = FakeModel(), "-".join(["zanahoria", "violeta"])
    chat = Chat(Settings(), host_of(model))
    keeping = Keeping(chat, archive)

    async def visit() -> None:
        session = Session()
        owner = keeping.owner(keeping.new_key())
        assert keeping.consent(session, owner, True)
        async with aclosing(keeping.along(session, chat.reply(session, words))) as updates:
            async for _ in updates:
                pass
        assert [one.title for one in keeping.conversations(session, owner)] == [words] and reachable(words)
        chat.forget(session)

    asyncio.run(visit())
    assert archive._mover.flush(10)
    model.prompts.clear()
    assert reachable(words) == []
