"""From files to weights on their device: quantization, adapter, and whether that adapter is in the weights already.

Knows nothing of the Hub, of tokenizers or of prompts.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Gemma3ForCausalLM

from errors import ModelError
from model import attention, gemma, linears, zerogpu
from model.repository import Shape, without_adapter

log = logging.getLogger("remanso.model")
# Names that PEFT gave to a model which was saved with its adapter on, and the names that transformers looks for.
UNWRAPPED = {r"^base_model\.model\.": "", r"\.base_layer\.": ".", r"\.original_module\.": "."}
VOCABULARY = "vocabulary.npy"  # a bit a token; see demo/vocabulary.py
PROBED = 16  # adapted matrices that are looked at to tell whether an adapter is merged
MERGED = 0.5  # share of the adapter found in the weights: 0 when it is not in them, 1 when it is


@dataclass(frozen=True)
class Plan:
    """What is to be loaded: the weights' folder and its shape, the adapter's folder, the device, and the quantization:
    `nf4`, `int8`, `packed` (Gemma 3 on a CPU; others are left as they are), `none`, or "" to leave the weights as they
    are in their file."""

    weights: Path
    shape: Shape
    adapter: Path | None
    device: str
    quantization: str


@dataclass(frozen=True)
class Placed:
    """A model on its device.

    Attributes:
        adapted: Whether an adapter is at work, put on here or merged before.
        quantization: What the weights are now.
        memory: Bytes of weights.
    """

    model: Any
    adapted: bool
    quantization: str
    memory: int


def place(plan: Plan) -> Placed:
    """Loads base and adapter and puts them on their device.

    On ZeroGPU all is loaded on the CPU first: its emulation of CUDA holds for this thread alone, while transformers
    reads weights in others, and PEFT and safetensors ask for the device in native code.
    """
    where = "cpu" if zerogpu.ON else plan.device
    dtype = compute_dtype(plan.device)
    model = _base(plan, where, dtype)
    quantization = _now(plan)
    if quantization in ("nf4", "fp4"):
        _compute_in(model, dtype)
    if plan.shape.stored not in (quantization, "none"):
        model = model.dequantize(dtype)
    adapted = plan.adapter is not None
    if plan.adapter is not None:
        model = _adapted(model, plan, plan.adapter, where, merge=quantization == "none")
    if plan.quantization == "packed" and quantization == "none":
        quantization = _packed(model, plan)
    memory = held_bytes(model)
    return Placed(model.to(plan.device), adapted, quantization, memory)


def held_bytes(model: Any) -> int:
    """Returns the bytes of every tensor of a model, with the scales of quantized ones, which transformers' own
    `get_memory_footprint` leaves out."""
    found = {tensor.data_ptr(): tensor.nbytes for tensor in _tensors(model) if tensor is not None}
    return sum(found.values())


def _tensors(model: Any) -> Iterator[Tensor | None]:
    yield from model.buffers()
    for weight in model.parameters():
        yield weight
        yield getattr(weight, "SCB", None)
        if (state := getattr(weight, "quant_state", None)) is not None:
            nested = state.state2
            yield from (state.absmax, state.code, state.offset, nested and nested.absmax, nested and nested.code)


def compute_dtype(device: str) -> torch.dtype:
    """Returns bf16, or fp16 on a GPU without it (such as the T4)."""
    if device == "cuda" and not zerogpu.ON and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def bitsandbytes(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Returns how weights are quantized while they load: int8, or NF4 with double quantization (arXiv:2305.14314)."""
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _now(plan: Plan) -> str:
    """Returns the quantization that the weights will have. What is in 4 bit stays so, unless `none` is asked for."""
    stored, wanted = plan.shape.stored, "" if plan.quantization == "packed" else plan.quantization
    if plan.shape.weights == "gguf":
        return "none"
    return wanted or "none" if stored == "none" or wanted == "none" else stored


def _packed(model: Any, plan: Plan) -> str:
    """Packs dense weights where that is known and fast, and returns what they are then."""
    if plan.device != "cpu" or zerogpu.ON or not isinstance(model, Gemma3ForCausalLM):
        return "none"
    if not linears.is_supported():
        log.warning("no AVX2 on this processor: the weights stay in bf16, and a reply takes two to three times as long")
        return "none: no AVX2"
    gemma.pack(model, _vocabulary(plan.adapter))
    return "packed"


def _vocabulary(adapter: Path | None) -> Tensor | None:
    """Returns the ids of the words that an adapter was taught to speak with, where its folder says so."""
    if adapter is None or not (adapter / VOCABULARY).exists():
        return None
    return torch.from_numpy(np.unpackbits(np.load(adapter / VOCABULARY)).nonzero()[0])


def _base(plan: Plan, where: str, dtype: torch.dtype) -> Any:
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": where}, "use_safetensors": True}
    if plan.quantization in ("nf4", "int8") and plan.shape.stored == "none" and plan.shape.weights != "gguf":
        options["quantization_config"] = bitsandbytes(plan.quantization, dtype)
    if plan.device == "cpu":
        options["attn_implementation"] = attention.NAME
    if plan.shape.weights == "gguf":
        return _from_gguf(plan, dtype, options)
    if plan.shape.weights == "wrapped":
        options["key_mapping"] = UNWRAPPED
    with without_adapter(plan.weights) as folder, _overheard() as report:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
        except RuntimeError as problem:
            if "out of memory" in "".join(report):
                raise ModelError("out_of_memory") from problem
            raise
    model, told = loaded
    if told["missing_keys"]:  # transformers would go on with random weights in their place
        raise ModelError("model_incomplete", model=plan.weights.name)
    return model


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Collects what transformers reports while it loads, in place of printing it.

    What fails while a weight is quantized stands in that report alone: its exception says only that something did.
    """
    logger, report = logging.getLogger("transformers"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: report.append(record.getMessage())  # type: ignore[method-assign]
    before = logger.handlers, logger.level
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
    try:
        yield report
    finally:
        logger.handlers, level = before
        logger.setLevel(level)


def _from_gguf(plan: Plan, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """Reads a GGUF file. Its blocks become dense: what a quantization has lost once is not lost again."""
    del options["use_safetensors"]
    model: Any = AutoModelForCausalLM.from_pretrained(plan.weights, gguf_file=plan.shape.file, **options)
    return model.to(dtype)


def _compute_in(model: Any, dtype: torch.dtype) -> None:
    """Has 4-bit layers compute in a type that the GPU has, whatever the repository says."""
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = dtype


def _adapted(model: Any, plan: Plan, adapter: Path, where: str, *, merge: bool) -> Any:
    adapted = PeftModel.from_pretrained(model, adapter, torch_device=where)
    if plan.shape.weights == "plain" and adapter == plan.weights and share_merged(adapted) > MERGED:
        return adapted.unload()  # what lies beside the weights is in them already
    # Beside dense weights the adapter's own products only cost time; into 4-bit weights it cannot be merged exactly.
    return adapted.merge_and_unload() if merge else adapted


def share_merged(adapted: Any) -> float:
    """Returns how much of the adapter its base has in it already: about 0 when it is not merged, 1 when it is.

    The projection of the weights W on the adapter's change D, <W, D> / <D, D>, over some matrices. Weights know nothing
    of D unless it was added to them: W's own part of the sum is noise of size |W|_rms / |D|.
    """
    along = beside = 0.0
    for weight, down, up, scale in islice(_changes(adapted), PROBED):
        along += scale * float(((up.T @ weight) * down).sum())
        beside += scale**2 * float(((up.T @ up) * (down @ down.T)).sum())
    return along / beside if beside else 0.0


def _changes(adapted: Any) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    """Yields W, A, B and the scale of each adapted matrix, in float32: the change is scale * B @ A."""
    for module in adapted.modules():
        if isinstance(module, LoraLayer) and "default" in module.lora_A:
            down, up = (cast(Tensor, part["default"].weight) for part in (module.lora_A, module.lora_B))
            yield _dense(module.get_base_layer()), down.float(), up.float(), float(module.scaling["default"])


def _dense(layer: Any) -> Tensor:
    weight = layer.weight
    if (state := getattr(weight, "quant_state", None)) is not None:
        weight = import_module("bitsandbytes.functional").dequantize_4bit(weight.data, state)
    elif (scales := getattr(weight, "SCB", None)) is not None:  # int8, one scale a row
        weight = weight.data * (scales[:, None] / 127)
    return cast(Tensor, weight.detach().float())
