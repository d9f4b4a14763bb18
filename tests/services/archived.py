"""The real server with a store of its own, that a test may kill and start again. Its model counts its replies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port, health

START_SECONDS = 120
SALT = "a salt for the tests, long enough"


class Server:
    """One process at a time on one port; what is kept lies in `folder`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.log, self.port = folder, folder / "log", free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.database = folder / "kept.db"
        self._settings = {
            "GRADIO_SERVER_PORT": str(self.port),
            "HOME": str(folder / "home"),
            "XDG_STATE_HOME": str(folder / "state"),
            "MESSAGES_PER_MINUTE": "1000",
            "PARALLEL_TURNS": "1",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def keeping(self) -> dict[str, str]:
        """Settings with which it keeps conversations."""
        return {"HISTORY_URL": f"sqlite:///{self.database}", "HISTORY_SALT": SALT}

    def start(self, *, kept: bool = True) -> "Server":
        """Returns when the server answers and its model is there."""
        settings = {**self._settings, **(self.keeping if kept else {})}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "tests.scripted"]
            self._process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            try:
                if health(self.url)["model"] == "ready":
                    return self
            except OSError:
                time.sleep(0.1)
        raise TimeoutError

    def kill(self) -> None:
        """Ends it in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Asks it to end, and returns its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self._process
        self._process.send_signal(how)
        status = self._process.wait(30)
        self._process = None
        return status


@pytest.fixture(scope="session")
def kept_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps conversations, in SQLite."""
    server = Server(tmp_path_factory.mktemp("kept")).start()
    yield server
    assert server.stop() == 0
