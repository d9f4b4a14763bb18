"""`python -m model`, and the host that loads in the background."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from config import Settings
from errors import ModelError
from model import ChatModel, host
from model.__main__ import check, inspect
from model.embedded import Progress
from model.host import Host
from tests.conftest import ROOT
from tests.fakes import FakeModel
from tests.services.hub import Hub, Repo
from tests.shapes import GATED, Shapes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    return Shapes(tmp_path_factory.mktemp("repositories"))


def command(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("base", "loads: its weights"),
        ("adapter", "(or BASE_MODEL_ID), then the adapter"),
        ("both-wrapped4", "loads: its own weights, then the adapter; the base is not needed"),
        ("both-merged4", "unless it is found merged into them"),
        ("gguf", "loads: the GGUF file, made dense"),
    ],
)
def test_a_shape_is_told_in_words(shapes: Shapes, name: str, told: str) -> None:
    lines = inspect(str(shapes.root / name), Settings())
    assert lines[0] == str(shapes.root / name)
    assert told in lines[-1]
    assert any(line.startswith("adapter: LORA, r=4, on q_proj, v_proj") for line in lines) == (
        name not in ("base", "gguf")
    )


def test_a_check_says_what_is_loaded_and_how_fast_it_speaks(shapes: Shapes) -> None:
    told = "\n".join(check(Settings(model_id=str(shapes.root / "both-wrapped4"), device="cpu")))
    for part in ("quantization:  nf4", "device:        cpu", "memory:        0.1", "tokens/s", "reply:"):
        assert part in told


def test_the_command_asks_the_hub_and_exits_with_the_reason(shapes: Shapes, tmp_path: Path) -> None:
    with Hub() as hub:
        hub.repos = {"us/whole": Repo(shapes.root / "both-wrapped4"), GATED: Repo(shapes.root / "base", gated=True)}
        at = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        told = command("--inspect", "us/whole", **at)
        assert (told.returncode, "saved through PEFT" in told.stdout) == (0, True)
        assert not [line for line in hub.log if "HEAD" in line and line.endswith(".safetensors")]
        good = command("--check", MODEL_ID="us/whole", DEVICE="cpu", **at)
        assert (good.returncode, f"revision:      {hub.repos['us/whole'].commit}" in good.stdout) == (0, True)
        bad = command("--check", MODEL_ID=GATED, DEVICE="cpu", **at)
        assert (bad.returncode, bad.stdout) == (1, "")
        assert bad.stderr.splitlines()[-1].startswith("gated_without_token: meta/gated is gated: accept its terms at")


class Tries:
    """A loader that fails with the codes that it is given, and then has a model."""

    def __init__(self, *codes: str) -> None:
        self.codes = list(codes)
        self.threads: list[str] = []

    def __call__(self, _progress: Progress) -> ChatModel:
        self.threads.append(threading.current_thread().name)
        if self.codes:
            raise ModelError(self.codes.pop(0), model="m")
        return cast(ChatModel, FakeModel())


def until(true: Callable[[], object]) -> bool:
    end = time.monotonic() + 5
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(true())


@pytest.mark.parametrize("passing", ["model_unreachable", "hub_busy"])
def test_what_may_pass_is_tried_again_by_itself(monkeypatch: pytest.MonkeyPatch, passing: str) -> None:
    monkeypatch.setattr(host, "FIRST_WAIT", 0.05)
    loaded = Host(Tries(passing, passing))
    loaded.start()
    assert until(lambda: loaded.model)
    assert loaded.error is None


def test_what_does_not_pass_is_tried_again_when_someone_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "FIRST_WAIT", 0.01)
    tries = Tries("adapter_mismatch")
    loaded = Host(tries)
    loaded.start()
    assert loaded.wait(5) is None
    time.sleep(0.2)
    assert loaded.error is not None and len(tries.threads) == 1
    loaded.start()
    assert until(lambda: loaded.model)


def test_a_lent_thread_does_all_the_loading() -> None:
    tries = Tries("model_not_found", "model_not_found")
    loaded = Host(tries, own_thread=False)
    assert not loaded.load()
    loaded.start()
    asker = threading.Timer(0.2, loaded.start)
    asker.start()
    loaded.work()
    assert loaded.model is not None
    assert tries.threads == ["MainThread"] * 3


def test_the_reason_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Host(Tries("revision_not_found")).load()
    (record,) = caplog.records
    assert record.getMessage().startswith("model not loaded: revision_not_found") and "\n" not in record.getMessage()
