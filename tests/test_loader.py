"""The loader, on tiny repositories in every shape that a model comes in."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

from config import Settings
from errors import ModelError
from history import Message
from model import ChatModel, Sampling, load
from model.prompt import encode
from tests import tiny

PROMPT = torch.arange(40)[None]


class Shelf:
    """Folders of one base in many shapes, and the logits that base and adapted base should give."""

    def __init__(self, root: Path) -> None:
        self.root = root
        words = tiny.tokenizer()
        self.base = tiny.repository(root / "base", tiny.llama(words), words)
        self.other = tiny.repository(root / "other", tiny.llama(words, seed=5), words)
        self.base_logits = logits(tiny.llama(words).to(torch.bfloat16).float())
        self.adapter = root / "adapter"
        adapted = tiny.adapter(self.adapter, tiny.llama(words).to(torch.bfloat16).float(), str(self.base))
        self.adapted_logits = logits(adapted)
        self.wrapped = self._wrapped(adapted)

    def _wrapped(self, adapted: Any) -> Path:
        """A repository whose weights were saved through PEFT, with the adapter beside them."""
        folder = self.root / "wrapped"
        shutil.copytree(self.base, folder)
        shutil.copytree(self.adapter, folder, dirs_exist_ok=True)
        state = adapted.to(torch.bfloat16).state_dict()
        weights = {name.removeprefix("base_model.model."): tensor.contiguous() for name, tensor in state.items()}
        assert "model.layers.0.self_attn.q_proj.base_layer.weight" in weights
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        declared = json.loads((folder / "adapter_config.json").read_text())
        gated = declared | {"base_model_name_or_path": "nobody/gated"}
        (folder / "adapter_config.json").write_text(json.dumps(gated))
        return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def copied(shelf: Shelf, tmp_path: Path) -> Callable[[str], Path]:
    """Returns a copy of one of the folders, to be damaged."""
    return lambda name: Path(shutil.copytree(shelf.root / name, tmp_path / name))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=PROMPT).logits[0].float()
    return found


def opened(folder: Path | str, **settings: Any) -> ChatModel:
    return load(Settings(model_id=str(folder), device="cpu", **settings))


def code(folder: Path | str, **settings: Any) -> str:
    """Returns the code of the error that loading ends with."""
    with pytest.raises(ModelError) as caught:
        opened(folder, **settings)
    return caught.value.code


def near(chat: ChatModel, wanted: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the weights give the wanted logits, and clearly not the other ones; computed in float32."""
    found = logits(copy.deepcopy(chat._model).float())
    return bool((found - wanted).norm() < 0.1 * wanted.norm() and (found - other).norm() > 0.5 * other.norm())


def speaks(chat: ChatModel) -> bool:
    deltas = list(chat.stream([Message("user", "hola")], Sampling(temperature=0, max_new_tokens=3)))
    return deltas[-1].finish in ("length", "stop")


def test_a_plain_folder_is_loaded(shelf: Shelf) -> None:
    chat = opened(shelf.base)
    found = chat.describe()
    assert near(chat, shelf.base_logits, shelf.adapted_logits)
    assert speaks(chat)
    assert (found.base, found.adapter, found.quantization, found.device) == ("base", "", "none", "cpu")
    assert (found.demonstration, chat.context_length) == (False, 4096)
    assert 0 <= found.memory - sum(p.nbytes for p in chat._model.parameters()) < 1000  # a few buffers


def test_an_adapter_is_put_on_the_base_that_it_declares(shelf: Shelf) -> None:
    chat = opened(shelf.adapter)
    assert near(chat, shelf.adapted_logits, shelf.base_logits)
    assert speaks(chat)
    assert chat.describe().base == "base"
    assert chat.describe().adapter == str(shelf.adapter)


def test_the_settings_name_another_base(shelf: Shelf) -> None:
    chat = opened(shelf.adapter, base_model_id=str(shelf.other))
    assert chat.describe().base == "other"
    assert not near(chat, shelf.adapted_logits, shelf.base_logits)


def test_weights_saved_through_peft_need_no_base(shelf: Shelf) -> None:
    chat = opened(shelf.wrapped)
    assert near(chat, shelf.adapted_logits, shelf.base_logits)
    assert speaks(chat)
    assert chat.describe().adapter == str(shelf.wrapped)


def test_the_base_of_the_settings_goes_before_weights_saved_through_peft(shelf: Shelf) -> None:
    chat = opened(shelf.wrapped, base_model_id=str(shelf.base))
    assert near(chat, shelf.adapted_logits, shelf.base_logits)


@pytest.mark.parametrize("shape", ["base", "adapter", "wrapped"])
def test_every_shape_loads_in_four_bits(shelf: Shelf, shape: str) -> None:
    chat = opened(shelf.root / shape, quantization="nf4")
    assert chat.describe().quantization == "nf4"
    assert "Linear4bit" in {type(module).__name__ for module in chat._model.modules()}
    near, far = shelf.base_logits, shelf.adapted_logits
    if shape != "base":
        near, far = far, near
    found = logits(chat._model)
    assert cosine_similarity(found, near).mean() > 0.6
    assert cosine_similarity(found, far).mean() < 0.3
    assert speaks(chat)


@pytest.mark.parametrize("name", ["nobody/nothing", "/no/such/folder", "./no-such-folder", "nothing here"])
def test_a_model_that_is_nowhere_is_unreachable(name: str) -> None:
    assert code(name) == "model_unreachable"


def test_an_unreachable_base_is_told(copied: Callable[[str], Path]) -> None:
    folder = copied("adapter")
    declared = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(declared | {"base_model_name_or_path": "nobody/gated"}))
    assert code(folder) == "model_unreachable"


def test_a_model_without_a_template_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("base")
    (folder / "chat_template.jinja").unlink()
    assert code(folder) == "model_without_template"


def test_an_adapter_brings_its_own_template(copied: Callable[[str], Path]) -> None:
    folder = copied("adapter")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    words = opened(folder)._tokenizer
    assert words.decode(encode(words, [Message("user", "hola")])) == "hola!"


def test_an_adapter_that_does_not_fit_is_told(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    wide = tiny.repository(tmp_path / "wide", tiny.llama(words, width=96), words)
    tiny.adapter(tmp_path / "adapter", tiny.llama(words), str(wide))
    assert code(tmp_path / "adapter") == "model_failed"


@pytest.mark.parametrize("name", ["base", "adapter"])
def test_a_truncated_weight_file_is_told(copied: Callable[[str], Path], name: str) -> None:
    folder = copied(name)
    (file,) = folder.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    assert code(folder) == "model_failed"


@pytest.mark.parametrize("declared", [{}, {"base_model_name_or_path": None}, {"peft_type": "LORA"}])
def test_an_adapter_that_declares_no_base_is_told(
    copied: Callable[[str], Path], declared: dict[str, str | None]
) -> None:
    folder = copied("adapter")
    (folder / "adapter_config.json").write_text(json.dumps(declared))
    assert code(folder) in ("model_failed", "model_unreachable")


def test_a_broken_tokenizer_is_told(copied: Callable[[str], Path]) -> None:
    folder = copied("base")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    assert code(folder) == "model_failed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_told(shelf: Shelf) -> None:
    with pytest.raises(ModelError):
        load(Settings(model_id=str(shelf.base), device="cuda", quantization="none"))


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(("name", "pickle"), [("base", "pytorch_model.bin"), ("adapter", "adapter_model.bin")])
@pytest.mark.parametrize("trapped", [True, False])
def test_a_pickle_is_never_loaded(copied: Callable[[str], Path], name: str, pickle: str, trapped: bool) -> None:
    folder = copied(name)
    (weights,) = folder.glob("*.safetensors")
    torch.save(Trap(folder / "sprung") if trapped else load_file(weights), folder / pickle)
    weights.unlink()
    assert code(folder) in ("model_failed", "model_unreachable")
    assert not (folder / "sprung").exists()
