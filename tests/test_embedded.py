"""The embedded model's base: made once, checked, and never left half made; and the model in fewer bits."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from config import Settings
from errors import ModelError
from history import Message
from model import Sampling, embedded, load

ROOT = Path(__file__).parent.parent
MISSING = """
import sys
from pathlib import Path
import model.embedded
from errors import ModelError
model.embedded.PACKAGE = "no_such_package"
try:
    model.embedded.ensure_base(Path(sys.argv[1]))
except ModelError as problem:
    print(problem.code, problem.values["package"])
"""


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replaces the conversion by a quick one, and lists the folders that it made."""
    made: list[Path] = []

    def build(folder: Path, _progress: embedded.Progress) -> None:
        made.append(folder)
        time.sleep(0.3)
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"w" * 1000)
        written = {"source": embedded.GGUF_SHA256, "sizes": {"model.safetensors": 1000}}
        (folder / "complete.json").write_text(json.dumps(written))

    monkeypatch.setattr(embedded, "_build", build)
    return made


def left(cache: Path) -> list[str]:
    """Returns the files in a cache that are not locks."""
    return [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_checksum_is_that_of_the_package() -> None:
    digest = sha256()
    for block in embedded._blocks(embedded._parts()):
        digest.update(block)
    assert digest.hexdigest() == embedded.GGUF_SHA256


def test_a_damaged_part_is_refused_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = embedded._parts()
    damaged = tmp_path / "part"
    content = bytearray(parts[-1].read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(embedded, "_parts", lambda: [*parts[:-1], damaged])
    with pytest.raises(ModelError) as caught:
        embedded.ensure_base(tmp_path / "cache")
    assert (caught.value.code, caught.value.values) == ("model_corrupt", {"file": embedded.GGUF_NAME})
    assert left(tmp_path / "cache") == []


def test_without_package_and_hub_the_model_is_missing(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", MISSING, str(tmp_path / "cache")]
    run = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.stdout.split() == ["model_missing", "no-such-package"], run.stderr[-2000:]
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("needed", [embedded.NEEDED_BYTES, 0], ids=["seen before", "seen while writing"])
def test_a_full_disk_is_told_and_nothing_is_left(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, needed: int
) -> None:
    monkeypatch.setattr(embedded, "NEEDED_BYTES", needed)
    with pytest.raises(ModelError) as caught:
        embedded.ensure_base(small_disk)
    assert caught.value.code == "disk_full"
    assert caught.value.values["folder"] == str(small_disk)
    assert left(small_disk) == []


def test_a_whole_cache_is_not_made_again(tmp_path: Path, builds: list[Path]) -> None:
    folder = embedded.ensure_base(tmp_path)
    assert embedded.ensure_base(tmp_path) == folder
    assert builds == [folder]


@pytest.mark.parametrize("name", ["model.safetensors", "complete.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, builds: list[Path], name: str, damage: str) -> None:
    folder = embedded.ensure_base(tmp_path)
    if damage == "truncated":
        os.truncate(folder / name, (folder / name).stat().st_size - 1)
    else:
        (folder / name).unlink()
    embedded.ensure_base(tmp_path)
    assert len(builds) == 2
    assert (folder / "model.safetensors").stat().st_size == 1000


def test_two_that_start_at_once_convert_once(tmp_path: Path, builds: list[Path]) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(embedded.ensure_base(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert found == builds * 3


def test_a_conversion_that_was_cut_off_is_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "gemma-3-270m" / f"{embedded.RECIPE}.partial"
    stale.mkdir(parents=True)
    (stale / embedded.GGUF_NAME).write_bytes(b"half")

    def no_parts() -> list[Path]:
        raise ModelError("model_missing")

    monkeypatch.setattr(embedded, "_parts", no_parts)
    with contextlib.suppress(ModelError):
        embedded.ensure_base(tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize(("quantization", "share"), [("nf4", 0.8), ("int8", 0.9)])
def test_in_fewer_bits_it_takes_less_memory_and_still_speaks(quantization: str, share: float) -> None:
    chat = load(Settings(model_id="embedded", quantization=quantization, device="cpu"))
    found = chat.describe()
    whole = load(Settings(model_id="embedded", quantization="none", device="cpu")).describe()
    print(f"{quantization}: {found.memory / 1e6:.0f} MB, bf16: {whole.memory / 1e6:.0f} MB")
    assert (found.quantization, whole.quantization) == (quantization, "none")
    assert found.memory < share * whole.memory
    assert {type(module).__name__ for module in chat._model.modules()} & {"Linear4bit", "Linear8bitLt"}
    assert [name for name, _ in chat._model.named_parameters() if "lora_" in name]
    messages = [Message("system", "Escuchas con calma."), Message("user", "Hoy estoy triste.")]
    deltas = list(chat.stream(messages, Sampling(temperature=0, max_new_tokens=8)))
    assert len("".join(delta.text for delta in deltas).split()) >= 3
    assert deltas[-1].finish in ("length", "stop")


class OneFileHub(BaseHTTPRequestHandler):
    """Serves one file under the address that the Hub would."""

    content = b"GGUF from the Hub"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()
        self.wfile.write(self.content)

    def answer(self) -> None:
        known = self.path == f"/{embedded.HUB_REPO}/resolve/main/{embedded.GGUF_NAME}"
        self.send_response(200 if known else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{sha256(self.content).hexdigest()}"')
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_without_the_package_the_same_file_comes_from_the_hub(tmp_path: Path) -> None:
    hub = ThreadingHTTPServer(("127.0.0.1", 0), OneFileHub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    code = (
        "import sys; from pathlib import Path; from model import embedded\n"
        "embedded.find_spec = lambda name: None\n"
        "embedded.GGUF_SHA256 = sys.argv[2]\n"
        "embedded._assemble(Path(sys.argv[1]), embedded.unheard)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "hf")}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", code, str(tmp_path / "whole"), sha256(OneFileHub.content).hexdigest()]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120, capture_output=True)
    hub.shutdown()
    hub.server_close()
    assert (tmp_path / "whole").read_bytes() == OneFileHub.content
