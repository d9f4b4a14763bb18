"""A loaded model that streams replies: prefill in chunks, then one token at a time, until it or someone says stop.

Knows nothing of Gradio, of storage, or of what is safe to say. One turn at a time may run; who calls sees to that.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from errors import ModelError
from model.cache import Beginnings, CacheShelf, Kept
from model.echo import Echo, Echoes
from model.faults import is_out_of_memory
from model.prompt import ChatMessage, beginning, encode, terminators
from model.sampling import Sampling, choose

PREFILL_CHUNK = 128  # tokens read between two looks at the stop signal: about 0.1 s on two cores

Finish = Literal["stop", "length", "cancelled"]
Pick = Callable[[torch.Tensor], int]


@dataclass(frozen=True)
class Delta:
    """A piece of a reply; the last one carries why it ended (`stop`, `length` or `cancelled`)."""

    text: str
    finish: Finish | None = None


@dataclass(frozen=True)
class Description:
    """What is loaded: names, quantization, device, memory in bytes of weights, and the commit of the model."""

    base: str
    adapter: str
    quantization: str
    device: str
    memory: int
    demonstration: bool = False
    revision: str = ""


class ChatModel:
    """A model with its tokenizer, behind the one seam that everything above uses: `stream`."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, description: Description, context_length: int
    ) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._description = description
        self._device = model.device  # asked once: transformers looks for it in every module, 0.3 ms a token
        self._ends = terminators(tokenizer, model.generation_config.eos_token_id)
        self._shelf = CacheShelf()
        self._beginnings = Beginnings()
        self.context_length = context_length
        self.echoes: Echoes | None = None  # where the model is one that says back what it has read

    def describe(self) -> Description:
        """Returns what is loaded and where."""
        return self._description

    def count(self, messages: Sequence[ChatMessage]) -> int:
        """Returns the tokens of the prompt that these messages make."""
        return len(encode(self._tokenizer, messages))

    def forget(self, conversation: str, *, in_use: bool = False) -> None:
        """Drops what is remembered of a conversation to answer it faster."""
        self._shelf.forget(conversation, in_use=in_use)

    def stream(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        stop: threading.Event | None = None,
        *,
        conversation: str | None = None,
    ) -> Iterator[Delta]:
        """Yields the reply to `messages` piece by piece; the last piece has a `finish`.

        When the last message is the assistant's, it is gone on with. Setting `stop`, or closing the iterator, ends
        the work within one token or one chunk of the prompt.

        Args:
            messages: system prompt first, then turns; they must fit `context_length` with the new tokens.
            conversation: key under which the KV cache is kept for the next turn; none is kept without it.
        """
        prompt = encode(self._tokenizer, messages)
        if messages and messages[0].role == "system":
            self._beginnings.expect(messages[0].text, lambda: beginning(self._tokenizer, messages[0]))
        echo = self.echoes.of(messages[-1].text) if self.echoes and messages[-1].role == "user" else None
        kept = self._shelf.take(conversation)
        try:
            yield from self.decode(prompt, sampling, stop or threading.Event(), kept, echo)
        except BaseException as problem:
            # Only at a yield is the cache known to match its ids: anything but a closed iterator throws it away.
            if len(kept.ids) != kept.cache.get_seq_length():
                kept = Kept()
            if is_out_of_memory(problem):
                self._make_room()
                raise ModelError("out_of_memory") from None
            raise
        finally:
            self._shelf.put(conversation, kept)

    def _make_room(self) -> None:
        """Gives back the memory of every kept conversation: they are read again, which is slower and fits."""
        self._shelf.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def decode(
        self, prompt: list[int], sampling: Sampling, stop: threading.Event, kept: Kept, echo: Echo | None = None
    ) -> Iterator[Delta]:
        """Yields the reply to the token ids of a prompt, of which `kept` holds those that need no reading."""
        text = DecodeStream(skip_special_tokens=True)  # holds back while a character is incomplete
        generator: torch.Generator | None = None
        said: list[int] = []
        self._beginnings.lend(kept, prompt)
        new, token = prompt[kept.crop_to(prompt) :], 0

        def pick(logits: torch.Tensor) -> int:
            nonlocal generator
            generator = generator or sampling.generator(logits.device)
            return choose(echo.prefer(logits, said) if echo else logits, sampling, said, generator)

        for start in range(0, len(new), PREFILL_CHUNK):
            if stop.is_set():
                yield Delta("", "cancelled")
                return
            end = start + PREFILL_CHUNK
            token = self._next(new[start:end], kept, pick if end >= len(new) else _none)
            self._beginnings.learn(kept)
            yield Delta("")  # where a closed iterator ends the work, as it must on ZeroGPU
        for number in range(sampling.max_new_tokens):
            if token in self._ends:
                yield Delta("", "stop")
                return
            said.append(token)
            yield Delta(text.step(self._tokenizer.backend_tokenizer, token) or "")
            if stop.is_set():
                yield Delta("", "cancelled")
                return
            if number + 1 < sampling.max_new_tokens:
                token = self._next([token], kept, pick)
        yield Delta("", "length")

    def _next(self, ids: list[int], kept: Kept, pick: Pick) -> int:
        """Reads `ids` into the cache and returns the token that `pick` chooses by the logits after them."""
        return pick(self._forward(ids, kept))

    @torch.inference_mode()
    def _forward(self, ids: list[int], kept: Kept) -> torch.Tensor:
        """Reads `ids` into the cache and returns the logits after the last one, shape `(vocabulary,)`."""
        tokens = torch.tensor([ids], device=self._device)
        # As an index, not as the number 1: a slice of the hidden rows is not contiguous, and torch then copies the
        # whole head, 335 MB for a vocabulary of 262,144, before it multiplies one row (0.85 s on two cores).
        last = torch.tensor([len(ids) - 1], device=self._device)
        output: Any = self._model(input_ids=tokens, past_key_values=kept.cache, use_cache=True, logits_to_keep=last)
        kept.ids.extend(ids)
        return output.logits[0, -1]  # type: ignore[no-any-return]


def _none(_logits: torch.Tensor) -> int:
    """Chooses nothing, in the middle of a prompt."""
    return 0
