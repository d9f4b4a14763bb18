"""From settings to a loaded model: base, adapter, quantization, in one path for the embedded model and the 8B.

Knows nothing of prompts, turns or the page.
"""

import errno
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils.logging import disable_progress_bar

from config import EIGHT_B, EMBEDDED, Settings
from errors import ModelError
from model import attention, zerogpu
from model.embedded import Progress, ensure_base, unheard
from model.engine import ChatModel, Description

ADAPTER = Path(__file__).parent.parent / "demo" / "adapter"
FILES = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]  # never a pickle
disable_progress_bar()  # loading has our own progress, on the page


class Source(NamedTuple):
    """Where each part of a model is: a base with or without an adapter, and the tokenizer."""

    base: Path
    adapter: Path | None
    tokenizer: Path


def load(settings: Settings, progress: Progress = unheard) -> ChatModel:
    """Loads the model that the settings name.

    Args:
        progress: called with a stage (`assemble`, `convert`, `read`) and the share that is done, 0 to 1.

    Raises:
        ModelError: with a code that the page can explain; see `locales`.
    """
    try:
        return _load(settings, progress)
    except ModelError:
        raise
    except torch.OutOfMemoryError as problem:
        raise ModelError("out_of_memory") from problem
    except (OSError, HFValidationError) as problem:
        if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
            raise ModelError("disk_full", folder=str(settings.cache_dir), needed=0) from problem
        raise ModelError("model_unreachable", model=model_id(settings)) from problem
    except Exception as problem:
        raise ModelError("model_failed", kind=type(problem).__name__) from problem


def model_id(settings: Settings) -> str:
    """Returns which model the settings mean: the 8B where there is a GPU, else the embedded one."""
    if settings.model_id:
        return settings.model_id
    return EIGHT_B if device_of(settings) == "cuda" else EMBEDDED


def device_of(settings: Settings) -> str:
    """Returns `cuda` or `cpu`."""
    return settings.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _load(settings: Settings, progress: Progress) -> ChatModel:
    name = model_id(settings)
    source = _embedded(settings, progress) if name == EMBEDDED else _fetched(name, settings)
    progress("read", 0.92)
    device = device_of(settings)
    quantization = settings.quantization or ("nf4" if device == "cuda" else "none")
    tokenizer = AutoTokenizer.from_pretrained(source.tokenizer)
    template = source.tokenizer if source.adapter is None else source.adapter
    if (written := template / "chat_template.jinja").exists():
        tokenizer.chat_template = written.read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        raise ModelError("model_without_template", model=name)
    model = _weights(source, device, quantization)
    progress("read", 1.0)
    kind = zerogpu.ZeroGPUModel if zerogpu.ON else ChatModel
    loaded = kind(
        model,
        tokenizer,
        Description(
            base=source.base.name if name != EMBEDDED else "google/gemma-3-270m",
            adapter=name if source.adapter else "",
            quantization=quantization,
            device=device,
            memory=model.get_memory_footprint(),
            demonstration=name == EMBEDDED,
        ),
        min(settings.max_context_tokens, model.config.max_position_embeddings),
    )
    if isinstance(loaded, zerogpu.ZeroGPUModel):
        loaded.publish()
    return loaded


def _embedded(settings: Settings, progress: Progress) -> Source:
    base = ensure_base(settings.cache_dir, progress)
    return Source(base, ADAPTER, base)


def _fetched(name: str, settings: Settings) -> Source:
    """Finds base, adapter and tokenizer of a Hub id or a local folder."""
    folder = _folder(name, settings.model_revision, settings.hf_token)
    if not (folder / "adapter_config.json").exists():
        return Source(folder, None, folder)
    if settings.base_model_id or not (folder / "config.json").exists():
        declared = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        base = _folder(settings.base_model_id or declared, "", settings.hf_token)
        return Source(base, folder, folder if (folder / "tokenizer.json").exists() else base)
    return Source(folder, folder, folder)


def _folder(name: str, revision: str, token: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    return Path(snapshot_download(name, revision=revision or None, token=token or None, allow_patterns=FILES))


def _weights(source: Source, device: str, quantization: str) -> Any:
    """Loads base and adapter, on the CPU first: PEFT and safetensors ask for the device in native code otherwise."""
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device_map": {"": "cpu"}, "use_safetensors": True}
    if quantization != "none" and "quantization_config" not in json.loads((source.base / "config.json").read_text()):
        options["quantization_config"] = _bitsandbytes(quantization)
    if device == "cpu":
        options["attn_implementation"] = attention.NAME
    if source.adapter == source.base:
        # The repository's own weights were saved through PEFT; the adapter beside them is then put on once.
        options |= {"key_mapping": {r"\.base_layer\.": "."}}
        whole: Any = AutoModelForCausalLM.from_pretrained(source.base, **options)
        return whole.to(device)
    model: Any = AutoModelForCausalLM.from_pretrained(source.base, **options)
    if source.adapter is not None:
        model = _adapted(model, source.adapter, merge=quantization == "none")
    return model.to(device)


def _adapted(model: Any, adapter: Path, *, merge: bool) -> Any:
    if not (adapter / "adapter_model.safetensors").exists():
        raise ModelError("model_failed", kind="NoSafetensors")  # peft would go on to read a pickle
    adapted = PeftModel.from_pretrained(model, adapter, torch_device="cpu")
    # Beside dense weights the adapter's own products only cost time; into 4-bit weights it cannot be merged exactly.
    return adapted.merge_and_unload() if merge else adapted


def _bitsandbytes(quantization: str) -> BitsAndBytesConfig:
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
