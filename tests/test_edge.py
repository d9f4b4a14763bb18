"""What the network may ask for: closed routes, headers, health, sizes, and when a visit is forgotten."""

import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import pytest
from gradio_client import Client

from edge import MAX_BODY
from tests.conftest import health, running_app
from visits import Visits


def get(url: str) -> "tuple[int, Message[str, str]]":
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/deep_link?session_hash=x",
        "?deep_link=x",
        "gradio_api/upload",
        "gradio_api/file=/etc/passwd",
        "gradio_api/openapi.json",
        "openapi.json",
        "docs",
        "monitoring",
        "monitoring/summary",
        "gradio_api/proxy=http://127.0.0.1",
    ],
)
def test_routes_that_a_chat_does_not_need_are_closed(app_url: str, path: str) -> None:
    assert get(app_url + path)[0] == 404


def test_the_page_carries_its_security_headers(app_url: str) -> None:
    status, headers = get(app_url)
    policy = headers["content-security-policy"]
    assert status == 200 and "default-src 'self'" in policy and "script-src-attr 'none'" in policy
    assert "connect-src 'self'" in policy and "frame-ancestors *" in policy
    assert headers["referrer-policy"] == "no-referrer" and headers["x-content-type-options"] == "nosniff"
    assert "HttpOnly" in headers["set-cookie"]


def test_health_says_that_the_model_is_ready(app_url: str) -> None:
    assert health(app_url)["status"] == "ok" and health(app_url)["model"] == "ready"


def test_a_body_that_is_too_large_is_refused(app_url: str) -> None:
    body = b"x" * (MAX_BODY + 1)
    request = urllib.request.Request(f"{app_url}gradio_api/queue/join", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60):
            pytest.fail("taken")
    except urllib.error.HTTPError as refused:
        assert refused.code == 413 and "grande" in refused.read().decode()
    except urllib.error.URLError as broken:
        assert "reset" in str(broken) or "pipe" in str(broken).lower()
    assert health(app_url)["status"] == "ok"


def test_the_first_browser_that_uses_a_session_is_the_only_one_that_may() -> None:
    visits = Visits()
    assert visits.admit("s", "ana") and visits.admit("s", "ana")
    assert not visits.admit("s", "luis") and not visits.admit("s", "")


def test_an_open_page_is_never_forgotten_and_a_closed_one_after_a_while() -> None:
    visits = Visits(grace=0.05)
    visits.admit("s", "")
    visits.opened("s")
    time.sleep(0.1)
    assert visits.left() == []
    visits.closed("s")
    assert visits.left() == []
    time.sleep(0.1)
    assert visits.left() == ["s"]


def test_a_session_in_the_middle_of_a_turn_is_forgotten_after_it_and_no_other_browser_gets_it() -> None:
    visits, asked = Visits(grace=0.05), list[str]()
    visits.admit("s", "ana")

    def forget(session: str) -> bool:
        asked.append(session)
        return len(asked) > 2  # busy twice

    visits.sweep(forget)
    while len(asked) < 2:
        time.sleep(0.01)
    assert not visits.admit("s", "luis") and visits.admit("s", "ana")
    time.sleep(0.5)
    assert asked == ["s"] * 3 and visits.admit("s", "luis")


def test_the_server_forgets_a_conversation_after_its_page_was_left(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, running_app(log, SESSION_GRACE_SECONDS="1") as url:
        client = Client(url, verbose=False)
        client.predict("Hola.", api_name="/chat")
        assert client.predict(api_name="/history")
        client.close()
        deadline = time.monotonic() + 20
        again = Client(url, verbose=False)
        again.session_hash, again.cookies = client.session_hash, client.cookies
        time.sleep(4)  # asking would keep the session alive
        while again.predict(api_name="/history"):
            assert time.monotonic() < deadline
            time.sleep(3)
