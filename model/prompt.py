"""From messages to token ids: the chat template, where only we write control tokens.

What a person types is text and stays text: a typed `<|eot_id|>` or `<start_of_turn>` is spelled out in ordinary
tokens, and roles are checked against a fixed set. Knows nothing of weights, devices or sampling.
"""

import threading
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Literal, NamedTuple, Protocol, cast

from transformers import PreTrainedTokenizerBase

Role = Literal["system", "user", "assistant"]
# Whether control tokens are read as text is a switch inside the tokenizer: two threads would turn it for each other.
_one_at_a_time = threading.Lock()
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class ChatMessage(Protocol):
    """What a turn needs to become tokens: who speaks and what is said."""

    @property
    def role(self) -> Role: ...

    @property
    def text(self) -> str: ...


class _Said(NamedTuple):
    role: Role
    text: str


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage], *, reply: bool = True) -> list[int]:
    """Returns the prompt's token ids.

    Args:
        tokenizer: one with a chat template.
        messages: oldest first; the system prompt, if any, comes first. When the last one is the assistant's
            and `reply` is true, the ids end inside it, so that the model goes on with that reply.
        reply: whether the model is to speak next.

    Raises:
        ValueError: a role outside of `ROLES`.
    """
    if unknown := {message.role for message in messages} - set(ROLES):
        raise ValueError(f"unknown roles: {sorted(unknown)}")
    if reply and messages and messages[-1].role == "assistant":
        return encode(tokenizer, messages[:-1]) + spell(tokenizer, messages[-1].text)
    rows = [{"role": message.role, "content": message.text} for message in messages]
    suspicious = not _beginnings(tokenizer).isdisjoint("".join(message.text for message in messages))
    with _one_at_a_time:
        ids = tokenizer.apply_chat_template(
            rows, add_generation_prompt=reply, sanitize_control_tokens=suspicious, tokenize=True, return_dict=False
        )
    return cast(list[int], ids)


@lru_cache(maxsize=4)
def _beginnings(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Returns the characters that a control token can begin with: text without any of them holds none.

    Looking for the tokens themselves takes 25 ms with Gemma's 6,400, and this is done several times a turn.
    """
    return frozenset(token[0] for token in tokenizer.get_added_vocab() if not token.isspace())


def beginning(tokenizer: PreTrainedTokenizerBase, system: ChatMessage) -> list[int]:
    """Returns the ids with which every prompt begins that has this system prompt, whatever is said after it."""
    prompts = [encode(tokenizer, [system, _Said("user", text)]) for text in "ab"]
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*prompts, strict=False))]


def spell(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Returns the token ids of `text` with no control token among them."""
    with _one_at_a_time:
        return cast(list[int], tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def terminators(tokenizer: PreTrainedTokenizerBase, declared: int | Sequence[int] | None) -> frozenset[int]:
    """Returns every id that ends a reply: those the model declares and the end-of-turn marks of known formats.

    Llama-3's declared `eos` is `<|end_of_text|>` in some repositories, while its turns end with `<|eot_id|>`: a
    model that knows one only talks on as the person.
    """
    ids = {declared} if isinstance(declared, int) else set(declared or ())
    ids |= {tokenizer.eos_token_id} - {None}
    vocabulary = tokenizer.get_added_vocab()
    marks = ("<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<end_of_turn>", "<|end|>")
    return frozenset(ids | {vocabulary[mark] for mark in marks if mark in vocabulary})
