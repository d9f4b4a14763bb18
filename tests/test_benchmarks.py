"""The benchmarks of the 8B: their arithmetic against real tensors, and their program on a toy, on the CPU."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import engines, gpu, memory, page, watch
from benchmarks.__main__ import written
from benchmarks.people import gradio, together
from config import Settings
from history import Message
from model import ChatModel, Sampling, load
from model.cache import full_length_cache
from model.weights import held_bytes
from tests import tiny
from tests.conftest import ROOT

TOY = memory.shape(layers=2, width=256)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama, wide enough that its matrices are most of it."""
    words = tiny.tokenizer()
    return tiny.repository(tmp_path_factory.mktemp("wide"), tiny.llama(words, width=256), words)


@pytest.fixture(scope="module")
def toy() -> ChatModel:
    return gpu.build(TOY, gpu.VARIANTS["nf4"], "cpu")


def bench(config: Any = TOY, **changed: Any) -> gpu.Bench:
    how: dict[str, Any] = {"prompts": [200], "new_tokens": 4, "rounds": 2, "bandwidth": 10.0}
    return gpu.Bench(config, "cpu", sizes=memory.sizes(TOY), **(how | changed))


def inside(thing: object) -> Iterator[Tensor]:
    """Yields every tensor in an object's attributes, and in those of its quantization state."""
    for part in vars(thing).values():
        if isinstance(part, Tensor):
            yield part
        elif type(part).__name__ == "QuantState":
            yield from inside(part)


def tensors(model: Any) -> Iterator[Tensor]:
    yield from model.buffers()
    for weight in model.parameters():
        yield weight
        yield from inside(weight)


# --- arithmetic


@pytest.mark.parametrize("quantization", memory.QUANTIZATIONS)
def test_the_computed_bytes_are_those_of_a_model_that_was_really_quantized(base: Path, quantization: str) -> None:
    chat = load(Settings(model_id=str(base), device="cpu", quantization=quantization))
    real = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors(chat._model)}.values())
    assert chat.describe().quantization == quantization
    assert held_bytes(chat._model) == real
    assert memory.weight_bytes(memory.outline(chat._model.config), quantization) == pytest.approx(real, rel=0.001)


def test_a_token_adds_what_a_real_cache_grows_by(base: Path) -> None:
    chat = load(Settings(model_id=str(base), device="cpu", quantization="none"))
    cache: Any = full_length_cache()
    chat._model(input_ids=torch.arange(100)[None], past_key_values=cache, use_cache=True)
    held = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert held == 100 * memory.kv_bytes(chat._model.config)


def test_the_8b_is_as_large_as_its_files_are() -> None:
    config = memory.shape()
    model = memory.outline(config)
    assert model.num_parameters() == 8_030_261_248
    assert round(memory.weight_bytes(model, "nf4") / memory.GB, 2) == 5.70
    assert round(memory.weight_bytes(model, "none") / memory.GB, 2) == 16.06
    assert memory.kv_bytes(config) == 131_072
    assert round(memory.lora_bytes(config) / 1e6, 1) == 13.6


def test_the_stored_tables_are_those_of_the_program() -> None:
    assert memory.RESULTS.read_text(encoding="utf-8") == memory.report()


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", None),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A10", None),
        ("Tesla T4", "T4 (fp16: it has no bf16)"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 MIG 3g.71gb", None),
        ("NVIDIA H100 80GB HBM3", None),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell Server"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 2g.48gb", None),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", None),
    ],
)
def test_a_data_sheet_is_used_for_that_gpu_alone(device: str, name: str | None) -> None:
    found = memory.named(device)
    assert (found.name if found else None) == name


# --- the program


def test_a_prompt_has_exactly_the_tokens_that_were_asked_for(toy: ChatModel) -> None:
    assert [toy.count(gpu.prompt(toy, tokens)) for tokens in (128, 200, 777)] == [128, 200, 777]


def test_a_reply_of_random_weights_never_ends_early(toy: ChatModel) -> None:
    pieces = list(toy.stream([Message("user", "hola")], Sampling(temperature=0, max_new_tokens=100)))
    assert pieces[-1].finish == "length"


@pytest.mark.parametrize("name", ["nf4", "int8", "bf16", "merged"])
def test_what_a_variant_holds_is_what_was_computed_for_it(name: str) -> None:
    chat = gpu.build(TOY, gpu.VARIANTS[name], "cpu")
    whole = memory.sizes(TOY)[gpu.VARIANTS[name].quantization].weights
    whole += 0 if name == "merged" else memory.lora_bytes(TOY)
    assert chat.describe().memory == pytest.approx(whole, rel=0.001)
    assert [part for part, _ in chat._model.named_parameters() if "lora_A" in part] != [] or name == "merged"


@pytest.mark.parametrize("engine", [engines.ours, engines.generate])
def test_an_engine_s_rate_is_that_of_the_tokens_it_made(engine: engines.Engine) -> None:
    chat = gpu.build(TOY, gpu.VARIANTS["merged"], "cpu")
    with tiny.reads(chat) as calls:
        run = engine(chat, gpu.prompt(chat, 300), 6)
    read = [len(ids) for ids in calls]
    assert sum(read) == 300 + 5 and read[-5:] == [1] * 5  # the sixth token is not read again
    assert run.first > 0 and run.rate > 0


@pytest.mark.parametrize("engine", [engines.ours, engines.generate])
def test_an_engine_that_waits_at_each_token_is_told_to(engine: engines.Engine) -> None:
    chat = gpu.build(TOY, gpu.VARIANTS["merged"], "cpu")
    hook = chat._model.register_forward_pre_hook(lambda *_: time.sleep(0.1))
    run = engine(chat, gpu.prompt(chat, 100), 6)
    hook.remove()
    assert 3 < run.rate < 10 and run.first > 0.1


def test_what_fails_says_so_in_its_row_and_the_rest_goes_on() -> None:
    def full(*_: Any) -> engines.Run:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    def broken(*_: Any) -> engines.Run:
        raise ValueError("a | b\nc")

    who: dict[str, engines.Engine] = {"full": full, "broken": broken, **gpu.ENGINES}
    variant = gpu.Variant("x", "nf4", engines=who)
    _, rows = gpu.measured(bench(), variant)
    cells = {row[2]: row[3] for row in rows}
    assert cells["full"] == "out of memory"
    assert cells["broken"] == "failed: ValueError a / b"
    assert "[" in cells["ours"] and "[" in cells[gpu.PEER]


def test_a_failure_inside_the_peer_s_thread_is_not_waited_for(toy: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "asked", lambda *_: {"input_ids": "nonsense"})
    with pytest.raises(AttributeError):
        engines.generate(toy, gpu.prompt(toy, 200), 4)


@pytest.mark.parametrize("name", ["nf4", "bf16"])
def test_a_model_too_large_for_any_memory_is_reported_in_its_row(name: str) -> None:
    huge = memory.shape(layers=1, width=128 * 6_000_000)  # a head of 197 TB: more than a process can address
    load, rows = gpu.measured(bench(huge), gpu.VARIANTS[name])
    assert (load[1], rows) == ("out of memory", [])


def test_the_toy_runs_on_a_cpu_and_says_that_it_is_one(tmp_path: Path) -> None:
    stored = gpu.RESULTS.read_bytes() if gpu.RESULTS.exists() else None
    output = tmp_path / "gpu.md"
    words = ["--device", "cpu", "--layers", "2", "--width", "256", "--output", str(output)]
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=240)
    text = output.read_text(encoding="utf-8")
    assert text.startswith("# A toy: these figures say nothing of the 8B\n")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| toy: ")]
    speeds = [row for row in rows if len(row) == len(gpu.HEAD)]
    assert len(speeds) == 4 * 2 * 2 and len(rows) == len(speeds) + 4
    assert all("[" in row[3] and "[" in row[4] for row in speeds)
    assert text.count("| toy: ") == len(rows) == text.count("\n| ") - 4  # two heads, two rules
    assert stored == (gpu.RESULTS.read_bytes() if gpu.RESULTS.exists() else None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and the 8B would be measured")
def test_without_a_gpu_the_8b_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="--device cpu"):
        gpu.main()


def test_a_part_of_the_results_takes_the_place_of_the_one_before() -> None:
    first = written("# Results\n", "A", "## A\n\none\n")
    both = written(first, "B", "## B\n\ntwo\n")
    assert written(both, "A", "## A\n\nthree\n").split() == ["#", "Results", "##", "A", "three", "##", "B", "two"]


def test_people_hear_a_server_s_whole_reply_each_their_own(app_url: str) -> None:
    found = together(gradio(app_url), ["Hola, hoy hace sol.", "Hoy llueve mucho."])
    assert all(0 < one.first <= one.last and one.text for one in found)
    assert found[0].text != found[1].text


def test_who_is_refused_is_left_out(app_url: str) -> None:
    assert together(gradio(app_url), [" "]) == []


def test_a_word_is_late_by_what_lies_between_saying_and_painting() -> None:
    assert page.late([0.0, 100.0, 200.0], [(0, 50.0), (1, 90.0), (3, 300.0)]) == [90.0, 200.0, 100.0]


def test_what_safety_costs_is_a_table_of_figures() -> None:
    reply = "Te despertaste a las tres. Eso cansa mucho."
    work, held = watch.guarded(reply, "es")
    assert work > 0
    assert 5 <= held <= 6  # the first sentence, and what shows that it has ended
    assert {len(text) for text in watch.long_texts(100)[:3]} == {100}
