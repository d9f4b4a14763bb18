"""The engine: what it says, what it reads for it, and how it ends. Equalities are held in float32 and greedily."""

import itertools
import threading
from collections.abc import Generator, Sequence
from typing import Any

import pytest
import torch

from config import Settings
from errors import ModelError
from history import Message
from model import ChatModel, Delta, Sampling, load
from model.cache import Beginnings, CacheShelf, Kept, bytes_of
from model.engine import PREFILL_CHUNK
from model.prompt import beginning, encode
from model.sampling import choose
from tests import tiny

SYSTEM = Message("system", "Eres una persona que escucha con calma.")
SAD = Message("user", "Hoy me siento triste y no sé por qué.")
LONG = Message("user", "Hoy no pude dormir, y pensé en mi trabajo, en mi madre y en el mar. " * 35)
GREEDY = Sampling(temperature=0, max_new_tokens=7)
EMOJI = "👩‍🚀"


@pytest.fixture(scope="module")
def exact(embedded: ChatModel) -> ChatModel:
    """The real model in float32, where two ways to the same sum choose the same token."""
    model = load(Settings(model_id="embedded", device="cpu", quantization="none"))._model.float()
    return ChatModel(model, embedded._tokenizer, embedded.describe(), embedded.context_length)


@pytest.fixture
def small() -> ChatModel:
    """A random Llama with Llama-3's markers."""
    words = tiny.tokenizer()
    return tiny.chat(tiny.llama(words), words)


def say(chat: ChatModel, messages: Sequence[Message], sampling: Sampling = GREEDY, key: str | None = None) -> str:
    return "".join(delta.text for delta in chat.stream(messages, sampling, conversation=key))


def finish(chat: ChatModel, messages: Sequence[Message], sampling: Sampling = GREEDY) -> str | None:
    return list(chat.stream(messages, sampling))[-1].finish


def unlent(chat: ChatModel, prompt: list[int]) -> list[int]:
    """Returns what of a prompt every conversation reads for itself, once another has read the system prompt."""
    return prompt[len(beginning(chat._tokenizer, SYSTEM)) :]


def all_read(calls: list[list[int]]) -> list[int]:
    return list(itertools.chain(*calls))


def generated(chat: ChatModel, prompt: list[int], new: int) -> list[int]:
    """Returns what transformers' own generation says, greedily."""
    ids = torch.tensor([prompt])
    model: Any = chat._model
    ends = sorted(chat._ends)
    said = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, eos_token_id=ends
    )
    return [int(i) for i in said[0, len(prompt) :]]


@pytest.mark.parametrize("user", [SAD, LONG], ids=["short", "longer than the window"])
def test_a_greedy_reply_is_what_transformers_generates(exact: ChatModel, user: Message) -> None:
    prompt = encode(exact._tokenizer, [SYSTEM, user])
    assert user is SAD or len(prompt) > 512 + 64
    wanted = generated(exact, prompt, 7)
    say(exact, [SYSTEM, Message("user", "a")], Sampling(max_new_tokens=1))
    with tiny.reads(exact) as calls:
        text = say(exact, [SYSTEM, user])
    assert all_read(calls) == unlent(exact, prompt) + wanted[:-1]
    assert text == exact._tokenizer.decode(wanted, skip_special_tokens=True)


def test_the_model_in_use_chooses_nearly_what_the_exact_one_would(embedded: ChatModel, exact: ChatModel) -> None:
    with tiny.reads(embedded) as calls:
        say(embedded, [SYSTEM, LONG])
    ids = encode(embedded._tokenizer, [SYSTEM, LONG]) + all_read(calls)[-6:]
    with torch.inference_mode():
        logits = exact._model(input_ids=torch.tensor([ids]), logits_to_keep=7).logits[0, :-1]
    chosen = logits.gather(1, torch.tensor(ids[-6:])[:, None])[:, 0]
    assert (logits.amax(1) - chosen).max() < 1.0  # of the order of bf16's rounding; a wrong mask gives several units


def test_replies_with_and_without_a_kept_cache_are_equal(exact: ChatModel) -> None:
    first = [SYSTEM, SAD]
    alone = {1: say(exact, first)}
    second = [*first, Message("assistant", alone[1]), Message("user", "Sí, desde ayer.")]
    alone[2] = say(exact, second)
    third = [*second, Message("assistant", alone[2]), Message("user", "¿Y ahora qué hago?")]
    edited = [SYSTEM, Message("user", "Hoy me siento solo."), *second[2:]]
    alone |= {3: say(exact, third), 4: say(exact, edited)}
    turns = {1: first, 2: second, 3: third, 4: edited}
    for turn in (1, 2, 3, 4, 1, 1):  # the last two: undone, and tried again
        assert say(exact, turns[turn], key="kept") == alone[turn]
    exact.forget("kept")


def test_a_long_conversation_may_be_cropped_behind_the_window(exact: ChatModel) -> None:
    say(exact, [SYSTEM, LONG], key="long")
    shorter = [SYSTEM, Message("user", LONG.text[:400])]
    assert say(exact, shorter, key="long") == say(exact, shorter)
    exact.forget("long")


def test_the_second_turn_reads_only_what_is_new(exact: ChatModel) -> None:
    with tiny.reads(exact) as calls:
        text = say(exact, [SYSTEM, SAD], key="new")
        held = all_read(calls)
        calls.clear()
        second = [SYSTEM, SAD, Message("assistant", text), Message("user", "Sí, desde ayer.")]
        say(exact, second, key="new")
    prompt = unlent(exact, encode(exact._tokenizer, second))
    known = tiny.common(held, prompt) or tiny.common(unlent(exact, held), prompt)
    assert known >= len(unlent(exact, encode(exact._tokenizer, [SYSTEM, SAD]))) + 5
    assert calls[0] == prompt[known:]
    exact.forget("new")


@pytest.mark.parametrize("other", ["yours", "", None])
def test_a_cache_is_never_used_for_another_conversation(small: ChatModel, other: str | None) -> None:
    say(small, [SYSTEM, SAD], key="mine")
    with tiny.reads(small) as calls:
        say(small, [SYSTEM, SAD], key=other)
    prompt = unlent(small, encode(small._tokenizer, [SYSTEM, SAD]))
    assert all_read(calls)[: len(prompt)] == prompt


@pytest.mark.parametrize("in_use", [False, True])
def test_a_forgotten_conversation_is_read_anew(small: ChatModel, in_use: bool) -> None:
    say(small, [SYSTEM, SAD], key="mine")
    assert len(small._shelf) == 1
    small.forget("mine", in_use=in_use)
    assert len(small._shelf) == 0
    with tiny.reads(small) as calls:
        say(small, [SYSTEM, SAD], key="mine")
    assert calls[0] == unlent(small, encode(small._tokenizer, [SYSTEM, SAD]))[:PREFILL_CHUNK]


def test_a_system_prompt_is_read_once_for_all_and_nothing_else_of_a_prompt_is_shared(exact: ChatModel) -> None:
    first, second = [SYSTEM, Message("user", "Me llamo Eva.")], [SYSTEM, Message("user", "Me llamo Eva y vivo sola.")]
    fresh = ChatModel(exact._model, exact._tokenizer, exact.describe(), exact.context_length)
    with tiny.reads(fresh) as calls:
        say(fresh, first)
        say(fresh, second)
    whole, shared = encode(exact._tokenizer, first), len(beginning(exact._tokenizer, SYSTEM))
    assert 10 < shared < len(whole)
    prompts = [call for call in calls if len(call) > 1]
    assert prompts == [whole, unlent(fresh, encode(exact._tokenizer, second))]
    kept = fresh._shelf.take("nobody")
    fresh._beginnings.lend(kept, whole)
    assert kept.ids == whole[:shared]
    kept.cache.layers[0].keys.zero_()  # type: ignore[union-attr]
    assert say(fresh, second) == say(ChatModel(exact._model, exact._tokenizer, exact.describe(), 4096), second)


def test_as_many_system_prompts_are_held_as_there_is_room_for() -> None:
    held, ids = Beginnings(limit=2), {name: [number, number] for number, name in enumerate("abc")}
    for name in "abca":
        held.expect(name, lambda name=name: ids[name])  # type: ignore[misc]
        held.learn(Kept(kept(2).cache, [*ids[name]]))
    lent = {name: Kept() for name in "abc"}
    for name, one in lent.items():
        held.lend(one, [*ids[name], 9])
    assert [one.ids for one in lent.values()] == [ids["a"], [], ids["c"]]


def test_a_conversation_forgotten_while_it_is_answered_is_not_kept(small: ChatModel) -> None:
    reply = small.stream([SYSTEM, SAD], GREEDY, conversation="mine")
    next(reply)
    small.forget("mine", in_use=True)
    list(reply)
    assert len(small._shelf) == 0
    say(small, [SYSTEM, SAD], key="mine")
    assert len(small._shelf) == 1


def test_a_conversation_forgotten_before_a_word_was_read_is_kept_next_time(small: ChatModel) -> None:
    stop = threading.Event()
    stop.set()
    reply = small.stream([SYSTEM, SAD], GREEDY, stop, conversation="mine")
    small.forget("mine", in_use=True)
    list(reply)
    say(small, [SYSTEM, SAD], key="mine")
    assert len(small._shelf) == 1


def kept(length: int = 100) -> Kept:
    made = Kept(ids=list(range(length)))
    made.cache.update(torch.zeros(1, 1, length, 8), torch.zeros(1, 1, length, 8), 0)
    return made


def test_the_longest_unused_cache_goes_when_there_is_no_room() -> None:
    shelf = CacheShelf(2 * bytes_of(kept().cache))
    shelf.put("a", kept())
    shelf.put("b", kept())
    shelf.put("a", shelf.take("a"))
    shelf.put("c", kept())
    assert (len(shelf), shelf.bytes) == (2, 2 * bytes_of(kept().cache))
    assert [bool(shelf.take(key).ids) for key in "abc"] == [True, False, True]
    shelf.put("huge", kept(1000))
    assert len(shelf) == 0


def test_nobody_without_a_conversation_gets_a_kept_cache() -> None:
    shelf = CacheShelf()
    shelf.put("", kept())
    assert shelf.take(None).ids == []
    shelf.put(None, kept())
    assert shelf.take(None).ids == []


def test_stopped_before_it_begins_it_says_nothing(small: ChatModel) -> None:
    stop = threading.Event()
    stop.set()
    with tiny.reads(small) as calls:
        deltas = list(small.stream([SYSTEM, SAD], GREEDY, stop))
    assert [(delta.text, delta.finish) for delta in deltas] == [("", "cancelled")]
    assert not calls


def test_stopped_while_it_reads_it_ends_within_one_chunk(small: ChatModel) -> None:
    stop, calls = threading.Event(), itertools.count(1)

    def count(*_: Any) -> None:
        if next(calls) == 3:
            stop.set()

    hook = small._model.register_forward_pre_hook(count)
    deltas = list(small.stream([SYSTEM, LONG], GREEDY, stop, conversation="mine"))
    hook.remove()
    assert "".join(delta.text for delta in deltas) == ""
    assert deltas[-1].finish == "cancelled"
    assert next(calls) == 4
    assert say(small, [SYSTEM, LONG], key="mine") == say(small, [SYSTEM, LONG])


def test_stopped_while_it_speaks_it_ends_within_one_token(small: ChatModel) -> None:
    stop = threading.Event()
    reply = small.stream([SYSTEM, SAD], Sampling(temperature=0, max_new_tokens=50), stop)
    next(reply)
    next(reply)
    stop.set()
    with tiny.reads(small) as calls:
        rest = list(reply)
    assert len(calls) <= 1
    assert rest[-1].finish == "cancelled"
    assert len(rest) <= 2


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_a_closed_iterator_leaves_a_cache_that_can_be_used(small: ChatModel, pieces: int) -> None:
    reply = small.stream([SYSTEM, LONG], GREEDY, conversation="closed")
    list(itertools.islice(reply, pieces))
    with tiny.reads(small) as calls:
        assert isinstance(reply, Generator)
        reply.close()
        assert not calls
        found = say(small, [SYSTEM, LONG], key="closed")
    prompt = encode(small._tokenizer, [SYSTEM, LONG])
    assert all_read(calls)[: len(prompt) - pieces * PREFILL_CHUNK] == prompt[pieces * PREFILL_CHUNK :]
    assert found == say(small, [SYSTEM, LONG])


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_going_on_with_a_cut_reply_says_what_a_longer_one_says(exact: ChatModel, cut: int) -> None:
    whole = say(exact, [SYSTEM, SAD], Sampling(temperature=0, max_new_tokens=14))
    short = Sampling(temperature=0, max_new_tokens=cut)
    begun = say(exact, [SYSTEM, SAD], short, key="cut")
    assert finish(exact, [SYSTEM, SAD], short) == "length"
    rest = Sampling(temperature=0, max_new_tokens=14 - cut)
    assert begun + say(exact, [SYSTEM, SAD, Message("assistant", begun)], rest, key="cut") == whole
    exact.forget("cut")


def test_a_failure_leaves_no_half_read_cache(small: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    layer: Any = small._model.model.layers[1]
    whole, calls = layer.forward, itertools.count(1)

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise RuntimeError("no memory")
        return whole(*arguments, **options)

    monkeypatch.setattr(layer, "forward", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        say(small, [SYSTEM, LONG], key="mine")
    monkeypatch.undo()
    assert len(small._shelf) == 0
    assert say(small, [SYSTEM, LONG], key="mine") == say(small, [SYSTEM, LONG])


def test_a_seed_makes_a_reply_repeatable(small: ChatModel) -> None:
    def drawn(seed: int | None) -> str:
        return say(small, [SYSTEM, SAD], Sampling(temperature=1.5, top_p=1, max_new_tokens=20, seed=seed))

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(4)}) > 1
    assert len({drawn(None) for _ in range(4)}) > 1


def test_a_tiny_nucleus_and_no_temperature_are_greedy(small: ChatModel) -> None:
    nucleus = Sampling(temperature=1.5, top_p=1e-6, max_new_tokens=20)
    greedy = say(small, [SYSTEM, SAD], Sampling(temperature=0, max_new_tokens=20))
    assert say(small, [SYSTEM, SAD], nucleus) == greedy
    assert say(small, [SYSTEM, SAD], Sampling(temperature=1.5, top_p=1, max_new_tokens=20, seed=1)) != greedy


def test_only_the_nucleus_is_drawn_from() -> None:
    logits, generator = torch.tensor([0.6, 0.3, 0.1]).log(), torch.Generator().manual_seed(0)
    drawn = [choose(logits, Sampling(temperature=1, top_p=0.8), [], generator) for _ in range(300)]
    assert set(drawn) == {0, 1}
    assert 0.55 < drawn.count(0) / 300 < 0.78  # 2/3


@pytest.mark.parametrize(("logits", "penalised"), [([2.0, 1.9, 0.0], 1), ([-1.0, -1.1, -9.0], 1)])
def test_the_repetition_penalty_lowers_what_was_said(logits: list[float], penalised: int) -> None:
    generator = torch.Generator()
    assert choose(torch.tensor(logits), Sampling(temperature=0), [0, 0], generator) == 0
    assert choose(torch.tensor(logits), Sampling(temperature=0, repetition_penalty=1.2), [0, 0], generator) == penalised
    assert choose(torch.tensor(logits), Sampling(temperature=0, repetition_penalty=1.2), [2], generator) == 0


def test_a_penalised_reply_repeats_itself_less(small: ChatModel) -> None:
    with tiny.reads(small) as calls:
        say(small, [SYSTEM, SAD], Sampling(temperature=0, max_new_tokens=40))
        free = len(set(itertools.chain(*calls[-39:])))
        say(small, [SYSTEM, SAD], Sampling(temperature=0, max_new_tokens=40, repetition_penalty=2))
        assert len(set(itertools.chain(*calls[-39:]))) > free


def spelled(chat: ChatModel, text: str) -> list[int]:
    """Returns the byte tokens of a text."""
    names = [f"<0x{byte:02X}>" for byte in text.encode()]
    if names[0] in chat._tokenizer.get_vocab():
        return [chat._tokenizer.get_vocab()[name] for name in names]
    return [int(i) for i in chat._tokenizer(text, add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize("which", ["embedded", "small"])
def test_a_character_in_pieces_is_shown_only_when_it_is_whole(which: str, request: pytest.FixtureRequest) -> None:
    chat: ChatModel = request.getfixturevalue(which)
    said = spelled(chat, f"ñ{EMOJI}é") + spelled(chat, EMOJI)[:2]
    with tiny.saying(chat, said):
        prompt = [Message("user", "hola")]
        pieces = [delta.text for delta in chat.stream(prompt, Sampling(temperature=0, max_new_tokens=len(said)))]
    assert not [piece for piece in pieces if "\ufffd" in piece]
    assert "".join(pieces) == f"ñ{EMOJI}é"
    assert len([piece for piece in pieces if piece]) >= len(f"ñ{EMOJI}é") - 1


@pytest.mark.parametrize("end", ["<|eot_id|>", "<|end_of_text|>"])
def test_either_end_of_llama_3_ends_the_reply(small: ChatModel, end: str) -> None:
    mark = small._tokenizer.get_vocab()[end]
    with tiny.saying(small, [*spelled(small, "sí"), mark, *spelled(small, "no")]):
        deltas = list(small.stream([Message("user", "hola")], GREEDY))
    assert "".join(delta.text for delta in deltas) == "sí"
    assert deltas[-1].finish == "stop"


def test_memory_that_runs_out_in_a_reply_ends_it_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    words = tiny.tokenizer()
    chat = tiny.chat(tiny.llama(words), words)
    asked = Sampling(temperature=0, max_new_tokens=6)
    list(chat.stream([Message("user", "antes")], asked, conversation="another"))
    assert len(chat._shelf) == 1
    forward, calls = chat._forward, iter(range(100))

    def fail(ids: list[int], kept: Kept) -> torch.Tensor:
        if next(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(ids, kept)

    monkeypatch.setattr(chat, "_forward", fail)
    said: list[Delta] = []
    with pytest.raises(ModelError) as caught:
        said += chat.stream([Message("user", "hola")], asked, conversation="mine")
    assert caught.value.code == "out_of_memory"
    assert not chat._shelf.take("another").ids
    assert list(chat.stream([Message("user", "hola")], asked, conversation="mine"))[-1].finish in ("length", "stop")
