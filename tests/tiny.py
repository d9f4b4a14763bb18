"""Tiny repositories in the shapes that real ones have: byte-level tokenizers, a random Llama, its adapters.

Everything here is made in a second and says nonsense; only its form is that of the real thing.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from model import ChatModel, Description

ADAPTER = Path(__file__).parent.parent / "demo" / "adapter"


class Format(NamedTuple):
    """A chat format: its control tokens, the first two of which begin and end a text, and its template."""

    marks: tuple[str, ...]
    template: str


LLAMA3 = Format(
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
)
CHATML = Format(
    ("<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
)
MISTRAL = Format(
    ("<s>", "</s>", "[INST]", "[/INST]"),
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}",
)
GEMMA = Format(
    ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    (ADAPTER / "chat_template.jinja").read_text(encoding="utf-8"),
)
FORMATS = {"llama3": LLAMA3, "chatml": CHATML, "mistral": MISTRAL, "gemma": GEMMA}
MARKS = [mark for form in FORMATS.values() for mark in form.marks]


def tokenizer(form: Format = LLAMA3) -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token a byte and the control tokens of `form`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in form.marks])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=form.marks[0], eos_token=form.marks[1], pad_token=form.marks[1]
    )
    made.chat_template = form.template
    return made


def llama(words: PreTrainedTokenizerFast, *, width: int = 64, seed: int = 0, endless: bool = False) -> Any:
    """Returns a random Llama of two layers that declares only the tokenizer's `eos` as its end.

    Args:
        endless: it says letters and spaces alone, and never ends a greedy reply by itself.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)  # so that its choices are not all close
    if endless:
        vocabulary = words.get_vocab()
        spoken = {vocabulary[letter] for letter in [*"abcdefghijklmnopqrstuvwxyz", "Ġ"]}
        model.lm_head.weight.data[[number for number in range(len(words)) if number not in spoken]] = 0
    model.generation_config = GenerationConfig(bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id)
    return model


def chat(model: Any, words: PreTrainedTokenizerFast) -> ChatModel:
    """Returns the model as the application holds one, in full precision."""
    return ChatModel(model, words, Description("tiny", "", "none", "cpu", 0), 8192)


def repository(folder: Path, model: Any, words: PreTrainedTokenizerFast | None) -> Path:
    """Saves model and tokenizer in the way of the Hub, in bf16 safetensors."""
    model.to(torch.bfloat16).save_pretrained(folder)
    if words is not None:
        words.save_pretrained(folder)
    return folder


def adapter(folder: Path, base: Any, declared: str) -> Any:
    """Saves a random LoRA that changes much, and returns the adapted model. `base` is wrapped in place."""
    torch.manual_seed(1)
    adapted: Any = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.3)
    adapted.save_pretrained(folder)
    settings = folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": declared}))
    return adapted.eval()


@contextmanager
def reads(chat: ChatModel) -> Iterator[list[list[int]]]:
    """Collects the token ids of every call of the model."""
    calls: list[list[int]] = []

    def note(_module: Any, _args: Any, options: dict[str, Any]) -> None:
        calls.append(options["input_ids"][0].tolist())

    hook = chat._model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


@contextmanager
def saying(chat: ChatModel, ids: Iterable[int]) -> Iterator[None]:
    """Makes the model say these tokens, whatever it thinks. For prompts of one chunk."""
    script = iter(ids)

    def replace(_module: Any, _args: Any, output: Any) -> Any:
        output.logits = torch.full_like(output.logits, -100.0)
        output.logits[..., next(script)] = 100.0
        return output

    hook = chat._model.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """Returns how many tokens both begin with."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
