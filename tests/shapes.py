"""One tiny base and adapter in every shape that a repository comes in, and the logits that each should give."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from model.weights import bitsandbytes
from tests import tiny

PROMPT = torch.arange(40)[None]
GATED = "meta/gated"


@dataclass(frozen=True)
class Row:
    """A shape, what its logits should equal, and what should be told of it."""

    name: str
    outcome: str
    adapted: bool
    quantization: str
    weights: str  # as `inspect` sees them


ROWS = (
    Row("base", "base", False, "none", "plain"),
    Row("merged", "adapted", False, "none", "plain"),
    Row("base4", "base4", False, "nf4", "plain"),
    Row("merged4", "merged4", False, "nf4", "plain"),
    Row("adapter", "adapted", True, "none", "none"),
    Row("adapter-on-base4", "adapted4", True, "nf4", "none"),
    Row("both-base", "adapted", True, "none", "plain"),
    Row("both-base4", "adapted4", True, "nf4", "plain"),
    Row("both-merged", "adapted", True, "none", "plain"),
    Row("both-merged4", "merged4", True, "nf4", "plain"),
    Row("both-wrapped", "adapted", True, "none", "wrapped"),
    Row("both-wrapped4", "adapted4", True, "nf4", "wrapped"),
    Row("both-wrapped4-sharded", "adapted4", True, "nf4", "wrapped"),
    Row("both-wrapped4-prefixed", "adapted4", True, "nf4", "wrapped"),
    Row("gguf", "base", False, "none", "gguf"),
)


class Shapes:
    """Makes every folder under `root`; adapters declare their base by its folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.words = tiny.tokenizer()
        self.base = tiny.repository(root / "base", tiny.llama(self.words, endless=True), self.words)
        adapted = tiny.adapter(
            root / "adapter", tiny.llama(self.words, endless=True).to(torch.bfloat16).float(), str(self.base)
        )
        self._wrapped("both-wrapped", self.base, adapted.to(torch.bfloat16))
        tiny.repository(root / "merged", adapted.merge_and_unload(), self.words)
        for whole in ("base", "merged"):
            small = AutoModelForCausalLM.from_pretrained(
                root / whole, quantization_config=bitsandbytes("nf4", torch.bfloat16), dtype=torch.bfloat16
            )
            small.save_pretrained(root / f"{whole}4")
            self.words.save_pretrained(root / f"{whole}4")
        for whole in ("base", "base4", "merged", "merged4"):
            self._together(f"both-{whole}", root / whole)
        self._declares("adapter-on-base4", root / "base4")
        quantized = PeftModel.from_pretrained(
            LlamaForCausalLM.from_pretrained(root / "base4", dtype=torch.bfloat16), root / "adapter"
        )
        self._wrapped("both-wrapped4", root / "base4", quantized)
        self._wrapped("both-wrapped4-prefixed", root / "base4", quantized, prefix="base_model.model.")
        self._sharded("both-wrapped4-sharded", root / "both-wrapped4")
        to_gguf(root / "gguf", tiny.llama(self.words, endless=True), self.words)

    @cached_property
    def wanted(self) -> dict[str, torch.Tensor]:
        """The logits of each outcome, from transformers and PEFT called plainly."""

        def plain(name: str) -> Any:
            return LlamaForCausalLM.from_pretrained(self.root / name, dtype=torch.bfloat16)

        return {
            "base": logits(plain("base")),
            "base4": logits(plain("base4")),
            "adapted": logits(PeftModel.from_pretrained(plain("base"), self.root / "adapter")),
            "adapted4": logits(PeftModel.from_pretrained(plain("base4"), self.root / "adapter")),
            "merged4": logits(plain("merged4")),
            "twice": logits(PeftModel.from_pretrained(plain("merged4"), self.root / "adapter")),
        }

    def _declares(self, name: str, base: Path) -> None:
        folder = shutil.copytree(self.root / "adapter", self.root / name)
        declare(folder, str(base))

    def _together(self, name: str, whole: Path) -> None:
        folder = shutil.copytree(whole, self.root / name)
        shutil.copytree(self.root / "adapter", folder, dirs_exist_ok=True)
        declare(folder, GATED)

    def _wrapped(self, name: str, base: Path, adapted: Any, prefix: str = "") -> None:
        """Saves the weights under the names that they have with the adapter on."""
        self._together(name, base)
        state = {key.removeprefix("base_model.model."): value for key, value in adapted.state_dict().items()}
        tensors = {prefix + key: value.contiguous() for key, value in state.items() if isinstance(value, torch.Tensor)}
        assert f"{prefix}model.layers.0.self_attn.q_proj.base_layer.weight" in tensors
        save_file(tensors, self.root / name / "model.safetensors", metadata={"format": "pt"})

    def _sharded(self, name: str, whole: Path) -> None:
        folder = shutil.copytree(whole, self.root / name)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        index: dict[str, str] = {}
        for number in (1, 2):
            shard = f"model-0000{number}-of-00002.safetensors"
            part = {key: value for key, value in tensors.items() if ("layers.0" in key) == (number == 1)}
            save_file(part, folder / shard, metadata={"format": "pt"})
            index |= dict.fromkeys(part, shard)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def declare(folder: Path, base: str) -> None:
    """Sets the base that an adapter says it was trained on."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": base}))


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=PROMPT).logits[0].float()
    return found


def outcome(found: torch.Tensor, wanted: dict[str, torch.Tensor]) -> str:
    """Returns which of the wanted logits these are, within the noise of bf16, or "none of them"."""
    off = {name: float((found - logits).norm() / logits.norm()) for name, logits in wanted.items()}
    nearest, next_one = sorted(off, key=off.__getitem__)[:2]
    return nearest if off[nearest] < 0.1 and off[next_one] > 3 * off[nearest] else f"none of them: {off}"


def to_gguf(folder: Path, model: Any, words: PreTrainedTokenizerFast) -> None:
    """Writes the model as a GGUF file in 16 bits, as llama.cpp's converter does."""
    folder.mkdir()
    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(folder / "tiny-f16.gguf", "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(words))
    names = sorted(words.get_vocab(), key=words.get_vocab().__getitem__)
    names[names.index("Ā")] = "ĠĠ"  # of a byte that no text has: readers want at least one merge
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(names)
    writer.add_token_types([3 if name in words.all_special_tokens or name.startswith("<|") else 1 for name in names])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(words.bos_token_id)
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_chat_template(words.chat_template)
    for name, tensor in state.items():
        writer.add_tensor(_gguf_name(name), _gguf_rows(name, tensor, config).to(torch.float16).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers": "blk",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name


def _gguf_rows(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """Orders the rows of q and k as GGUF does for its rotary positions."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((count for part, count in heads.items() if part in name), 0)
    if not count:
        return tensor
    rows, columns = tensor.shape
    return tensor.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
