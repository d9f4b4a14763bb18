"""The loader, on tiny repositories in every shape that a model comes in: as folders, and from a Hub."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from config import Settings
from errors import ModelError
from history import Message
from model import ChatModel, Sampling, faults, load, repository
from model.loader import turns
from model.prompt import encode
from tests import tiny
from tests.services.hub import Fault, Hub, Repo
from tests.shapes import GATED, ROWS, Row, Shapes, declare, logits, outcome

Copy = Callable[[str], Path]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    return Shapes(tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def copied(shapes: Shapes, tmp_path: Path) -> Copy:
    """Returns a copy of one of the folders, to be damaged."""
    return lambda name: Path(shutil.copytree(shapes.root / name, tmp_path / name))


@pytest.fixture(autouse=True)
def hub(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that has every shape under `us/`, and a gated base; nothing is cached yet."""
    with Hub() as hub:
        hub.repos = {f"us/{row.name}": Repo(shapes.root / row.name) for row in ROWS}
        hub.repos[GATED] = Repo(shapes.root / "base", gated=True, readers=frozenset({"hf_granted"}))
        hub.tokens = frozenset({"hf_known", "hf_granted"})
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.utils._http.DEFAULT_RETRY_SECONDS", 0.01, raising=False)
        yield hub


def opened(name: Path | str, **settings: Any) -> ChatModel:
    return load(Settings(model_id=str(name), device="cpu", **settings))


def problem(name: Path | str, **settings: Any) -> ModelError:
    """Returns the error that loading ends with."""
    with pytest.raises(ModelError) as caught:
        opened(name, **settings)
    return caught.value


def code(name: Path | str, **settings: Any) -> str:
    return problem(name, **settings).code


def speaks(chat: ChatModel) -> bool:
    deltas = list(chat.stream([Message("user", "hola")], Sampling(temperature=0, max_new_tokens=3)))
    return deltas[-1].finish in ("length", "stop")


# --- every shape, as a folder and from the Hub


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("where", ["folder", "hub"])
def test_every_shape_loads_as_it_should(shapes: Shapes, where: str, row: Row) -> None:
    name = f"us/{row.name}" if where == "hub" else str(shapes.root / row.name)
    chat = opened(name)
    found = chat.describe()
    assert outcome(logits(chat._model), shapes.wanted) == row.outcome
    assert (found.adapter != "", found.quantization) == (row.adapted, row.quantization)
    assert found.revision == ("" if where == "folder" else Repo(shapes.root / row.name).commit)
    assert speaks(chat)
    vocabulary = chat._tokenizer.get_vocab()
    assert chat._ends >= {vocabulary["<|eot_id|>"], vocabulary["<|end_of_text|>"]}
    assert chat._tokenizer.pad_token is not None
    prompt = str(chat._tokenizer.decode(encode(chat._tokenizer, [Message("user", "hola")])))
    assert prompt.startswith("<|begin_of_text|><|start_header_id|>user") and prompt.count("<|begin_of_text|>") == 1


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_shape_is_told_without_fetching_its_weights(hub: Hub, row: Row) -> None:
    shape = repository.inspect(repository.find(f"us/{row.name}"))
    assert shape.weights == row.weights
    assert (shape.adapter is not None) == row.name.startswith(("adapter", "both"))
    assert shape.stored == ("nf4" if "4" in row.name and row.weights != "none" else "none")
    whole = {line for line in hub.log if line.startswith("HEAD") and "model" in line.rsplit("/", 1)[1]}
    assert not {line for line in whole if line.endswith(".safetensors")}


@pytest.mark.parametrize("name", ["both-base4", "both-merged4", "both-wrapped4", "both-wrapped4-sharded"])
def test_weights_of_its_own_never_ask_for_the_gated_base(hub: Hub, name: str) -> None:
    opened(f"us/{name}")
    assert not [line for line in hub.log if GATED in line]


def test_an_adapter_with_another_base_leaves_its_own_weights_unfetched(shapes: Shapes, hub: Hub) -> None:
    chat = opened("us/both-wrapped4", base_model_id="us/base")
    assert outcome(logits(chat._model), shapes.wanted) == "adapted"
    assert chat.describe().base == "us/base"
    wrapped = Repo(shapes.root / "both-wrapped4").commit
    assert not [line for line in hub.log if wrapped in line and line.endswith("/model.safetensors") and "HEAD" in line]


def test_a_gguf_file_is_a_model_too(shapes: Shapes) -> None:
    chat = opened(shapes.root / "gguf" / "tiny-f16.gguf")
    assert outcome(logits(chat._model), shapes.wanted) == "base"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.Q2_K.gguf", "a.Q4_K_M.gguf", "a.Q8_0.gguf"], "a.Q4_K_M.gguf"),
        (["a.f16.gguf", "a.q8_0.gguf"], "a.q8_0.gguf"),
        (["b.gguf", "a.gguf"], "a.gguf"),
    ],
)
def test_of_several_gguf_files_a_balanced_one_is_read(tmp_path: Path, names: list[str], chosen: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert repository.inspect(repository.find(str(tmp_path))).file == chosen


@pytest.mark.parametrize("name", ["base", "adapter", "both-wrapped"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_dense_weights_are_quantized_while_they_load(shapes: Shapes, name: str, quantization: str) -> None:
    chat = opened(shapes.root / name, quantization=quantization)
    layer = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[quantization]
    assert layer in {type(module).__name__ for module in chat._model.modules()}
    assert chat.describe().quantization == quantization
    assert chat.describe().memory < opened(shapes.root / name).describe().memory
    near, far = (shapes.wanted[key] for key in (("base", "adapted") if name == "base" else ("adapted", "base")))
    found = logits(chat._model)
    assert (found - near).norm() < 0.8 * (found - far).norm()


@pytest.mark.parametrize("name", ["base4", "merged4", "both-wrapped4"])
def test_four_bit_weights_are_made_dense_where_none_is_asked_for(shapes: Shapes, name: str) -> None:
    chat = opened(shapes.root / name, quantization="none")
    assert chat.describe().quantization == "none"
    assert not [module for module in chat._model.modules() if "4bit" in type(module).__name__.lower()]
    wanted = {"base4": "base4", "merged4": "merged4", "both-wrapped4": "adapted4"}[name]
    assert outcome(logits(chat._model), shapes.wanted) == wanted


def test_four_bit_weights_compute_in_the_type_that_the_device_has(shapes: Shapes) -> None:
    chat = opened(shapes.root / "base4")
    types = {m.compute_dtype for m in chat._model.modules() if type(m).__name__ == "Linear4bit"}
    assert types == {torch.bfloat16}


# --- bases, revisions, templates


def test_the_settings_name_another_base(shapes: Shapes, tmp_path: Path) -> None:
    other = tiny.repository(tmp_path / "other", tiny.llama(shapes.words, seed=5), shapes.words)
    chat = opened(shapes.root / "adapter", base_model_id=str(other))
    assert chat.describe().base == str(other)
    assert "none of them" in outcome(logits(chat._model), shapes.wanted)


def test_revisions_of_both_are_pinned(shapes: Shapes, hub: Hub) -> None:
    adapter, base = (Repo(shapes.root / name).commit for name in ("adapter", "base"))
    opened("us/adapter", model_revision=adapter, base_model_id="us/base", base_model_revision=base)
    asked = [line for line in hub.log if "/revision/" in line]
    assert [line.rsplit("/", 1)[1] for line in asked] == [adapter, base]


def test_an_adapter_brings_its_own_template(copied: Copy) -> None:
    folder = copied("adapter")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    words = opened(folder)._tokenizer
    assert words.decode(encode(words, [Message("user", "hola")])) == "hola!"


def test_llama_3_is_known_without_its_template(copied: Copy, shapes: Shapes) -> None:
    folder = copied("base")
    (folder / "chat_template.jinja").unlink()
    said = [Message("system", "s"), Message("user", " hola "), Message("assistant", "qué tal"), Message("user", "bien")]
    assert encode(opened(folder)._tokenizer, said) == encode(shapes.words, said)


def test_a_model_without_a_template_is_refused(tmp_path: Path) -> None:
    words = tiny.tokenizer(tiny.MISTRAL)
    words.chat_template = None
    assert code(tiny.repository(tmp_path / "base", tiny.llama(words), words)) == "model_without_template"


# --- what goes wrong on the way from the Hub


@pytest.mark.parametrize(
    ("token", "expected"), [("", "gated_without_token"), ("hf_known", "gated_refused"), ("hf_granted", "")]
)
def test_a_gated_base_is_told_by_who_asks(copied: Copy, token: str, expected: str) -> None:
    folder = copied("adapter")
    declare(folder, GATED)
    if expected:
        caught = problem(folder, hf_token=token)
        assert (caught.code, caught.values["model"]) == (expected, GATED)
        assert f"https://huggingface.co/{GATED}" in faults.hint(caught)
    else:
        assert speaks(opened(folder, hf_token=token))


@pytest.mark.parametrize("name", ["nobody/nothing", "/no/such/folder", "./no-such-folder", "nothing here"])
def test_a_model_that_is_nowhere_is_not_found(name: str) -> None:
    assert code(name) == "model_not_found"


def test_a_revision_that_is_nowhere_is_told() -> None:
    caught = problem("us/base", model_revision="f" * 40)
    assert (caught.code, caught.values["revision"]) == ("revision_not_found", "f" * 40)


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_in_trouble_is_told(hub: Hub, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.faults = [Fault(".", "status", times=100, code=status)]
    assert code("us/base") == "model_unreachable"


def test_a_hub_that_is_asked_too_much_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.faults = [Fault(".", "status", times=100, code=429)]
    assert code("us/base") == "hub_busy"


def test_a_hub_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert code("us/base") == "model_unreachable"


def test_what_was_fetched_before_needs_no_hub(monkeypatch: pytest.MonkeyPatch, shapes: Shapes) -> None:
    opened("us/both-wrapped4")
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert outcome(logits(opened("us/both-wrapped4")._model), shapes.wanted) == "adapted4"


def test_a_broken_download_goes_on_where_it_ended(hub: Hub, shapes: Shapes) -> None:
    hub.faults = [Fault("GET .*/model.safetensors", "truncate", times=0), Fault("GET .*tokenizer.json", "truncate")]
    repository.inspect(repository.find("us/base"))  # reads the header of the weights, whole
    hub.faults[0].times = 2
    assert outcome(logits(opened("us/base")._model), shapes.wanted) == "base"
    assert len([line for line in hub.log if line.startswith("GET") and line.endswith("/model.safetensors")]) > 2


def test_a_download_tells_how_far_it_is(hub: Hub) -> None:
    told: list[tuple[str, float]] = []
    load(Settings(model_id="us/both-wrapped4", device="cpu"), lambda stage, share: told.append((stage, share)))
    shares = [share for stage, share in told if stage == "fetch"]
    assert shares == sorted(shares) and 0.8 < shares[-1] <= repository.FETCHED  # some files were read before
    assert len(set(shares)) > 3 and told[-1] == ("read", 1.0)


def test_a_connection_that_always_drops_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.faults = [Fault("tokenizer.json", "drop", times=1000)]
    assert code("us/base") == "model_unreachable"


def test_a_disk_that_fills_is_told(small_disk: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub, tmp_path: Path) -> None:
    del tmp_path
    whole = small_disk.parent / "large"
    whole.mkdir()
    save_file({"weight": torch.zeros(1 << 20)}, whole / "model.safetensors")
    hub.repos["us/large"] = Repo(whole)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(small_disk / "cache"))
    assert code("us/large") == "download_no_room"


# --- what goes wrong with the files


def test_an_adapter_that_does_not_fit_is_told(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    wide = tiny.repository(tmp_path / "wide", tiny.llama(words, width=96), words)
    tiny.adapter(tmp_path / "adapter", tiny.llama(words), str(wide))
    assert code(tmp_path / "adapter") == "adapter_mismatch"


@pytest.mark.parametrize("name", ["base", "base4", "adapter", "both-wrapped4"])
def test_a_truncated_weight_file_is_told(copied: Copy, name: str) -> None:
    folder = copied(name)
    file = max(folder.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[:-100])
    assert code(folder) == "model_corrupt"


def test_weights_that_lack_a_layer_are_not_filled_with_chance(copied: Copy) -> None:
    folder = copied("base")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert code(folder) == "model_incomplete"


def test_wrapped_weights_without_their_adapter_are_not_half_a_model(copied: Copy) -> None:
    folder = copied("both-wrapped4")
    for file in folder.glob("adapter_*"):
        file.unlink()
    assert code(folder) == "model_incomplete"


@pytest.mark.parametrize("declared", [None, ""])
def test_an_adapter_that_declares_no_base_is_told(copied: Copy, declared: str | None) -> None:
    folder = copied("adapter")
    declare(folder, declared)  # type: ignore[arg-type]
    assert code(folder) == "model_incomplete"


def test_an_adapter_of_another_sort_is_told(copied: Copy) -> None:
    folder = copied("adapter")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"peft_type": "UNKNOWN"}))
    assert code(folder) == "model_failed"


def test_an_architecture_that_nobody_knows_is_told(copied: Copy) -> None:
    folder = copied("base")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "future", "architectures": ["Future"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert code(folder) == "model_unsupported"


def test_code_in_a_repository_is_never_run(copied: Copy) -> None:
    folder = copied("base")
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "future",
        "auto_map": {"AutoConfig": "future.Config", "AutoModelForCausalLM": "future.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "future.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')")
    with pytest.raises(ModelError):
        opened(folder)
    assert not (folder / "sprung").exists()


def test_a_broken_tokenizer_is_told(copied: Copy) -> None:
    folder = copied("base")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    assert code(folder) == "model_failed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["base", "both-wrapped4"])
def test_a_gpu_that_is_not_there_is_told(shapes: Shapes, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(Settings(model_id=str(shapes.root / name), device="cuda"))
    assert caught.value.code == "no_cuda"


def test_a_missing_bitsandbytes_is_told(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transformers.quantizers.quantizer_bnb_4bit", "transformers.utils.import_utils"):
        monkeypatch.setattr(f"{module}.is_bitsandbytes_available", lambda *_args, **_kwargs: False, raising=False)
    assert code(shapes.root / "base", quantization="nf4") == "no_bitsandbytes"


@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_while_loading_is_told(
    shapes: Shapes, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    assert code(shapes.root / "base") == "out_of_memory"


def test_memory_that_runs_out_while_quantizing_is_told(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("bitsandbytes.nn.Params4bit.to", fail)
    assert code(shapes.root / "base", quantization="nf4") == "out_of_memory"


def test_every_fault_has_a_hint_for_the_operator() -> None:
    for name in faults.HINTS:
        values = {"model": "m", "file": "f", "folder": "d", "base": "b", "revision": "r", "needed": 1}
        told = faults.hint(ModelError(name, **values))
        assert told.startswith(f"{name}: ") and "{" not in told and "\n" not in told
    assert faults.hint(ModelError("model_failed", kind="X")) == "model_failed {'kind': 'X'}"
    assert faults.HINTS.keys() >= faults.PASSING


def test_an_exception_that_nobody_foresaw_is_told_by_its_kind() -> None:
    found = faults.explained(ZeroDivisionError("a person's words"), "m")
    assert (found.code, found.values) == ("model_failed", {"kind": "ZeroDivisionError"})
    assert faults.explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "m").code == "download_no_room"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(("name", "pickle"), [("base", "pytorch_model.bin"), ("adapter", "adapter_model.bin")])
@pytest.mark.parametrize("trapped", [True, False])
def test_a_pickle_is_never_loaded(copied: Copy, name: str, pickle: str, trapped: bool) -> None:
    folder = copied(name)
    (weights,) = folder.glob("*.safetensors")
    torch.save(Trap(folder / "sprung") if trapped else load_file(weights), folder / pickle)
    weights.unlink()
    assert code(folder) == "only_pickles"
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"model_id": "embedded", "device": "cpu"}, 8),
        ({"model_id": "embedded", "device": "cuda"}, 1),
        ({"model_id": "us/other", "device": "cpu"}, 1),
        ({"model_id": "embedded", "device": "cpu", "parallel_turns": 3}, 3),
    ],
)
def test_replies_are_made_together_where_they_cost_each_other_little(settings: dict[str, Any], number: int) -> None:
    assert turns(Settings(**settings)) == number
