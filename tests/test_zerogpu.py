"""The app as on ZeroGPU: the real `spaces` package, a stand-in scheduler, and a real 4-bit model with its adapter."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client

from config import Settings
from history import Message
from model import Sampling, load, zerogpu
from sentences import Language, say
from tests.conftest import ROOT, free_port, health
from tests.services.gpus import Answer, Gpus
from tests.services.hub import Hub, Repo
from tests.shapes import GATED, Shapes

LONG = 3000  # tokens of a reply: some seconds


@dataclass
class Space:
    """A running app, its scheduler, and what was written to its log."""

    url: str
    gpus: Gpus
    log: Path

    def client(self, language: Language = "es", person: str = "") -> Client:
        headers = {"Accept-Language": language, **({"x-ip-token": token(person)} if person else {})}
        return Client(self.url, headers=headers, verbose=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    return Shapes(tmp_path_factory.mktemp("repositories"))


@contextmanager
def space(folder: Path, **settings: str) -> Iterator[Space]:
    """Runs the app as on ZeroGPU."""
    folder.mkdir(exist_ok=True)
    (folder / "cgroup").write_text("0::/space\n")
    log, port = folder / "app.log", free_port()
    with Gpus() as gpus, log.open("w") as file:
        environment = {
            **os.environ,
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": gpus.url,
            "ZEROGPU_OFFLOAD_DIR": str(folder / "offload"),
            "ZEROGPU_PROC_SELF_CGROUP_PATH": str(folder / "cgroup"),
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "GRADIO_SERVER_PORT": str(port),
            "TEMPERATURE": "0",
            "MAX_NEW_TOKENS": str(LONG),
            **settings,
        }
        program = [sys.executable, "tests/services/zerogpu_app.py"]
        app = subprocess.Popen(program, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
        found = Space(f"http://127.0.0.1:{port}/", gpus, log)
        try:
            assert wait(lambda: app.poll() is not None or answers(found.url), 120)
            assert app.poll() is None, log.read_text()[-2000:]
            yield found
        finally:
            os.killpg(app.pid, signal.SIGKILL)  # the workers too, which outlive the process that forked them
            app.wait(20)


@pytest.fixture(scope="module")
def running(shapes: Shapes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    with space(tmp_path_factory.mktemp("space"), MODEL_ID=str(shapes.root / "both-wrapped4")) as found:
        yield found


@pytest.fixture
def zero(running: Space) -> Space:
    """The running app, with the scheduler's log emptied once its GPU is free."""
    assert wait(lambda: not running.gpus.lent)
    running.gpus.answers.clear()
    running.gpus.log.clear()
    return running


def answers(url: str) -> bool:
    with suppress(OSError):
        return bool(health(url))
    return False


def wait(true: Callable[[], Any], seconds: float = 60) -> bool:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def token(person: str) -> str:
    """Returns what Hugging Face's proxy adds to a person's requests."""
    payload = base64.urlsafe_b64encode(json.dumps({"user": person}).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"


def cancel(job: Any) -> None:
    with suppress(Exception):  # the client's own five seconds for a cancellation
        job.cancel()


def last(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.predict(api_name="/history")[-1]
    return found


def error_of(client: Client, words: str = "hola") -> str:
    with pytest.raises(Exception) as caught:
        client.predict(words, api_name="/chat")
    return str(caught.value)


def test_weights_are_packed_and_a_reply_comes_from_a_worker(zero: Space, shapes: Shapes) -> None:
    text = zero.client().predict("hola", api_name="/chat")
    assert [line["what"] for line in zero.gpus.log] in (["schedule", "allow", "release"], ["schedule", "release"])
    assert zero.gpus.said("release")[0]["fail"] == "false"
    plain = load(Settings(model_id=str(shapes.root / "both-wrapped4"), device="cpu"))
    for module in plain._model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - the worker's weights are not repacked
    prompt = [Message("system", say("es", "model.system")), Message("user", "hola")]
    wanted = "".join(delta.text for delta in plain.stream(prompt, Sampling(temperature=0, max_new_tokens=12)))
    assert text[:5] == wanted[:5]  # later ones may be ties, which the worker's kernels break in another way


def test_the_weights_are_there_before_the_page(running: Space) -> None:
    log = running.log.read_text()
    assert log.index("model ready") < log.index("Remanso: http")
    assert "quantization='nf4', device='cuda'" in log
    assert health(running.url)["model"] == "ready"


def test_the_gpu_is_asked_for_as_long_as_the_reply_may_take(zero: Space) -> None:
    for _ in range(2):
        job = zero.client().submit("hola", api_name="/chat")
        assert wait(lambda job=job: len("".join(job.outputs()[-1:])) > 8 * zerogpu.SHORTEST)  # type: ignore[misc]
        cancel(job)
        assert wait(lambda: not zero.gpus.lent)
    asked = int(zero.gpus.said("schedule")[-1]["durationSeconds"])
    unmeasured = 8 + LONG / (zerogpu.SLACK * zerogpu.FIRST_PACE)
    assert 8 + LONG / 2000 < asked < 0.9 * unmeasured  # the pace of the reply before is counted on


def test_the_duration_follows_the_measured_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Sampling(max_new_tokens=256)
    monkeypatch.setattr(zerogpu, "_pace", [10.0])
    slow = zerogpu.seconds([1] * 1000, asked)
    monkeypatch.setattr(zerogpu, "_pace", [100.0])
    assert (slow, zerogpu.seconds([1] * 1000, asked)) == (47, 14)
    assert zerogpu.seconds([1] * 3000, asked) == 18
    assert zerogpu.seconds([1], Sampling(max_new_tokens=32)) < 10


def test_a_stop_ends_the_work_and_keeps_what_was_said(zero: Space) -> None:
    client = zero.client()
    job = client.submit("hola", api_name="/chat")
    assert wait(lambda: len(job.outputs()) > 2)
    began = time.monotonic()
    cancel(job)
    assert wait(lambda: zero.gpus.said("release"))
    assert time.monotonic() - began < 3
    assert wait(lambda: last(client)["finish"] == "cancelled")
    assert last(client)["text"]


def test_a_stop_during_a_long_prompt_holds_nobody_up(zero: Space) -> None:
    job = zero.client().submit("una frase larga. " * 55, api_name="/chat")
    assert wait(lambda: zero.gpus.said("schedule"))
    slowest = _slowest_answer(zero, lambda: cancel(job), lambda: bool(zero.gpus.said("release")))
    assert slowest < 2.0


def _slowest_answer(zero: Space, do: Callable[[], None], until: Callable[[], bool]) -> float:
    """Returns the longest that another request took while something was done."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            health(zero.url)
            took.append(time.monotonic() - began)
            time.sleep(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        do()
        assert wait(until)
    finally:
        over.set()
        asking.join()
    return max(took)


def test_a_stop_while_waiting_for_a_gpu_leaves_the_queue(zero: Space) -> None:
    zero.gpus.answers = [Answer("queue", pings=100)]
    client = zero.client()
    job = client.submit("hola", api_name="/chat")
    assert wait(lambda: zero.gpus.said("schedule"))
    time.sleep(0.5)
    cancel(job)
    assert wait(lambda: zero.gpus.said("left the queue"), 10)
    assert not zero.gpus.said("allow") and not zero.gpus.said("release")
    assert client.predict(api_name="/history")[0]["text"] == "hola"


def test_a_client_that_dies_while_waiting_leaves_the_queue(zero: Space) -> None:
    zero.gpus.answers = [Answer("queue", pings=200)]
    program = f"from gradio_client import Client; Client({zero.url!r}, verbose=False).predict('hola', api_name='/chat')"
    person = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    assert wait(lambda: zero.gpus.said("schedule"), 30)
    time.sleep(1)  # its stream of events is open by then: what Gradio sees end
    person.kill()
    person.wait()
    assert wait(lambda: zero.gpus.said("left the queue"), 30)


def test_who_waits_for_a_gpu_gets_it(zero: Space) -> None:
    zero.gpus.answers = [Answer("queue", pings=3)]
    assert zero.client().predict("hola", api_name="/chat")
    assert "Waiting for a GPU" not in zero.log.read_text()  # said by the page, in the person's language


@pytest.mark.parametrize("language", ["es", "en"])
@pytest.mark.parametrize(
    ("answer", "person", "told"),
    [
        (Answer("quota", wait=3600), "ana", ("gpu_quota", "1 h 0 min")),
        (Answer("quota", wait=90, auth="regular"), "ana", ("gpu_quota", "2 min")),
        (Answer("quota", wait=93600, auth="pro"), "ana", ("gpu_quota", "26 h 0 min")),
        (Answer("quota", wait=3600), "", ("gpu_shared_quota", "")),
        (Answer("quota", wait=0, auth="regular"), "ana", ("gpu_runs", "")),
        (Answer("quota", wait=5, approve="pending-overquota-exceeded", auth="pro"), "ana", ("gpu_runs", "")),
        (Answer("quota", wait=-1, auth="regular"), "ana", ("gpu_duration", "")),
        (Answer("status", code=503), "", ("gpu_busy", "")),
        (Answer("status", code=500), "", ("gpu_busy", "")),
        (Answer("status", code=401), "ana", ("gpu_token", "")),
        (Answer("queue", final="failed"), "ana", ("gpu_busy", "")),
        (Answer("queue", final="failed"), "", ("gpu_busy", "")),
    ],
)
def test_a_refusal_is_told_in_the_persons_language_and_nothing_is_lost(
    zero: Space, answer: Answer, person: str, told: tuple[str, str], language: Language
) -> None:
    zero.gpus.answers = [answer]
    client = zero.client(language, person)
    sentence = say(language, f"error.{told[0]}", wait=told[1])
    assert sentence in error_of(client)
    words, reply = client.predict(api_name="/history")
    assert words["text"] == "hola"
    assert (reply["text"], reply["finish"]) == ("", "error")
    assert sentence in reply["aside"]


def test_a_gpu_taken_back_in_the_middle_keeps_the_partial_reply(zero: Space) -> None:
    client = zero.client()
    job = client.submit("hola", api_name="/chat")
    assert wait(job.outputs)
    zero.gpus.take_back()
    assert wait(job.done)
    assert say("es", "error.gpu_aborted") in str(job.exception())
    assert last(client)["finish"] == "error" and last(client)["text"]
    assert client.predict("sigue", api_name="/chat")
    assert last(client)["finish"] != "error"


def test_each_person_spends_their_own_quota(zero: Space) -> None:
    for person in ("ana", "luis", ""):
        zero.gpus.answers = [Answer("status")]
        error_of(zero.client(person=person))
    spent = [line.get("token") for line in zero.gpus.said("schedule")]
    assert spent == [token("ana"), token("luis"), None]


def test_a_reused_worker_keeps_nothing_of_the_person_before(zero: Space) -> None:
    def first_words() -> str:
        job = zero.client().submit("hola", api_name="/chat")
        assert wait(job.outputs)
        said: str = job.outputs()[0]
        cancel(job)
        assert wait(lambda: not zero.gpus.lent)
        return said[:8]

    before = first_words()
    zero.gpus.log.clear()
    job = zero.client().submit("algo muy distinto que nadie más ha de ver", api_name="/chat")
    assert wait(job.outputs)
    cancel(job)
    assert wait(lambda: not zero.gpus.lent)
    assert first_words() == before
    assert not zero.gpus.said("allow")  # the same worker went on
    assert [line["durationSeconds"] for line in zero.gpus.said("schedule")]


def test_several_people_wait_and_all_are_answered(zero: Space) -> None:
    jobs = [zero.client().submit(f"hola {number}", api_name="/chat") for number in range(3)]
    assert wait(lambda: all(job.done() for job in jobs), 180)
    assert all(job.result() for job in jobs)
    assert len(zero.gpus.said("release")) == 3


def test_no_word_of_a_person_is_in_the_log(running: Space) -> None:
    log = running.log.read_text()
    assert "una frase larga" not in log and "algo muy distinto" not in log


def test_a_model_that_was_refused_at_the_start_is_loaded_later(shapes: Shapes, tmp_path: Path) -> None:
    with Hub() as hub:
        hub.repos[GATED] = Repo(shapes.root / "both-wrapped4", gated=True)
        settings = {"HF_ENDPOINT": hub.url, "MODEL_ID": GATED, "MAX_NEW_TOKENS": "8", "HF_HOME": str(tmp_path / "hf")}
        with space(tmp_path / "space", **settings) as found:
            client = found.client()
            assert say("es", "error.gated_without_token", model=GATED) in error_of(client)
            hub.repos[GATED].gated = False
            assert wait(lambda: _replies(client), 60)
            assert client.predict(api_name="/history")[0]["text"] == "hola"
            assert "gated_without_token" in found.log.read_text()


def _replies(client: Client) -> bool:
    with suppress(Exception):
        return bool(client.predict("¿y ahora?", api_name="/chat"))
    return False


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("OutOfMemoryError", "out_of_memory"),
        ("GPU task aborted", "gpu_aborted"),
        ("No GPU was available", "gpu_busy"),
        ("ValueError", "reply_failed"),
    ],
)
def test_what_a_worker_raises_is_known_by_its_words(said: str, code: str) -> None:
    assert zerogpu._explained(gr.Error(said)).code == code


@pytest.mark.parametrize(
    ("wait_text", "shown"),
    [("0:00:30", "1 min"), ("0:59:00", "59 min"), ("1:00:00", "1 h 0 min"), ("1 day, 2:03:04", "26 h 4 min")],
)
def test_a_wait_is_shown_in_hours_and_minutes(wait_text: str, shown: str) -> None:
    assert zerogpu._clock(wait_text) == shown
