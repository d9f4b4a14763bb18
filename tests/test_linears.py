"""Packed weights for a CPU: near the dense ones in what they compute, and exact in what they keep."""

import logging
from typing import Any

import pytest
import torch
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3TextConfig
from transformers.cache_utils import DynamicLayer

from config import Settings
from demo.evaluate.held_back import loss
from demo.train import HERE, split
from demo.vocabulary import counted, in_our_letters, texts
from model import ChatModel, gemma, linears, load
from model.cache import RoomyLayer, bytes_of, full_length_cache
from model.linears import DENSE_ROWS, PackedEmbedding, PackedHead, PackedLinear, in_int8
from model.sampling import likeliest

WIDTH, WORDS, WINDOW = 64, 8192, 8
NATS = 0.01  # what packing may cost


def near(found: torch.Tensor, wanted: torch.Tensor, share: float) -> bool:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm()) < share


@pytest.fixture
def weight() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(WORDS, WIDTH).bfloat16()


@pytest.fixture
def dense() -> Any:
    """A random Gemma 3 with one sliding and one full layer."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, sliding_window=WINDOW, max_position_embeddings=512,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model: Any = Gemma3ForCausalLM(config).bfloat16().eval()
    model.tie_weights()
    return model


def test_eight_bits_are_off_by_half_a_step_at_most(weight: torch.Tensor) -> None:
    rows, scales = in_int8(weight)
    off = (rows * scales[:, None].float() - weight.float()).abs().amax(1)
    assert rows.dtype == torch.int8 and bool((off <= scales.float() * 1.01).all())
    assert near(rows * scales[:, None].float(), weight, 0.02)


@pytest.mark.parametrize("tokens", [1, DENSE_ROWS - 1, DENSE_ROWS, 40])
def test_a_packed_layer_computes_what_the_dense_ones_side_by_side_do(weight: torch.Tensor, tokens: int) -> None:
    parts = weight[:64], weight[64:192]
    x = torch.randn(tokens, WIDTH).bfloat16()
    wanted = torch.cat([torch.nn.functional.linear(x, part) for part in parts], 1)
    assert near(PackedLinear(*parts)(x), wanted, 0.03)


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3)])
def test_the_head_computes_every_word_or_those_that_can_be_said(weight: torch.Tensor, shape: tuple[int, ...]) -> None:
    words, said = PackedEmbedding(weight), torch.arange(5, WORDS, 7)
    x = torch.randn(*shape, WIDTH).bfloat16()
    every, some = PackedHead(words)(x), PackedHead(words, said)(x)
    assert every.shape == some.shape == (*shape, WORDS)
    assert near(every, torch.nn.functional.linear(x, weight), 0.03)
    assert torch.equal(some[..., said], every[..., said])
    assert int(some.isfinite().sum()) == x[..., 0].numel() * len(said)


def test_words_are_read_from_eight_bits(weight: torch.Tensor) -> None:
    ids = torch.tensor([[0, 5, WORDS - 1]])
    assert near(PackedEmbedding(weight, 8.0)(ids), weight[ids] * 8, 0.02)


@pytest.mark.parametrize("size", [64 * 200, 64 * 200 + 1, 50])
def test_the_likeliest_are_those_of_a_full_sort(size: int) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size))
    logits[7] = logits[9] = 99.0  # two are equal
    top, ids = likeliest(logits, 40)
    assert torch.equal(top, logits.topk(min(40, size)).values) and torch.equal(logits[ids], top)


def test_a_packed_model_computes_what_the_dense_one_does_in_one_read_or_token_by_token(dense: Any) -> None:
    ids = torch.randint(0, WORDS, (1, 3 * WINDOW), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = dense(input_ids=ids).logits[0]
        gemma.pack(dense)
        dense.set_attn_implementation("one_row")
        assert near(dense(input_ids=ids, past_key_values=full_length_cache()).logits[0], wanted, 0.15)
        cache, found = full_length_cache(), []
        for place in range(ids.shape[1]):  # also past the window, where the first words are no longer seen
            found.append(dense(input_ids=ids[:, place : place + 1], past_key_values=cache).logits[0, -1])
    assert near(torch.stack(found), wanted, 0.15)


def test_a_cache_with_room_holds_what_transformers_holds_through_growth_and_crops() -> None:
    ours, theirs = full_length_cache(), DynamicCache()
    generator = torch.Generator().manual_seed(2)
    for new, cut in ((3, 0), (300, 250), (1, 0), (1, 2), (400, 0)):
        keys, values = (torch.randn(1, 2, new, 4, generator=generator) for _ in range(2))
        for number in (0, 1):
            for mine, other in zip(ours.update(keys, values, number), theirs.update(keys, values, number), strict=True):
                assert torch.equal(mine, other)
        for cache in (ours, theirs) if cut else ():
            cache.crop(-cut)
        assert ours.get_seq_length() == theirs.get_seq_length()
    assert isinstance(ours.layers[0], RoomyLayer) and isinstance(theirs.layers[0], DynamicLayer)
    assert bytes_of(ours) >= bytes_of(theirs)  # the room is counted


def test_a_processor_without_the_kernels_keeps_bf16_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linears, "is_supported", lambda: False)
    with caplog.at_level(logging.WARNING):
        found = load(Settings(model_id="embedded", device="cpu")).describe()
    assert "AVX2" in found.quantization and "bf16" in caplog.text


def test_the_embedded_model_is_packed_and_as_good(embedded: ChatModel) -> None:
    assert embedded.describe().quantization == "packed"
    rows = split(HERE / "plain.jsonl")[0][:6]
    whole = load(Settings(model_id="embedded", device="cpu", quantization="none"))
    assert whole.describe().quantization == "none"
    assert abs(loss(embedded, rows) - loss(whole, rows)) < 2 * NATS  # six dialogues: 0.003, and 0.001 on twenty


def test_the_embedded_model_can_say_every_word_of_ours_and_no_other_script(embedded: ChatModel) -> None:
    tokenizer: Any = embedded._tokenizer
    said = set(embedded._model.lm_head.vocabulary.tolist())
    assert not set(counted(tokenizer, texts())) - said  # written before the last dialogues? python -m demo.vocabulary
    assert embedded._ends & said
    for word in ("murciélago", "Ñandú", "vergüenza", "otorhinolaryngologist", "xkcdq", "€", "¿¡"):
        whole = tokenizer.encode(word, add_special_tokens=False)
        assert all(token in said for letter in word for token in tokenizer.encode(letter, add_special_tokens=False)), (
            whole
        )
    strange = [token for token in said if not in_our_letters(tokenizer.decode([token]))]
    assert len(strange) < 100, tokenizer.decode(strange)  # what stands in a message of ours, such as "ç" or "Š"
