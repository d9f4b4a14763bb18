"""Attention on top of transformers' own, registered there by name: for one query row on the CPU, and for several
conversations that share a forward pass.

`one_row`: where a single new token looks back, the heads that share keys are handed to torch as rows over these keys.
Torch's own way to share them takes ten times as long on the CPU (bf16, 500 keys of width 256).

`apart`: the tokens of several conversations stand in one row, and each looks back into its own cache alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "one_row"
APART = "apart"


class Share(NamedTuple):
    """Which of the tokens of a forward pass are a conversation's, `start` to `end`, and the cache they go into."""

    start: int
    end: int
    cache: Cache


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
    packed = query.reshape(batch, groups, heads // groups, width)
    seen = None if attention_mask is None else attention_mask[..., :length]
    found = scaled_dot_product_attention(packed, key, value, attn_mask=seen, scale=scaling)
    return found.reshape(batch, heads, 1, width).transpose(1, 2), None


def apart(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    shares: Sequence[Share] = (),
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each share within its own cache, which takes up the new keys and values; shapes as `one_row`.

    Without `shares` it is `one_row`. With them the batch is 1 and `attention_mask` is not looked at.
    """
    if not shares:
        return one_row(module, query, key, value, attention_mask, sliding_window=sliding_window, **options)
    found = torch.empty_like(query.transpose(1, 2))
    for start, end, cache in shares:
        keys, values = cache.update(key[:, :, start:end], value[:, :, start:end], module.layer_idx)
        if sliding_window:  # what no token of this share can see
            keys, values = (past[:, :, -(sliding_window + end - start - 1) :] for past in (keys, values))
        seen = _seen(end - start, keys.shape[2], sliding_window, query.device) if end - start > 1 else None
        found[:, start:end] = one_row(module, query[:, :, start:end], keys, values, seen, **options)[0]
    return found, None


@lru_cache(maxsize=32)  # the same in every layer of a pass
def _seen(rows: int, length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Returns which of `length` keys each of the last `rows` tokens sees, shape `(1, 1, rows, length)`."""
    back = torch.arange(length - rows, length, device=device)[:, None] - torch.arange(length, device=device)
    seen = back >= 0
    return (seen & (back < window) if window else seen)[None, None]


for name, function in ((NAME, one_row), (APART, apart)):
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)
