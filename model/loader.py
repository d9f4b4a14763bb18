"""From settings to a loaded model: base, adapter, quantization, in one path for the embedded model and the 8B.

Knows nothing of prompts, turns or the page.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from config import EIGHT_B, EMBEDDED, Settings
from errors import ModelError
from model import repository, zerogpu
from model.batch import BatchedModel, batchable
from model.echo import Echoes
from model.embedded import Progress, ensure_base, unheard
from model.engine import ChatModel, Description
from model.faults import explained
from model.repository import SMALL, Repository, Shape
from model.weights import Plan, place

HERE = Path(__file__).parent
ADAPTER = HERE.parent / "demo" / "adapter"
ADAPTER_FILES = ["adapter_config.json", "adapter_model.safetensors", *SMALL]
TOGETHER = 8
PAUSES = (1.0, 3.0, 0.0)  # seconds after each failed question to the Hub; the last one is not asked again
T = TypeVar("T")
disable_progress_bar()  # loading has our own progress, on the page
set_verbosity_error()  # its reports are of names that we account for


@dataclass(frozen=True)
class Source:
    """Where each part of a model is, once it is on this disk.

    Attributes:
        base: Name of the base, to be told.
        weights: Folder of the weights.
        shape: What that folder holds.
        adapter: Folder of the adapter, if there is one.
        tokenizer: Folder of the tokenizer, or of the GGUF file that has it.
        revision: Commit of `MODEL_ID` on the Hub.
    """

    base: str
    weights: Path
    shape: Shape
    adapter: Path | None
    tokenizer: Path
    revision: str = ""


def load(settings: Settings, progress: Progress = unheard) -> ChatModel:
    """Loads the model that the settings name.

    Args:
        progress: called with a stage (`fetch`, `assemble`, `convert`, `read`) and the share that is done, 0 to 1.

    Raises:
        ModelError: with a code that the page can explain; see `model.faults`.
    """
    name = model_id(settings)
    try:
        return _load(name, settings, progress)
    except Exception as problem:
        known = explained(problem, name, revision=settings.model_revision, folder=str(settings.cache_dir))
        raise known from (None if known is problem else problem)


def model_id(settings: Settings) -> str:
    """Returns which model the settings mean: the 8B where there is a GPU, else the embedded one."""
    if settings.model_id:
        return settings.model_id
    return EIGHT_B if device_of(settings) == "cuda" else EMBEDDED


def device_of(settings: Settings) -> str:
    """Returns `cuda` or `cpu`."""
    return settings.device or ("cuda" if torch.cuda.is_available() else "cpu")


def turns(settings: Settings) -> int:
    """Returns how many replies are made at the same time: as set, or several where they cost each other little.

    The embedded model computes them together on a CPU; ZeroGPU queues people for a GPU by itself.
    """
    if settings.parallel_turns:
        return settings.parallel_turns
    together = model_id(settings) == EMBEDDED and device_of(settings) == "cpu"
    return TOGETHER if zerogpu.ON or together else 1


def _load(name: str, settings: Settings, progress: Progress) -> ChatModel:
    source = _embedded(settings, progress) if name == EMBEDDED else locate(name, settings, progress)
    progress("read", 0.92)
    device = device_of(settings)
    wanted = settings.quantization or ("nf4" if device == "cuda" else "packed")
    tokenizer = _tokenizer(source, name)
    placed = place(Plan(source.weights, source.shape, source.adapter, device, wanted))
    progress("read", 1.0)
    loaded = _kind(settings, placed.model)(
        placed.model,
        tokenizer,
        Description(
            base="google/gemma-3-270m" if name == EMBEDDED else source.base,
            adapter=name if placed.adapted else "",
            quantization=placed.quantization,
            device=device,
            memory=placed.memory,
            demonstration=name == EMBEDDED,
            revision=source.revision,
        ),
        min(settings.max_context_tokens, placed.model.config.max_position_embeddings),
    )
    loaded.echoes = Echoes.read(source.adapter, tokenizer)
    if isinstance(loaded, zerogpu.ZeroGPUModel):
        loaded.publish()
    return loaded


def _kind(settings: Settings, model: Any) -> type[ChatModel]:
    """Returns how replies are to be computed: in a worker of ZeroGPU, several together, or one at a time."""
    if zerogpu.ON:
        return zerogpu.ZeroGPUModel
    return BatchedModel if settings.parallel_turns > 1 and batchable(model) else ChatModel


def _embedded(settings: Settings, progress: Progress) -> Source:
    base = ensure_base(settings.cache_dir, progress)
    return Source(EMBEDDED, base, Shape(None, "plain"), ADAPTER, base)


def locate(name: str, settings: Settings, progress: Progress = unheard) -> Source:
    """Finds out what a Hub id or a local path holds, and fetches what loading it takes, and no more."""
    here = _found(name, settings.model_revision, settings)
    shape = _asked(name, lambda: repository.inspect(here))
    if shape.adapter is not None and (settings.base_model_id or shape.weights == "none"):
        return _on_another_base(here, shape, settings, progress)
    if shape.weights == "none" or (shape.weights == "wrapped" and shape.adapter is None):
        raise ModelError("model_incomplete", model=name)
    files = [*repository.weight_patterns(shape), *(ADAPTER_FILES if shape.adapter is not None else [])]
    folder = _asked(name, partial(here.fetch, files, progress))
    return Source(name, folder, shape, folder if shape.adapter is not None else None, folder, here.revision)


def _on_another_base(here: Repository, shape: Shape, settings: Settings, progress: Progress) -> Source:
    """The adapter alone is taken from `MODEL_ID`; its weights come from its base."""
    name = settings.base_model_id or shape.declared_base
    if not name:
        raise ModelError("model_incomplete", model=here.name)
    base = _found(name, settings.base_model_revision, settings)
    found = _asked(name, lambda: repository.inspect(base))
    if found.weights not in ("plain", "gguf"):
        raise ModelError("model_incomplete", model=name)
    adapter = _asked(here.name, partial(here.fetch, ADAPTER_FILES))
    weights = _asked(name, partial(base.fetch, repository.weight_patterns(found), progress))
    has_own = {"tokenizer.json", "tokenizer.model"} & set(here.files)
    return Source(name, weights, found, adapter, adapter if has_own else weights, here.revision)


def _found(name: str, revision: str, settings: Settings) -> Repository:
    return _asked(name, partial(repository.find, name, revision, settings.hf_token), revision)


def _asked(name: str, question: Callable[[], T], revision: str = "") -> T:
    """Asks the Hub or the disk about one repository: tries a few times, and what goes wrong bears its name."""
    for pause in PAUSES:
        try:
            return question()
        except Exception as problem:
            known = explained(problem, name, revision=revision)
            if known.code != "model_unreachable" or pause == PAUSES[-1]:
                raise known from (None if known is problem else problem)
        time.sleep(pause)
    raise AssertionError


def _tokenizer(source: Source, name: str) -> Any:
    """Returns the tokenizer with a chat template and a padding token."""
    gguf = source.shape.weights == "gguf" and source.tokenizer == source.weights
    options = {"gguf_file": source.shape.file} if gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, **options)
    for folder in (source.adapter, source.tokenizer):
        if folder is not None and (written := folder / "chat_template.jinja").exists():
            tokenizer.chat_template = written.read_text(encoding="utf-8")
            break
    if not tokenizer.chat_template:
        tokenizer.chat_template = _known_template(tokenizer.get_vocab())
    if not tokenizer.chat_template:
        raise ModelError("model_without_template", model=name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _known_template(vocabulary: dict[str, int]) -> str:
    """Returns Llama-3's template for a tokenizer that has its marks: repositories of adapters often lack the file."""
    if "<|start_header_id|>" not in vocabulary or "<|eot_id|>" not in vocabulary:
        return ""
    return (HERE / "llama3.jinja").read_text(encoding="utf-8")
