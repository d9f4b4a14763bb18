"""Who logs in with Hugging Face finds their conversations on any device: Gradio's own login against a stand-in."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import Visit, Visiting
from tests.services.archived import Server
from tests.services.provider import Provider
from tests.test_keeping import consent, kept, panel, press, titles


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.close()


@pytest.fixture
def space(tmp_path: Path, provider: Provider) -> Iterator[Server]:
    server = Server(tmp_path, **provider.settings).start()
    yield server
    server.stop()


def log_in(me: Visit) -> None:
    press(me, "Entrar con Hugging Face")
    me.page.wait_for_url(re.compile(r"^http://127.0.0.1:\d+/(\?|$)"))
    expect(me.box).to_be_editable()
    expect(panel(me)).to_contain_text("ana")


def test_a_login_finds_the_conversations_of_another_device_and_shows_them_to_no_other_person(
    space: Server, provider: Provider, visit: Visiting
) -> None:
    laptop, phone, stranger = visit(space.url), visit(space.url), visit(space.url)
    log_in(laptop)
    press(laptop, "Cerrar")
    consent(laptop)
    laptop.ask("Hoy llueve", rows=2)
    kept(laptop)
    assert titles(phone) == []
    log_in(phone)
    assert titles(phone) == ["Hoy llueve"]
    provider.person = {**provider.person, "sub": "another", "preferred_username": "mariana"}
    log_in(stranger)
    assert titles(stranger) == []
    press(phone, "Salir de la cuenta")
    expect(phone.box).to_be_editable()
    assert titles(phone) == []
    assert "hf_oauth_token" not in space.log.read_text()
    assert b"6032802e1f993496bc14d9e3" not in space.database.read_bytes()
