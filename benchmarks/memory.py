"""What Llama-3-8B takes in memory, and how fast a GPU could read it at best: computed, nothing is measured here.

    python -m benchmarks.memory     # prints the tables and writes benchmarks/memory.md; a few seconds, no GPU

Parameters are counted on a model of that shape without storage (torch's meta device). GB are 10^9 bytes. Knows nothing
of the Hub, of speed that was measured, or of how a model is loaded.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from model.cache import CACHE_BYTES

RESULTS = Path(__file__).parent / "memory.md"
GB = 1e9
QUANTIZATIONS = ("nf4", "int8", "none")
TITLES = {"nf4": "NF4, double quantization", "int8": "int8", "none": "bf16, adapter merged"}
CONTEXTS = (4096, 8192)
RESERVE = 1.0 * GB  # CUDA's own context, activations, one dequantized matrix: an allowance, not a measurement
BLOCK, NESTED_BLOCK = 64, 256  # values to one scale, scales to one scale of scales (arXiv:2305.14314; bitsandbytes)
TABLES = 4 * (16 + 256 + 1)  # bytes with each 4-bit matrix: its 16 levels, the 256 of its scales, the scales' mean


class Gpu(NamedTuple):
    """A GPU as its maker's data sheet has it.

    Attributes:
        pattern: matches what torch calls it, and neither its slices (MIG) nor its relatives.
        bandwidth: of its memory, in GB/s.
        memory: in GB.
    """

    name: str
    pattern: str
    bandwidth: float
    memory: float


GPUS = (
    Gpu("RTX PRO 6000 Blackwell Server", r"RTX PRO 6000 Blackwell Server Edition$", 1597, 96),
    Gpu("half of it (ZeroGPU `large`; half the bandwidth is assumed)", r"(?!)", 1597 / 2, 48),
    Gpu("H200", r"\bH200\b(?!.*MIG)", 4800, 141),
    Gpu("A10G", r"\bA10G\b", 600, 24),
    Gpu("L4", r"\bL4$", 300, 24),
    Gpu("T4 (fp16: it has no bf16)", r"\bT4$", 320, 16),
)


def shape(layers: int = 32, width: int = 4096) -> LlamaConfig:
    """Returns the shape of Llama-3-8B (arXiv:2407.21783, table 3), or one with fewer layers or narrower ones."""
    heads = width // 128
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=width,
        intermediate_size=width * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        head_dim=128,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        rms_norm_eps=1e-5,
        bos_token_id=128_000,
        eos_token_id=128_001,
        tie_word_embeddings=False,
    )


def lora() -> LoraConfig:
    """Returns the adapter's shape: that of `zementalist/llama-3-8B-chat-psychotherapist`."""
    return LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", inference_mode=True
    )


def outline(config: LlamaConfig) -> Any:
    """Returns the model without storage: names and shapes in bf16."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def weight_bytes(model: Any, quantization: str) -> int:
    """Returns the bytes that a model's weights and buffers take in `nf4`, `int8` or, with `none`, as they are.

    As transformers quantizes: every linear layer but the head; embedding, head and norms stay.
    """
    total: int = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    if quantization == "none":
        return total
    return total + sum(_quantized(weight, quantization) - weight.nbytes for weight in _matrices(model))


def _matrices(model: Any) -> Iterator[Tensor]:
    head = model.get_output_embeddings()
    return (layer.weight for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head)


def _quantized(weight: Tensor, quantization: str) -> int:
    if quantization == "int8":
        return weight.numel() + 4 * weight.shape[0]  # and one fp32 scale a row
    blocks = -(-weight.numel() // BLOCK)
    return -(-weight.numel() // 2) + blocks + 4 * -(-blocks // NESTED_BLOCK) + TABLES


def read_bytes(model: Any, quantization: str) -> int:
    """Returns the bytes of weights that one new token has to read: all but the embedding, of which it takes a row."""
    return weight_bytes(model, quantization) - int(model.get_input_embeddings().weight.nbytes)


def kv_bytes(config: Any) -> int:
    """Returns the bytes of keys and values that each token adds to the cache, in bf16."""
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2)


def lora_bytes(config: LlamaConfig) -> int:
    """Returns the bytes of the adapter, which PEFT keeps in fp32."""
    adapted: Any = get_peft_model(outline(config), lora())
    return sum(4 * part.numel() for name, part in adapted.named_parameters() if "lora_" in name)


class Sizes(NamedTuple):
    """What one way to hold a model takes, in bytes: weights, those that a token reads, adapter, cache of one token."""

    weights: int
    read: int
    adapter: int
    token: int

    def total(self, context: int) -> int:
        """Returns the bytes with the cache of `context` tokens."""
        return self.weights + self.adapter + context * self.token

    def read_with(self, context: int) -> int:
        """Returns the bytes that a token reads when `context` tokens came before it."""
        return self.read + context * self.token


def sizes(config: LlamaConfig) -> dict[str, Sizes]:
    """Returns the sizes of a model by quantization. An adapter merged into dense weights takes nothing."""
    model, adapter, token = outline(config), lora_bytes(config), kv_bytes(config)
    return {
        name: Sizes(weight_bytes(model, name), read_bytes(model, name), 0 if name == "none" else adapter, token)
        for name in QUANTIZATIONS
    }


def roofline(bandwidth: float, read: float) -> float:
    """Returns the most tokens a second for one reader, at `bandwidth` GB/s and `read` bytes a token.

    Memory alone: no launch of a kernel, no arithmetic. Williams et al. 2009, doi:10.1145/1498765.1498785.
    """
    return bandwidth * GB / read


def named(device: str) -> Gpu | None:
    """Returns the data sheet of what torch calls `device`; none for a GPU that is not known, or a slice of one."""
    return next((gpu for gpu in GPUS if re.search(gpu.pattern, device)), None)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def memory_table(found: dict[str, Sizes]) -> str:
    rows = []
    for quantization, size in found.items():
        parts = [size.weights, size.adapter, 1000 * size.token, *map(size.total, CONTEXTS), size.read]
        cells = [f"{part / GB:.3f}" if 0 < part < GB else f"{part / GB:.2f}" for part in parts]
        rows.append([TITLES[quantization], *cells])
    totals = [f"total at {context:,} tokens" for context in CONTEXTS]
    return table(["GB", "weights", "LoRA", "KV cache, 1,000 tokens", *totals, "weights read a token"], rows)


def gpu_table(found: dict[str, Sizes]) -> str:
    rows = []
    longest = CONTEXTS[-1]
    for gpu in GPUS:
        cells = [gpu.name, f"{gpu.memory:.0f}", f"{gpu.bandwidth:,.0f}"]
        for size in found.values():
            most, least = (roofline(gpu.bandwidth, size.read_with(context)) for context in (0, longest))
            fits = size.total(longest) + CACHE_BYTES + RESERVE <= gpu.memory * GB
            cells.append(f"{most:.0f} to {least:.0f}" if fits else "does not fit")
        rows.append(cells)
    return table(["GPU (data sheet)", "memory, GB", "bandwidth, GB/s", "NF4", "int8", "bf16"], rows)


def report() -> str:
    """Returns what stands in benchmarks/memory.md."""
    config, longest = shape(), CONTEXTS[-1]
    found = sizes(config)
    return f"""# Memory and best speed of the 8B

`python -m benchmarks.memory`. Computed from the shape of Llama-3-8B ({outline(config).num_parameters():,} parameters,
embedding and head untied) and from data sheets; nothing here was measured. GB are 10^9 bytes. What a GPU really does:
`python -m benchmarks.gpu`.

{memory_table(found)}

NF4 is 4 bits a value, one byte for every {BLOCK} values and 4 bytes for every {BLOCK * NESTED_BLOCK:,}; int8 is one
byte a value and 4 bytes a row. Embedding and head, 1.05 GB each, stay in bf16 beside both. A token adds
{kv_bytes(config):,} bytes of keys and values. The LoRA has rank 8 on `q_proj` and `v_proj`, in fp32.

Most tokens a second for one person (bandwidth / bytes read a token), with an empty cache and with {longest:,} tokens
in it:

{gpu_table(found)}

It does not fit where the memory is less than weights, adapter, the cache of {longest:,} tokens,
{CACHE_BYTES / GB:.2f} GB of caches kept for the next turns of other conversations, and {RESERVE / GB:.0f} GB to work
in. The rates are a ceiling: they count the reading of memory alone, not the launch of kernels, the arithmetic of a
dequantization or the adapter.
"""


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=style).parse_args()
    text = report()
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
