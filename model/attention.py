"""Attention for one query row on the CPU, registered with transformers as `one_row`.

torch's scaled dot product attention on the CPU takes each head of a single new token by itself, and reads the keys
that several heads share once for each. Here the heads of a group are the rows of one query, so keys are read once:
46 µs a layer at 200 tokens in place of 350. Longer queries go to torch as usual.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
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
    grouped = query.reshape(batch, groups, heads // groups, width)
    mask = None if attention_mask is None else attention_mask[..., :length]
    found = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(batch, heads, 1, width).transpose(1, 2), None


AttentionInterface.register(NAME, one_row)
AttentionMaskInterface.register(NAME, sdpa_mask)
