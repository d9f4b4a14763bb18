"""What many tests share: the real embedded model, the real app as its own process, and browsers that visit it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from config import Settings
from model import ChatModel, load
from tests.browser import TIMEOUT, Site, Visit, Visiting, launch

ROOT = Path(__file__).parent.parent
START_SECONDS = 300  # the first start on a machine converts the model


@pytest.fixture(scope="session")
def embedded() -> ChatModel:
    """The real embedded model with our adapter."""
    return load(Settings(model_id="embedded"))


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def health(url: str) -> dict[str, str]:
    with urllib.request.urlopen(f"{url}health", timeout=5) as answer:
        found: dict[str, str] = json.load(answer)
        return found


@contextmanager
def running_app(
    log: IO[str], *program: str, port: int | None = None, ready: bool = True, **settings: str
) -> Iterator[str]:
    """Runs `python app.py`, or another program, and yields its address once its model is loaded."""
    port = port or free_port()
    environment = {**os.environ, "MODEL_ID": "embedded", "GRADIO_SERVER_PORT": str(port), **settings}
    command = [sys.executable, *(program or ("app.py",))]
    app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert app.poll() is None, f"the app ended with {app.returncode}"
            try:
                if not ready or health(url)["model"] != "loading":
                    health(url)
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield url
    finally:
        app.terminate()
        try:
            app.wait(20)
        except subprocess.TimeoutExpired:
            app.kill()
            app.wait()


@pytest.fixture(scope="session")
def app_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the app of `app_url` writes its log to."""
    return tmp_path_factory.mktemp("app") / "app.log"


@pytest.fixture(scope="session")
def app_url(app_log: Path) -> Iterator[str]:
    """Address of the real app with the real embedded model."""
    with app_log.open("w") as log, running_app(log, MAX_NEW_TOKENS="96") as url:
        yield url


@pytest.fixture(scope="session")
def talkative_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an app whose replies are long: they are stopped, or end by their length."""
    with (
        (tmp_path_factory.mktemp("talkative") / "app.log").open("w") as log,
        running_app(log, "-m", "tests.talkative", TEMPERATURE="0", PARALLEL_TURNS="1") as url,
    ):
        yield url


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    browser = launch(playwright)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def brief_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an app whose replies end after 12 tokens."""
    with (
        (tmp_path_factory.mktemp("brief") / "app.log").open("w") as log,
        running_app(log, MAX_NEW_TOKENS="12", MESSAGES_PER_MINUTE="100") as url,
    ):
        yield url


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visiting]:
    """Opens pages, each in a browser profile of its own, in Spain unless told otherwise."""
    with ExitStack() as stack:

        def opened(url: str = "", browser: Browser = chromium, **options: Any) -> Visit:
            context = browser.new_context(**{"locale": "es-ES", "viewport": {"width": 1100, "height": 800}, **options})
            stack.callback(context.close)
            context.set_default_timeout(TIMEOUT)
            return Visit(context, url)

        yield opened


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real filesystem of 1 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount the small filesystem")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)
