"""Gemma 3 for a CPU: its layers in packed weights and few operations, in the place of transformers' own.

Embedding, positions, masks and the order of layers stay with transformers, and so does the cache. What changes is the
inside of a layer, where a word costs less time in products than in the many small operations between them. Knows
nothing of files, adapters or tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, Gemma3ForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer, Gemma3RMSNorm

from model.attention import Share, apart, one_row
from model.linears import PackedEmbedding, PackedHead, PackedLinear


class PackedLayer(nn.Module):
    """One decoder layer: attention and gated products, each between two norms, added to what came in."""

    norms: Tensor
    head_norms: Tensor

    def __init__(self, layer: Gemma3DecoderLayer) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        config = attention.config
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.width, self.layer_idx, self.eps = attention.head_dim, int(attention.layer_idx), config.rms_norm_eps
        self.window = attention.sliding_window
        self.num_key_value_groups, self.is_causal = self.heads // self.groups, True  # read by attention functions
        around = [layer.input_layernorm, layer.post_attention_layernorm]
        around += [layer.pre_feedforward_layernorm, layer.post_feedforward_layernorm]
        self.register_buffer("norms", torch.stack([weight_of(norm) for norm in around]))
        per_head = [weight_of(attention.q_norm) * attention.scaling] * self.heads
        per_head += [weight_of(attention.k_norm)] * self.groups
        self.register_buffer("head_norms", torch.stack(per_head))
        self.into_attention = PackedLinear(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        self.out_of_attention = PackedLinear(attention.o_proj.weight)
        self.into_mlp = PackedLinear(mlp.gate_proj.weight, mlp.up_proj.weight)
        self.out_of_mlp = PackedLinear(mlp.down_proj.weight)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        shares: Sequence[Share] = (),
        **_: Any,
    ) -> Tensor:
        """Takes and returns `(batch, tokens, width)`; the rest is as in transformers' layer."""
        x, shape = hidden_states.flatten(0, 1), hidden_states.shape[:2]
        first, second, third, fourth = self.norms
        heads = self.into_attention(self.normed(x, first)).view(*shape, -1, self.width)
        found = self.attend(heads, attention_mask, position_embeddings, past_key_values, shares)
        x = x + self.normed(self.out_of_attention(found), second)
        gate, up = self.into_mlp(self.normed(x, third)).chunk(2, -1)
        x = x + self.normed(self.out_of_mlp(F.gelu(gate, approximate="tanh") * up), fourth)
        return x.view(hidden_states.shape)

    def normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x.float(), weight.shape, weight, self.eps).to(x.dtype)

    def attend(
        self,
        heads: Tensor,
        mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        cache: Cache | None,
        shares: Sequence[Share],
    ) -> Tensor:
        """Takes queries, keys and values, `(batch, tokens, all heads, width)`; returns `(batch * tokens, width)`."""
        cos, sin = position_embeddings
        seeing = heads[:, :, : self.heads + self.groups].float()
        seeing = F.rms_norm(seeing, (self.width,), None, self.eps).mul_(self.head_norms).to(heads.dtype)
        # Each pair of numbers is turned by its position's angle (rotary embedding, arXiv:2104.09864).
        seeing = torch.addcmul(seeing * cos[:, :, None], seeing.roll(self.width // 2, -1), sin[:, :, None])
        query, key = seeing[:, :, : self.heads].transpose(1, 2), seeing[:, :, self.heads :].transpose(1, 2)
        value = heads[:, :, self.heads + self.groups :].transpose(1, 2)
        if shares:
            found, _ = apart(self, query, key, value, None, shares, self.window, scaling=1.0)
            return found.flatten(0, 1).flatten(1)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        rows = query.shape[2]
        if self.window and (rows == 1 or mask is not None):  # what no new token can see is not read
            back = self.window + rows - 1
            key, value = key[:, :, -back:], value[:, :, -back:]
            mask = None if mask is None else mask[..., -back:]
        found, _ = one_row(self, query, key, value, mask, scaling=1.0)
        return found.flatten(0, 1).flatten(1)


class Rotation(nn.Module):
    """The cosines and sines of transformers, the sines with the sign that goes with a roll of half the width."""

    sign: Tensor

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("sign", torch.ones(width, dtype=torch.bfloat16))
        self.sign[: width // 2] = -1

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str) -> tuple[Tensor, Tensor]:
        cos, sin = self.inner(x, position_ids, layer_type)
        return cos, sin * self.sign


def weight_of(norm: Gemma3RMSNorm) -> Tensor:
    """Returns what a norm multiplies with: Gemma keeps what is added to 1."""
    return 1 + norm.weight.detach().float()


def pack(model: Gemma3ForCausalLM, vocabulary: Tensor | None = None) -> None:
    """Puts packed weights in the place of a model's own, layer by layer, so that both are never held whole.

    Args:
        vocabulary: ids of the only words that are to be said; None is all.
    """
    body = model.model
    layers: Any = body.layers
    for number, layer in enumerate(layers):
        layers[number] = PackedLayer(layer)
    body.norm.weight = nn.Parameter(body.norm.weight.clone())  # or this one tensor would keep the whole file mapped
    body.rotary_emb = Rotation(body.rotary_emb, model.config.head_dim)
    words: Any = body.embed_tokens
    body.embed_tokens = PackedEmbedding(words.weight, words.scalar_embed_scale)
    model.lm_head = PackedHead(body.embed_tokens, vocabulary)
