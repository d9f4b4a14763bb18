"""What strangers try, and what is at rest: nobody reads, changes or breaks what is another's."""

import csv
import html.parser
import io
import json
import logging
import re
import time
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from markdown_it import MarkdownIt

from errors import RemansoError
from history import Archive, Conversation, Message, to_json, to_markdown, unpack
from tests.services.places import SALT, Place
from tests.test_history_archive import kept, said, settle, someone, texts

pytest_plugins = ["tests.services.places"]
INJECTIONS = [
    "'; DROP TABLE documents; --",
    '"); DELETE FROM documents WHERE ("1"="1',
    "%s %(owner)s {0} :owner",
    "\\'; \x00 UNION SELECT text FROM documents",
]


def test_nobody_opens_changes_or_deletes_what_is_another_s(place: Place) -> None:
    archive = place.archive()
    ana, bea = someone(archive), someone(archive)
    id = kept(archive, ana, "secreto", title="secreto")
    settle(archive)
    before = place.documents()[f"{ana}/{id}"]
    for attempt in (
        lambda: archive.open(bea, id),
        lambda: archive.rename(bea, id, "mío"),
        lambda: archive.ratings(bea, id),
    ):
        with pytest.raises(RemansoError, match="history_missing"):
            attempt()
    archive.rate(bea, id, before["messages"][0]["id"], False, "mío")
    assert archive.delete(bea, id).deleted == 0 and archive.delete_all(bea).deleted == 0
    assert archive.search(bea, "secreto") == [] and "secreto" not in archive.export_all(bea, "json", "es")
    settle(archive)
    assert place.documents()[f"{ana}/{id}"] == before


def test_writing_under_another_s_id_makes_a_conversation_of_one_s_own(place: Place) -> None:
    archive = place.archive()
    ana, bea = someone(archive), someone(archive)
    id = kept(archive, ana, "secreto")
    archive.record(bea, id, None, said("mío"))
    settle(archive)
    assert texts(archive, ana, id) == ["secreto"] and texts(archive, bea, id) == ["mío"]


def test_a_secret_cannot_be_guessed_and_cannot_be_told_from_what_is_stored(sqlite_place: Place) -> None:
    archive = sqlite_place.archive()
    secrets = {archive.new_secret() for _ in range(1000)}
    assert len(secrets) == 1000 and all(re.fullmatch(r"[\w-]{43}", secret) for secret in secrets)
    secret = secrets.pop()
    ana = archive.owner(secret=secret)
    archive.consent(ana, True)
    kept(archive, ana, "hola")
    settle(archive)
    assert secret.encode() not in sqlite_place.at_rest() and re.fullmatch("[0-9a-f]{64}", ana)
    other = Archive(sqlite_place.settings(history_salt="another salt, as long as the first one"))
    assert other.owner(secret=secret) != ana != archive.owner(secret=secrets.pop())
    assert archive.owner(login=secret) != ana  # a login and a secret of the same letters are two people
    other.close()


@pytest.mark.parametrize(
    "secret", [None, "", "a" * 42, "a" * 44, "a" * 42 + "/", "á" * 43, "a" * 42 + "\n", "../" * 14 + "a", 7, ["a" * 43]]
)
def test_what_is_no_secret_opens_nothing(sqlite_place: Place, secret: object) -> None:
    with pytest.raises(RemansoError, match="history_key"):
        sqlite_place.archive().owner(secret=secret)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "id", ["", "../../etc/passwd", "..", "a" * 31, "g" * 32, "A" * 32, "1" * 32 + "/", "1" * 32 + "\n", "person", "%2e"]
)
def test_an_id_that_is_none_leads_nowhere(place: Place, id: str) -> None:
    archive = place.archive()
    ana = someone(archive)
    for attempt in (
        lambda: archive.record(ana, id, None, said("a")),
        lambda: archive.open(ana, id),
        lambda: archive.rename(ana, id, "a"),
        lambda: archive.delete(ana, id),
        lambda: archive.rate(ana, id, "1" * 32, True),
        lambda: archive.rate(ana, "1" * 32, id, True),
    ):
        with pytest.raises(RemansoError, match="history_missing"):
            attempt()
    assert archive.consented(ana)  # the document that holds the consent was not hit either


@pytest.mark.parametrize("words", INJECTIONS)
def test_sql_and_formats_in_titles_and_messages_are_words(place: Place, words: str) -> None:
    archive = place.archive()
    ana = someone(archive)
    id = kept(archive, ana, words, title=words)
    archive.rename(ana, id, words)
    settle(archive)
    assert texts(archive, ana, id) == [words] and archive.search(ana, words)[0].id == id
    assert archive.summaries(ana)[0].title == words.replace("\x00", "").replace("  ", " ")


# Imports


def export(**changes: object) -> str:
    return json.dumps({**json.loads(to_json(Conversation(said("a", "b")))), **changes})


def row(**changes: object) -> str:
    rows = json.loads(export())["messages"]
    rows[0] |= changes
    return export(messages=rows)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "7", "[]", "{}", "{", "[" * 100_000, '{"a":' * 50_000, "\x00", "\ud800", "NaN", "1" * 10_000,
        export(schema="remanso.conversation/2"), export(schema=None), export(schema=["x"]), export(messages=None),
        export(messages={"0": 1}), export(messages=[1]), export(messages="ab"), row(role="system"), row(role=["user"]),
        row(time="gestern"), row(time=7), row(time="0001-01-01T00:00:00+14:00"), row(finish="exploded"), row(finish=[]),
        '{"schema": "remanso.conversations/1"}', '{"schema": "remanso.conversations/1", "conversations": [null]}',
        '{"schema": "remanso.conversations/1", "conversations": 9}', export(ratings=[{}]), export(ratings=7),
    ],
)  # fmt: skip
def test_a_malformed_import_is_refused_and_changes_nothing(sqlite_place: Place, text: str) -> None:
    archive = sqlite_place.archive()
    ana = someone(archive)
    with pytest.raises(RemansoError, match="import_bad"):
        archive.import_(ana, text)
    assert archive.summaries(ana) == []


def test_an_import_over_the_bounds_is_refused_in_no_time(sqlite_place: Place) -> None:
    archive = sqlite_place.archive()
    ana = someone(archive)
    one = json.dumps({"role": "user", "text": "a", "time": "2026-01-01T00:00:00+00:00"})
    million = f'{{"schema": "remanso.conversation/1", "messages": [{", ".join([one] * 1_000_000)}]}}'
    many = f'{{"schema": "remanso.conversation/1", "messages": [{", ".join([one] * 20_000)}]}}'
    empty = '{"schema": "remanso.conversation/1", "messages": []}'
    crowd = f'{{"schema": "remanso.conversations/1", "conversations": [{", ".join([empty] * 1000)}]}}'
    long = to_json(Conversation(said("a" * 200_000)))
    wide = to_json(Conversation(said(*["🙂" * 40_000] * 40)))  # few characters, many bytes
    for text in (million, many, crowd, long, wide):
        began = time.monotonic()
        with pytest.raises(RemansoError, match="import_large"):
            archive.import_(ana, text)
        assert time.monotonic() - began < 2
    assert archive.summaries(ana) == []


def test_an_import_chooses_no_ids_and_brings_no_control_characters(sqlite_place: Place) -> None:
    archive = sqlite_place.archive()
    ana, bea = someone(archive), someone(archive)
    id = kept(archive, ana, "a", "b")
    data = json.loads(archive.export_all(ana, "json", "es"))
    conversation = data["conversations"][0] | {"id": id, "owner": ana, "title": "x\x00\u202ey" + "z" * 900}
    conversation["messages"] = [
        {**one, "id": "7" * 32, "text": "a\x00\x1b[31m\u202eb\ud800"} for one in conversation["messages"]
    ]
    (summary,) = archive.import_(bea, json.dumps({**data, "conversations": [conversation]}))
    assert summary.id != id and len(summary.title) == 120 and texts(archive, ana, id) == ["a", "b"]
    messages = archive.open(bea, summary.id).messages
    assert [one.text for one in messages] == ["a[31mb", "a[31mb"] and len({one.id for one in messages}) == 2


# Exports

ACTIVE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</p><iframe src=//evil>", "<!-- -->", "<?php ?>",
    "![x](https://evil.example/pixel.png)", "![x][1]\n\n[1]: https://evil.example/p.png", "[x](javascript:alert(1))",
    "[x]( javascript:alert(1))", "[x](data:text/html,hola)", "[x][a]\n\n[a]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "<https://evil.example/?x>", "a\n  [b]: //evil.example 'x'",
]  # fmt: skip
FORMULAS = ["=1+1", "=cmd|' /C calc'!A0", "+1+1", "@SUM(A1)", "-2+3+cmd|' /C calc'!A0", "  =HYPERLINK(1)", "hola\n=1+1"]


class Tags(html.parser.HTMLParser):
    """Notes which tags and addresses a reader of Markdown would make."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag not in ("p", "h1", "strong", "em", "br", "code") else []
        self.found += [value for key, value in attrs if key in ("href", "src") and value]


@pytest.mark.parametrize("words", ACTIVE)
@pytest.mark.parametrize("title", [True, False])
def test_nothing_in_a_markdown_export_runs_or_loads(words: str, title: bool) -> None:
    conversation = Conversation([Message("user", words), Message("assistant", "b", aside=words)])
    text = to_markdown(conversation, "es", words if title else "")
    tags = Tags()
    tags.feed(MarkdownIt("commonmark", {"html": True}).render(text))  # the most permissive reader there is
    assert [tag for tag in tags.found if tag != "a"] == []


@pytest.mark.parametrize("words", FORMULAS)
def test_no_line_of_a_markdown_export_is_a_formula(words: str) -> None:
    text = to_markdown(Conversation([Message("user", words)]), "es", words)
    cells = [cell.strip() for line in csv.reader(io.StringIO(text), delimiter="\t") for cell in line]
    assert [cell for cell in cells if cell[:1] in ("=", "+", "@") or re.match(r"-\d", cell)] == []


def test_what_is_harmless_is_exported_as_it_is() -> None:
    words = "2 < 3, a <3 y [un enlace](https://example.org), tel: [024](tel:024)\n- una\n- dos\n\n---\n*sí*"
    assert words in to_markdown(Conversation([Message("user", words)]), "es")


# At rest


def test_with_a_key_nothing_readable_is_on_a_disk_or_in_a_store(place: Place) -> None:
    key = Fernet.generate_key().decode()
    archive = place.archive(history_key=key)
    ana = someone(archive)
    messages, id = [Message("user", "alpaca"), Message("assistant", "alpaca", aside="alpaca")], uuid4().hex
    archive.record(ana, id, "alpaca", messages)
    archive.rate(ana, id, messages[0].id, True, "alpaca")
    on_disk = place.at_rest()
    settle(archive)
    assert b"alpaca" not in on_disk + place.at_rest() and "alpaca" not in json.dumps(place.documents())
    again = place.archive(history_key=key)
    assert again.open(ana, id).messages == messages and again.summaries(ana)[0].title == "alpaca"
    assert again.search(ana, "ALPACA") and again.ratings(ana, id)[messages[0].id].word == "alpaca"


def test_a_new_key_in_front_opens_what_the_old_one_sealed(sqlite_place: Place) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    first = sqlite_place.archive(history_key=old)
    ana = someone(first)
    id = kept(first, ana, "alpaca")
    assert first.close(10)
    both = sqlite_place.archive(history_key=f"{new}, {old}")
    both.record(ana, id, None, [*both.open(ana, id).messages, *said("llama")])
    assert texts(both, ana, id) == ["alpaca", "llama"] and both.close(10)
    for keys in ("", new):
        with pytest.raises(RemansoError, match="history_locked"):
            sqlite_place.archive(history_key=keys).open(ana, id)


def test_nobody_can_pretend_that_a_text_is_sealed(sqlite_place: Place) -> None:
    archive = sqlite_place.archive(history_key=Fernet.generate_key().decode())
    ana = someone(archive)
    for mark in ("\x02fernet:abc", "\x02\x02fernet:x", "\x02"):
        id = kept(archive, ana, mark)
        assert texts(archive, ana, id) == [mark.lstrip("\x02")]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("history_key", "zu kurz"), ("history_salt", ""), ("history_salt", "short"), ("history_key", "x" * 44)],
)
def test_a_wrong_secret_stops_the_start_and_is_not_shown(sqlite_place: Place, setting: str, value: str) -> None:
    with pytest.raises(SystemExit, match=setting.upper()) as stopped:
        Archive(sqlite_place.settings(**{setting: value}))
    assert not value or value not in str(stopped.value)


def test_settings_show_no_secret(sqlite_place: Place) -> None:
    shown = repr(sqlite_place.settings(history_key="llave-secreta", history_url="postgresql://a:clave@b/c"))
    assert "llave-secreta" not in shown and SALT not in shown and "clave" not in shown


def test_what_is_wrong_with_a_document_is_told_without_its_words(
    sqlite_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    archive = sqlite_place.archive()
    ana = someone(archive)
    archive._write(ana, "turn", {"add": [{"text": "alpaca"}], "drop": []}, uuid4().hex, archive._person(ana).epochs[0])  # type: ignore[union-attr]
    archive._mover.flush(1)
    assert "cannot be" in caplog.text and "alpaca" not in caplog.text


def test_a_parcel_is_read_without_anything_being_kept() -> None:
    (parcel,) = unpack(to_json(Conversation(said("a"))))
    assert parcel.conversation.messages[0].text == "a" and parcel.title == ""
