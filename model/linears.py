"""Matrices in few bits for a CPU, through torch's own kernels: each word costs the reading of every weight once.

Linear layers are int8 with a scale a row; a second, dense copy of the same numbers reads prompts, where arithmetic and
not memory is what takes time. The head of a large vocabulary is looked at twice: all of it in 4 bits, and the
likeliest words in 8. Knows nothing of a model's layers or of files.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.sampling import likeliest

CAPABLE = ("AVX512", "AVX2")  # elsewhere torch does these products one number at a time
DENSE_ROWS = 12  # tokens at once from which the dense copy is faster: at 8 int8 wins, at 16 bf16
GROUP = 32  # weights of the head that share a scale and a zero in its 4-bit copy
REFINED = 1024  # words whose logits are made anew in 8 bits; the others keep those of 4 bits
MANY = 5  # rows of which the whole head in 8 bits is faster: torch's 4-bit kernel gains nothing from more rows than 4
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


def in_int4(weight: Tensor, group: int = GROUP) -> tuple[Tensor, Tensor]:
    """Returns `weight` as torch's 4-bit kernel takes it: packed numbers 0 to 15, and a scale and a zero a group."""
    packed, scales = [], []
    for start in range(0, len(weight), BLOCK):
        block = weight[start : start + BLOCK].float().view(-1, weight.shape[1] // group, group)
        low, high = block.amin(-1), block.amax(-1)
        scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()
        zero = (low + 8 * scale.float()).bfloat16()  # the kernel computes (number - 8) * scale + zero
        number = ((block - zero.float()[..., None]) / scale.float()[..., None]).round_().clamp_(-8, 7) + 8
        packed.append(torch._convert_weight_to_int4pack_for_cpu(number.flatten(1).to(torch.int32), 1))
        scales.append(torch.stack([scale, zero], -1).transpose(0, 1))
    return torch.cat(packed), torch.cat(scales, 1).contiguous()


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
    """Logits of a large vocabulary, looked at twice.

    4 bits find which words are likely, and 8 bits say how likely each of those is. The order of the two is that of
    SVD-softmax (Shim et al. 2017, NeurIPS), but its low-rank preview depends on the texts that it was fitted to, and
    loses the right word on others; 4 bits of every weight do not.
    """

    preview: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, words: PackedEmbedding) -> None:
        super().__init__()
        preview, scales = in_int4(weight.detach())
        self.register_buffer("preview", preview)
        self.register_buffer("scales", scales)
        self.words = words

    def forward(self, x: Tensor) -> Tensor:
        """Takes `(..., width)` in bf16 and returns `(..., vocabulary)`."""
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) >= MANY:
            every = torch._weight_int8pack_mm(flat, self.words.rows, self.words.scale)
            return every.view(*x.shape[:-1], -1)
        logits = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.preview, GROUP, self.scales)
        for row, hidden in zip(logits, flat[:, None], strict=True):
            likely = likeliest(row, REFINED)[1]
            row[likely] = torch._weight_int8pack_mm(hidden, self.words.rows[likely], self.words.scale[likely])[0]
        return logits.unflatten(0, x.shape[:-1])  # type: ignore[no-any-return]
