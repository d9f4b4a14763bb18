"""Several replies at the same time: each says what it says alone, and none can spoil another's."""

import copy
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from config import Settings
from errors import ModelError
from history import Message
from model import ChatModel, Delta, Sampling, load, passes
from model.batch import BatchedModel, batchable
from model.engine import PREFILL_CHUNK
from model.prompt import encode
from tests import tiny
from tests.conftest import ROOT

SYSTEM = Message("system", "Eres una persona que escucha con calma.")
GREEDY = Sampling(temperature=0, max_new_tokens=16)
ENDLESS = Sampling(temperature=0, max_new_tokens=5000)
WAIT = 20.0
LEFT_SPEAKING = """
import threading, time
from model.batch import BatchedModel
from tests import tiny
from tests.test_batch import ENDLESS, TALKS
words = tiny.tokenizer()
model = tiny.llama(words, width=1024, endless=True)
chat, heard = BatchedModel(model, words, tiny.chat(model, words).describe(), 8192), []
threading.Thread(target=lambda: heard.extend(chat.stream(TALKS[0], ENDLESS)), daemon=True).start()
while not chat._passes._turns:
    time.sleep(0.01)
time.sleep(0.3)
"""


def talk(words: str) -> list[Message]:
    return [SYSTEM, Message("user", words)]


TALKS = [
    talk("Hoy me siento triste y no sé por qué."),
    talk("Hoy no pude dormir, y pensé en mi trabajo. " * 14),  # in more than one piece
    talk("¿Qué hago?"),
    [*talk("Estoy sola."), Message("assistant", "Te leo."), Message("user", "Desde ayer.")],
    [*talk("No sé."), Message("assistant", "Cuéntame ")],  # to be gone on with
    talk("Mi madre no me habla. " * 7),
]


def text(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def alone(chat: ChatModel, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Delta]:
    """Returns a reply as the engine for one person gives it, whatever `chat` is."""
    plain = ChatModel(chat._model, chat._tokenizer, chat.describe(), chat.context_length)
    return list(plain.stream(messages, sampling))


class Crowd:
    """People who are answered at the same time, each in a thread."""

    def __init__(self, chat: ChatModel) -> None:
        self.chat = chat
        self.replies: list[list[Delta]] = []
        self.problems: dict[int, BaseException] = {}
        self.stops: list[threading.Event] = []
        self.threads: list[threading.Thread] = []

    def ask(self, messages: Sequence[Message], sampling: Sampling = GREEDY, key: str | None = None) -> int:
        """Begins a reply and returns whose it is."""
        number, reply, stop = len(self.replies), list[Delta](), threading.Event()

        def run() -> None:
            try:
                for delta in self.chat.stream(messages, sampling, stop, conversation=key):
                    reply.append(delta)
            except BaseException as problem:
                self.problems[number] = problem

        self.replies.append(reply)
        self.stops.append(stop)
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        return number

    def speaks(self, number: int, pieces: int = 3) -> None:
        """Waits until a reply has some pieces of text."""
        until(lambda: sum(bool(delta.text) for delta in self.replies[number]) >= pieces)

    def wait(self) -> list[str]:
        """Waits for the end of all and returns what was said."""
        for thread in self.threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        return [text(reply) for reply in self.replies]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def passing() -> bool:
    """Whether a thread that makes passes is alive."""
    return any(thread.name == "passes" for thread in threading.enumerate())


class Held:
    """Holds the model's first pass until `go`, and notes the tokens of every pass."""

    def __init__(self, chat: ChatModel) -> None:
        self.passes: list[list[int]] = []
        self.go = threading.Event()
        self.hook = chat._model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _module: Any, _args: Any, options: dict[str, Any]) -> None:
        self.passes.append(options["input_ids"][0].tolist())
        assert self.go.wait(WAIT)


@pytest.fixture
def small() -> Iterator[BatchedModel]:
    """A random Llama in full precision; afterwards nothing of it runs any more."""
    words = tiny.tokenizer()
    yield BatchedModel(tiny.llama(words, endless=True), words, tiny.chat(tiny.llama(words), words).describe(), 8192)
    until(lambda: not passing())


@pytest.fixture
def sliding() -> BatchedModel:
    """A random Gemma 3 whose window is far shorter than what it reads."""
    torch.manual_seed(0)
    words = tiny.tokenizer(tiny.GEMMA)
    model: Any = Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=4, head_dim=16,
            num_attention_heads=4, num_key_value_heads=1, sliding_window=24, query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention"] * 2, eos_token_id=1, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return BatchedModel(model, words, tiny.chat(tiny.llama(words), words).describe(), 8192)


@pytest.mark.parametrize("which", ["small", "sliding"])
def test_each_says_what_they_would_say_alone(which: str, request: pytest.FixtureRequest) -> None:
    chat: BatchedModel = request.getfixturevalue(which)
    with tiny.reads(chat) as single:
        wanted = [alone(chat, messages) for messages in TALKS]
    assert len({text(reply) for reply in wanted}) == len(TALKS)
    crowd, held = Crowd(chat), Held(chat)
    for messages in TALKS:
        crowd.ask(messages)
    until(lambda: len(chat._passes._turns) == len(TALKS))
    held.go.set()
    assert crowd.wait() == [text(reply) for reply in wanted]
    held.hook.remove()
    assert [reply[-1].finish for reply in crowd.replies] == [reply[-1].finish for reply in wanted]
    assert len(held.passes) < 0.4 * len(single)


def test_each_has_their_own_sampling(small: BatchedModel) -> None:
    ways = [
        Sampling(temperature=1.2, top_p=0.9, max_new_tokens=20, seed=1),
        Sampling(temperature=1.2, top_p=0.9, max_new_tokens=20, seed=2),
        Sampling(temperature=0.3, top_p=0.5, max_new_tokens=9, seed=1),
        Sampling(temperature=0, repetition_penalty=1.8, max_new_tokens=20),
        Sampling(temperature=0, max_new_tokens=20),
    ]
    wanted = [text(alone(small, TALKS[0], sampling)) for sampling in ways]
    assert len(set(wanted)) == len(ways)
    crowd = Crowd(small)
    for sampling in ways:
        crowd.ask(TALKS[0], sampling)
    assert crowd.wait() == wanted


def test_a_conversation_is_kept_for_its_own_next_turn_alone(small: BatchedModel) -> None:
    crowd = Crowd(small)
    for number, messages in enumerate(TALKS):
        crowd.ask(messages, key=f"person {number}")
    said = crowd.wait()
    nexts = [[*messages, Message("assistant", words), Message("user", "¿Y ahora?")]
             for messages, words in zip(TALKS[:4], said, strict=False)]  # fmt: skip
    wanted = [text(alone(small, messages)) for messages in nexts]
    held = Held(small)
    held.go.set()
    crowd = Crowd(small)
    for number, messages in enumerate(nexts):
        crowd.ask(messages, key=f"person {number}")
    assert crowd.wait() == wanted
    held.hook.remove()
    prompts = [encode(small._tokenizer, messages) for messages in nexts]
    assert sum(map(len, held.passes)) < 0.5 * sum(map(len, prompts)) + 4 * GREEDY.max_new_tokens
    for number, prompt in enumerate(prompts):
        assert small._shelf.take(f"person {number}").ids[: len(prompt)] == prompt


def test_one_who_is_stopped_ends_within_a_token_and_the_others_go_on(small: BatchedModel) -> None:
    wanted = text(alone(small, TALKS[2], Sampling(temperature=0, max_new_tokens=80)))
    crowd = Crowd(small)
    stopped = crowd.ask(TALKS[0], ENDLESS)
    other = crowd.ask(TALKS[2], Sampling(temperature=0, max_new_tokens=80))
    crowd.speaks(stopped)
    before = len(crowd.replies[stopped])
    crowd.stops[stopped].set()
    assert crowd.wait()[other] == wanted
    assert crowd.replies[stopped][-1] == Delta("", "cancelled")
    assert len(crowd.replies[stopped]) - before <= 4  # what came between looking and stopping included


def test_one_who_waits_to_be_read_can_be_stopped(small: BatchedModel) -> None:
    crowd, held = Crowd(small), Held(small)
    first = crowd.ask(TALKS[0])
    until(lambda: bool(held.passes))
    second = crowd.ask(TALKS[1])
    until(lambda: bool(small._passes._waiting))
    crowd.stops[second].set()
    held.go.set()
    crowd.wait()
    held.hook.remove()
    assert crowd.replies[second] == [Delta("", "cancelled")]
    assert crowd.replies[first][-1].finish == "length"
    read = sum(map(len, held.passes))
    assert read == len(encode(small._tokenizer, TALKS[0])) + GREEDY.max_new_tokens - 1


def test_one_who_leaves_costs_nothing_further(small: BatchedModel) -> None:
    leaver = small.stream(TALKS[0], ENDLESS, conversation="mine")
    list(itertools.islice(leaver, 6))
    leaver.close()  # type: ignore[attr-defined]
    until(lambda: not passing())
    with tiny.reads(small) as calls:
        time.sleep(0.1)
        assert not calls
    assert text(list(small.stream(TALKS[0], GREEDY, conversation="mine"))) == text(alone(small, TALKS[0]))


def test_one_who_does_not_listen_holds_nobody_up(small: BatchedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "LEAST_LINGER", 0.5)
    deaf = small.stream(TALKS[0], ENDLESS)
    list(itertools.islice(deaf, 4))
    crowd = Crowd(small)
    crowd.ask(TALKS[2], Sampling(temperature=0, max_new_tokens=60))
    start = time.monotonic()
    crowd.wait()
    assert time.monotonic() - start < 10  # 30 s if each of its tokens were waited for
    deaf.close()  # type: ignore[attr-defined]


def failing(chat: BatchedModel, monkeypatch: pytest.MonkeyPatch, problem: Exception, *, mark: int) -> None:
    """Makes every pass fail half-way that has the token `mark` in it."""
    layer: Any = chat._model.model.layers[1].mlp
    whole, ids = layer.forward, list[int]()
    chat._model.register_forward_pre_hook(
        lambda _module, _args, options: ids.__setitem__(slice(None), options["input_ids"][0].tolist()), with_kwargs=True
    )

    def forward(*arguments: Any) -> Any:
        if mark in ids:
            raise problem
        return whole(*arguments)

    monkeypatch.setattr(layer, "forward", forward)


@pytest.mark.parametrize("kind", ["RuntimeError", "OutOfMemoryError"])
def test_one_that_cannot_be_read_fails_alone(small: BatchedModel, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    wanted = [text(alone(small, messages)) for messages in TALKS]
    problem = RuntimeError("shape") if kind == "RuntimeError" else torch.OutOfMemoryError("CUDA out of memory")
    failing(small, monkeypatch, problem, mark=small._tokenizer.get_vocab()["Z"])
    crowd = Crowd(small)
    for number, messages in enumerate(TALKS):
        crowd.ask(messages, key=f"person {number}")
    lost = crowd.ask(talk("Zas"), key="lost")
    assert crowd.wait()[:lost] == wanted
    assert list(crowd.problems) == [lost]
    found = crowd.problems[lost]
    assert isinstance(found, ModelError)
    assert found.code == ("reply_failed" if kind == "RuntimeError" else "out_of_memory")
    monkeypatch.undo()
    assert text(list(small.stream(talk("Zas"), GREEDY, conversation="lost"))) == text(alone(small, talk("Zas")))


def test_a_dead_thread_ends_its_replies_and_the_next_one_starts_another(
    small: BatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, held = Crowd(small), Held(small)
    numbers = [crowd.ask(messages, ENDLESS) for messages in TALKS[:3]]
    held.go.set()
    for number in numbers:
        crowd.speaks(number)

    def die(_reads: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(small._passes, "_do", die)
    crowd.wait()
    assert [(type(problem), problem.args[0]) for problem in crowd.problems.values()] == [
        (ModelError, "reply_failed")
    ] * 3
    monkeypatch.undo()
    held.hook.remove()
    assert text(list(small.stream(TALKS[0], GREEDY))) == text(alone(small, TALKS[0]))


@pytest.mark.parametrize("room", [PREFILL_CHUNK, 2 * PREFILL_CHUNK])
def test_who_comes_first_is_read_first(small: BatchedModel, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(passes, "PROMPT_TOKENS", room)
    letters, once = "JKQVWX", Sampling(temperature=0, max_new_tokens=1)
    crowd, held = Crowd(small), Held(small)
    crowd.ask(talk("Hola."), once)
    until(lambda: bool(held.passes))
    for number, letter in enumerate(letters):
        crowd.ask(talk(letter * (3 * PREFILL_CHUNK)), once)
        until(lambda number=number: len(small._passes._waiting) == number + 1)  # type: ignore[misc]
    held.go.set()
    crowd.wait()
    held.hook.remove()
    marks = [small._tokenizer.get_vocab()[letter] for letter in letters]
    last = [max(number for number, tokens in enumerate(held.passes) if mark in tokens) for mark in marks]
    assert last == sorted(last)
    assert len(set(last)) >= len(last) * PREFILL_CHUNK / room
    assert max(map(len, held.passes)) <= room


def test_a_long_prompt_does_not_silence_those_who_speak(small: BatchedModel) -> None:
    crowd = Crowd(small)
    speaker = crowd.ask(TALKS[2], ENDLESS)
    crowd.speaks(speaker)
    with tiny.reads(small) as reads:
        crowd.ask(talk("No sé qué hacer con mi vida. " * 90), Sampling(temperature=0, max_new_tokens=1))
        crowd.threads[1].join(WAIT)
    crowd.stops[speaker].set()
    crowd.wait()
    chunks = [tokens for tokens in reads if len(tokens) > 1]
    assert len(chunks) > 10
    assert sum(len(tokens) == PREFILL_CHUNK + 1 for tokens in chunks) > 0.6 * len(chunks)


def test_all_can_be_stopped_at_once_and_idle_nothing_runs(small: BatchedModel) -> None:
    crowd = Crowd(small)
    numbers = [crowd.ask(messages, ENDLESS) for messages in TALKS]
    for number in numbers:
        crowd.speaks(number)
    assert passing()
    start = time.monotonic()
    for stop in crowd.stops:
        stop.set()
    crowd.wait()
    assert time.monotonic() - start < 5
    assert {reply[-1].finish for reply in crowd.replies} == {"cancelled"}
    until(lambda: not passing())
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_a_process_that_ends_while_someone_is_answered_ends_well() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT_SPEAKING], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()[-500:]) == (0, "")


@pytest.mark.parametrize(("turns", "kind"), [(0, ChatModel), (1, ChatModel), (2, BatchedModel)])
def test_more_than_one_turn_at_a_time_is_computed_together(tmp_path: Path, turns: int, kind: type[ChatModel]) -> None:
    words = tiny.tokenizer()
    folder = tiny.repository(tmp_path / "model", tiny.llama(words), words)
    chat = load(Settings(model_id=str(folder), device="cpu", parallel_turns=turns))
    assert type(chat) is kind
    assert list(chat.stream(TALKS[0], GREEDY))[-1].finish in ("length", "stop")


def test_a_model_that_would_say_something_else_is_not_batched(
    small: BatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = small._model
    model.set_attn_implementation("sdpa")
    assert batchable(model)
    whole = model.forward
    # As in a model whose attention does not hear of the shares.
    monkeypatch.setattr(model, "forward", lambda **options: whole(**{**options, "shares": ()}))
    assert not batchable(model)
    monkeypatch.setattr(model, "forward", whole)
    model.config.layer_types = ["linear_attention", "full_attention"]
    assert not batchable(model)
    assert model.config._attn_implementation == "sdpa"


def test_the_embedded_model_says_to_many_what_it_says_to_one(embedded: ChatModel) -> None:
    """In float32, where two ways to the same sum choose the same token; one prompt is longer than the window."""
    model = load(Settings(model_id="embedded", device="cpu", quantization="none"))._model.float()
    chat = BatchedModel(model, embedded._tokenizer, embedded.describe(), embedded.context_length)
    assert batchable(model)
    talks = [TALKS[0], talk("Hoy no pude dormir, y pensé en mi trabajo, en mi madre y en el mar. " * 28)]
    assert len(encode(chat._tokenizer, talks[1])) > model.config.sliding_window + 16
    short = Sampling(temperature=0, max_new_tokens=5)
    wanted = [text(alone(chat, messages, short)) for messages in talks]
    crowd = Crowd(chat)
    for messages in talks:
        crowd.ask(messages, short)
    assert crowd.wait() == wanted


def test_the_embedded_model_in_use_chooses_nearly_what_it_would_alone(embedded: ChatModel) -> None:
    model = copy.deepcopy(embedded._model)
    assert batchable(model)
    chat = BatchedModel(model, embedded._tokenizer, embedded.describe(), embedded.context_length)
    crowd = Crowd(chat)
    for number, messages in enumerate(TALKS[:5]):
        crowd.ask(messages, Sampling(temperature=0, max_new_tokens=10), key=f"person {number}")
    crowd.wait()
    off = []
    for number, messages in enumerate(TALKS[:5]):
        ids, length = chat._shelf.take(f"person {number}").ids, len(encode(chat._tokenizer, messages))
        said = torch.arange(length - 1, len(ids) - 1)
        with torch.inference_mode():
            logits = embedded._model(input_ids=torch.tensor([ids]), logits_to_keep=said).logits[0].float()
        chosen = logits.gather(1, torch.tensor(ids[length:])[:, None])[:, 0]
        off.append(float((logits.amax(1) - chosen).max()))
    assert max(off) < 1.0  # of the order of bf16's rounding; a wrong mask gives several units
