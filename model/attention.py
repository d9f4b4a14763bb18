"""Attention for one query row on the CPU, registered with transformers as `one_row`.

torch's scaled dot product attention in bf16 is slow there when a single new token looks back. Two batched matrix
products over the grouped heads do the same; longer queries go to torch as usual.
"""

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "one_row"


def one_row(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Grouped-query attention; shapes `(batch, heads, rows, width)`, returns `(batch, rows, heads, width)`."""
    batch, heads, rows, width = query.shape
    if rows != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    groups, length = key.shape[1:3]
    scale = width**-0.5 if scaling is None else scaling
    grouped = query.reshape(batch, groups, heads // groups, width)
    scores = torch.matmul(grouped, key.transpose(-1, -2)).float() * scale
    if attention_mask is not None:
        mask = attention_mask[..., :length]
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    found = torch.matmul(scores.softmax(-1).to(value.dtype), value)
    return found.reshape(batch, heads, 1, width).transpose(1, 2), None


AttentionInterface.register(NAME, one_row)
AttentionMaskInterface.register(NAME, sdpa_mask)
