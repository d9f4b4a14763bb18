"""A model's loss on the dialogues that training holds back. Knows nothing of generation."""

from collections.abc import Sequence
from typing import Any

import torch

from demo.train import IGNORED, Turn, tokenize
from model import ChatModel

Dialogue = list[Turn]


@torch.inference_mode()
def loss(chat: ChatModel, rows: Sequence[Dialogue]) -> float:
    """Returns the cross entropy in nats per token of the replies; its exponential is the perplexity."""
    model: Any = chat._model
    total, number = 0.0, 0
    for turns in rows:
        made = tokenize(chat._tokenizer, turns)
        ids, labels = (torch.tensor(made[key], device=model.device) for key in ("input_ids", "labels"))
        places = (labels[1:] != IGNORED).nonzero()[:, 0]  # logits only where a reply is foretold
        logits = model(input_ids=ids[None], use_cache=False, logits_to_keep=places).logits[0].float()
        total += float(torch.nn.functional.cross_entropy(logits, labels[1:][places], reduction="sum"))
        number += len(places)
    return total / number
