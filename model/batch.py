"""Replies to several people from one model: their forward passes are joined into one, which reads the weights once.

Each reply runs in its own thread, as `ChatModel` streams it; only the pass is common. Where weights are what a pass
waits for, on a CPU above all, eight tokens cost little more than one. The tokens of all stand in one row, each with its
own position, and look back into their own conversation's cache alone (`model.attention.apart`).
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from errors import ModelError
from model import attention
from model.attention import Share
from model.cache import Kept
from model.echo import Echo
from model.engine import ChatModel, Delta, Description, Pick
from model.faults import is_out_of_memory
from model.passes import Passes, Read, Stopped
from model.sampling import Sampling

log = logging.getLogger("remanso.model")

LAYERS = {"full_attention", "sliding_attention"}  # kinds of attention that `apart` knows
TOLERANCE = 0.15  # of logits, relative; bf16's rounding is 0.04, a position that is off by one 0.4


class BatchedModel(ChatModel):
    """A `ChatModel` that may stream several replies at the same time, each from a thread of its own.

    What a pass fails with comes out of `stream` as `ModelError`: `out_of_memory`, or `reply_failed` with its kind.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, description: Description, context_length: int
    ) -> None:
        super().__init__(model, tokenizer, description, context_length)
        model.set_attn_implementation(attention.APART)
        self._passes = Passes(self._pass)

    def decode(
        self, prompt: list[int], sampling: Sampling, stop: threading.Event, kept: Kept, echo: Echo | None = None
    ) -> Iterator[Delta]:
        """Yields the reply as `ChatModel.decode` does, from passes that it shares."""
        with self._passes.turn(kept, stop):
            try:
                yield from super().decode(prompt, sampling, stop, kept, echo)
            except Stopped:
                yield Delta("", "cancelled")

    def _next(self, ids: list[int], kept: Kept, pick: Pick) -> int:
        try:
            return self._passes.read(ids, kept, pick)
        except Exception as problem:
            if isinstance(problem, ModelError | Stopped) or is_out_of_memory(problem):
                raise
            raise ModelError("reply_failed", kind=type(problem).__name__) from problem

    def _pass(self, reads: Sequence[Read]) -> None:
        rows = [(read.ids, read.turn.kept) for read in reads]
        for read, logits in zip(reads, joined(self._model, rows), strict=True):
            try:
                read.token = read.pick(logits)
            except Exception as problem:  # the caches hold the tokens by now: nothing is to be read again
                read.problem = problem


@torch.inference_mode()
def joined(model: Any, rows: Sequence[tuple[list[int], Kept]]) -> torch.Tensor:
    """Reads token ids into the cache beside them, all in one pass, and returns the logits after each row's last one.

    Where it fails, the caches are as they were before. The attention must be `model.attention.apart`.
    """
    ids: list[int] = []
    positions: list[int] = []
    shares: list[Share] = []
    for new, kept in rows:
        shares.append(Share(len(ids), len(ids) + len(new), kept.cache))
        ids += new
        positions += range(len(kept.ids), len(kept.ids) + len(new))
    try:
        output = model(
            input_ids=torch.tensor([ids], device=model.device),
            position_ids=torch.tensor([positions], device=model.device),
            attention_mask=torch.ones(1, 1, 1, 1),  # with four dimensions it counts as made; nobody looks at it
            use_cache=False,
            logits_to_keep=torch.tensor([share.end - 1 for share in shares], device=model.device),
            shares=shares,
        )
    except BaseException:
        for _, kept in rows:
            layers: list[Any] = list(kept.cache.layers)
            for layer in layers:
                layer.crop(len(kept.ids) - layer.get_seq_length())
        raise
    for new, kept in rows:
        kept.ids.extend(new)
    return output.logits[0]  # type: ignore[no-any-return]


@torch.inference_mode()
def batchable(model: Any) -> bool:
    """Tells whether conversations may share passes through this model. Tried on two: how it is built is not ours."""
    layers = getattr(model.config.get_text_config(), "layer_types", None) or LAYERS
    before = model.config._attn_implementation
    rows = [[3, 5, 7, 11, 13, 17, 19], [23, 29, 31, 37]]
    try:
        alone = [model(input_ids=torch.tensor([row], device=model.device)).logits[0, -1] for row in rows]
        model.set_attn_implementation(attention.APART)
        kept = [Kept() for _ in rows]
        joined(model, [(row[:-1], own) for row, own in zip(rows, kept, strict=True)])
        found = joined(model, [(row[-1:], own) for row, own in zip(rows, kept, strict=True)])
        off = max(float((a - b).norm() / (a - a.mean()).norm()) for a, b in zip(alone, found, strict=True))
    except Exception as problem:
        log.warning("replies are computed one by one: several together failed (%s)", type(problem).__name__)
        return False
    finally:
        model.set_attn_implementation(before)
    if off > TOLERANCE or not set(layers) <= LAYERS:
        log.warning("replies are computed one by one: together they would be others (by %.2f, %s)", off, layers)
        return False
    return True
