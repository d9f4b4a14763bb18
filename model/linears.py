"""Matrices in few bits for a CPU, through torch's own kernels: each word costs the reading of every weight once.

Linear layers are int8 with a scale a row; a second, dense copy of the same numbers reads prompts, where arithmetic and
not memory is what takes time. The head of a large vocabulary computes the logits of those words alone that can be
said. Knows nothing of a model's layers or of files.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CAPABLE = ("AVX512", "AVX2")  # elsewhere torch does these products one number at a time
DENSE_ROWS = 12  # tokens at once from which the dense copy is faster: at 8 int8 wins, at 16 bf16
BLOCK = 32_768  # rows that are packed at once, so that packing takes little memory


def is_supported() -> bool:
    """Tells whether torch has fast kernels for packed weights on this processor."""
    return torch.backends.cpu.get_cpu_capability() in CAPABLE


def in_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns int8 rows and their scales in bf16: `weight` is about `rows * scale[:, None]`."""
    rows = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), dtype=torch.bfloat16)
    for start in range(0, len(weight), BLOCK):
        part = slice(start, start + BLOCK)
        block = weight[part].float()
        scales[part] = (block.abs().amax(1) / 127).clamp(min=1e-12)
        rows[part] = (block / scales[part, None].float()).round_().clamp_(-127, 127)
    return rows, scales


class PackedLinear(nn.Module):
    """One or several linear layers without bias that read the same input, side by side, in int8."""

    rows: Tensor
    scale: Tensor
    dense: Tensor

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        rows, scale = in_int8(torch.cat([weight.detach() for weight in weights]))
        self.register_buffer("rows", rows)
        self.register_buffer("scale", scale)
        # Made from the packed numbers, not from the weights, so that a prompt and a reply are read by the same model.
        self.register_buffer("dense", (rows.float() * scale[:, None].float()).bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """Takes `(tokens, width)` in bf16."""
        if len(x) >= DENSE_ROWS:
            return F.linear(x, self.dense)
        return torch._weight_int8pack_mm(x, self.rows, self.scale)


class PackedEmbedding(nn.Module):
    """The rows of a vocabulary in int8: read one by one as an embedding, and by the head that is tied to it."""

    rows: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, factor: float = 1.0) -> None:
        super().__init__()
        rows, scale = in_int8(weight.detach())
        self.register_buffer("rows", rows)
        self.register_buffer("scale", scale)
        self.factor = factor

    def forward(self, ids: Tensor) -> Tensor:
        return (self.rows[ids] * (self.scale[ids].float() * self.factor)[..., None]).to(self.scale.dtype)


class PackedHead(nn.Module):
    """Logits of the words that can be said; those of all others are minus infinity, as if a mask were laid on them.

    Most words of a vocabulary made for 140 languages are never said in two of them, and the reading of their rows is
    what a token would wait for longest (vocabulary trimming, Ushio et al. 2023, arXiv:2305.15020).
    """

    rows: Tensor
    scale: Tensor
    vocabulary: Tensor | None

    def __init__(self, words: PackedEmbedding, vocabulary: Tensor | None = None) -> None:
        """Takes the ids of the words that can be said, ascending; without them it is all."""
        super().__init__()
        self.register_buffer("vocabulary", vocabulary)
        self.register_buffer("rows", words.rows if vocabulary is None else words.rows[vocabulary])
        self.register_buffer("scale", words.scale if vocabulary is None else words.scale[vocabulary])
        self.size = len(words.rows)

    def forward(self, x: Tensor) -> Tensor:
        """Takes `(..., width)` in bf16 and returns `(..., vocabulary)`."""
        found = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), self.rows, self.scale)
        if self.vocabulary is not None:
            every = found.new_full((len(found), self.size), -torch.inf)
            found = every.index_copy_(1, self.vocabulary, found)
        return found.view(*x.shape[:-1], -1)
