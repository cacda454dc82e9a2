"""Dropout of softmax weights: in training only, drawn as transformers draws it, on every kernel that can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from insight.interchange.llama import LLAMA
from insight.models import (
    ActivationCheckpointing,
    Decoder,
    DecoderConfig,
    DifferentialAttention,
    GroupedQueryAttention,
    LatentAttention,
    ReferenceKernel,
    RMSNorm,
    ScoreChange,
    SDPAKernel,
    SwiGLU,
)
from insight.models.attention.kernels.fused import TiledKernel
from insight.models.attention.kernels.reference import PlainKernel
from insight.models.masks import BidirectionalMask, CausalMask, Mask
from insight.runtime.errors import ConfigError


def decoder(attention: Any, **options: Any) -> Decoder:
    torch.manual_seed(0)
    return DecoderConfig(32, 2, attention=attention, max_sequence_length=32, **options).build(50)


def ids() -> torch.Tensor:
    return torch.randint(0, 50, (2, 20), generator=torch.Generator().manual_seed(1))


Dropout = Callable[..., torch.Tensor]


def planted_dropout() -> Dropout:
    """Dropout with masks that are known beforehand: another one for every call, the same for every model."""
    num_calls = 0

    def drop(
        weights: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        nonlocal num_calls
        if not training or not p:
            return weights
        num_calls += 1
        draws = torch.rand(weights.shape, generator=torch.Generator().manual_seed(num_calls))
        return weights * (draws >= p) / (1 - p)

    return drop


@pytest.mark.parametrize("is_planted", [True, False], ids=["planted masks", "the same seed"])
def test_equals_transformers_with_the_same_masks(is_planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=64,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_dropout=0.3,
            attn_implementation="eager",
        )
    ).train()
    attention = GroupedQueryAttention(4, 2, kernel="reference", dropout=0.3)
    ours = decoder(attention, feed_forward=SwiGLU(64), norm=RMSNorm(eps=1e-6))
    ours.load_state_dict(LLAMA.convert(theirs.state_dict(), 2))
    torch.manual_seed(5)
    if is_planted:
        monkeypatch.setattr(F, "dropout", planted_dropout())
    expected = theirs(ids(), use_cache=False).logits
    expected.square().mean().backward()
    torch.manual_seed(5)
    if is_planted:
        monkeypatch.setattr(F, "dropout", planted_dropout())
    found = ours.logits(ours(ids()))
    found.square().mean().backward()
    assert (found - expected).abs().max() <= 1e-5
    gradients = LLAMA.convert({name: p.grad for name, p in theirs.named_parameters()}, 2)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - gradients[name]).norm() <= 1e-4 * gradients[name].norm()


@pytest.mark.parametrize("kernel", [SDPAKernel(), ReferenceKernel()])
def test_weights_are_dropped_at_the_rate_and_the_rest_grows(kernel: Any) -> None:
    torch.manual_seed(0)
    query = torch.zeros(1, 2, 400, 8)  # all weights equal, so that the sum counts those that stay
    value = torch.ones(1, 2, 400, 8)
    output = kernel(query, query, value, BidirectionalMask(), 1.0, ScoreChange(dropout=0.25))
    assert (output.mean() - 1).abs() < 0.01
    assert output[..., 0].std() > 0.01
    exact = kernel(query, query, value, BidirectionalMask(), 1.0)
    torch.testing.assert_close(exact, torch.ones_like(exact))


RATE = 0.4
SCALE = 0.3
KERNELS = [SDPAKernel(), TiledKernel(), ReferenceKernel(), PlainKernel()]


def heads() -> list[torch.Tensor]:
    """Queries of four heads, keys and values of two, for twelve tokens."""
    generator = torch.Generator().manual_seed(2)
    shapes = ((3, 4, 12, 16), (3, 2, 12, 16), (3, 2, 12, 16))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def drawn(
    kernel: Any, mask: Mask, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """The output of a kernel that drops, always with the same draws."""
    torch.manual_seed(3)
    output: torch.Tensor = kernel(query, key, value, mask, SCALE, ScoreChange(dropout=RATE))
    return output


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("mask", [CausalMask(), BidirectionalMask()], ids=["causal", "bidirectional"])
def test_equals_torch_with_the_mask_that_was_drawn(kernel: Any, mask: Mask) -> None:
    """With the unit matrix as values a kernel shows the weights that it used, and so the mask it drew."""
    query, key, value = heads()
    is_causal = isinstance(mask, CausalMask)
    unit = torch.eye(12).expand(3, 2, 12, 12)
    weights = F.scaled_dot_product_attention(
        query, key, unit, is_causal=is_causal, scale=SCALE, enable_gqa=True
    )
    used = drawn(kernel, mask, query, key, unit)
    kept = used != 0
    torch.testing.assert_close(used, weights * kept / (1 - RATE))
    visible = (
        torch.ones(12, 12, dtype=torch.bool).tril() if is_causal else torch.ones(12, 12, dtype=torch.bool)
    )
    share = kept[..., visible].float()
    assert abs(share.mean() - (1 - RATE)) < 5 * (RATE * (1 - RATE) / share.numel()) ** 0.5
    expected = (weights * kept / (1 - RATE)) @ value.repeat_interleave(2, dim=1)
    found = drawn(kernel, mask, query, key, value)
    torch.testing.assert_close(found, expected)
    ours, theirs = (
        torch.autograd.grad(output.square().sum(), (query, key, value)) for output in (found, expected)
    )
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
    # Weights that do not grow by what is dropped, and another mask, are seen.
    assert not torch.allclose(found, expected * (1 - RATE), rtol=0.1)
    assert not torch.allclose(
        found, (weights * kept.roll(1, 0) / (1 - RATE)) @ value.repeat_interleave(2, 1), rtol=0.1
    )


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_the_mean_of_many_draws_is_attention_without_dropout(kernel: Any) -> None:
    query, key, value = (tensor[:1].detach().expand(4000, -1, -1, -1) for tensor in heads())
    outputs = drawn(kernel, CausalMask(), query, key, value)
    exact = F.scaled_dot_product_attention(
        query[:1], key[:1], value[:1], is_causal=True, scale=SCALE, enable_gqa=True
    )
    errors = (outputs.mean(0) - exact[0]) / (outputs.std(0) / len(outputs) ** 0.5)
    assert errors.abs().max() < 5.5  # of 768 numbers, in standard errors
    assert errors.square().mean() < 1.5


OTHERS = {
    "auto": GroupedQueryAttention(4, dropout=0.4),
    "tiled": GroupedQueryAttention(4, kernel="tiled", dropout=0.4),
    "cap and sinks": GroupedQueryAttention(4, score_soft_cap=5.0, sinks=True, dropout=0.4),
    "window": GroupedQueryAttention(4, window=5, dropout=0.4),
    "differential": DifferentialAttention(4, dropout=0.4),
    "latent": LatentAttention(4, dropout=0.4),
}


@pytest.mark.parametrize("attention", OTHERS.values(), ids=OTHERS.keys())
def test_only_training_drops(attention: Any) -> None:
    network = decoder(attention)
    with torch.no_grad():
        network.train()
        assert not torch.equal(network(ids()), network(ids()))
        network.eval()
        assert torch.equal(network(ids()), network(ids()))


def test_recomputed_activations_draw_the_same() -> None:
    gradients = []
    for checkpointing in (None, ActivationCheckpointing("attention")):
        network = decoder(OTHERS["auto"], activation_checkpointing=checkpointing).train()
        torch.manual_seed(3)
        network(ids()).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("attention", [GroupedQueryAttention, LatentAttention])
def test_a_kernel_that_cannot_drop_is_refused(attention: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        attention(kernel="flex", dropout=0.1)
    assert caught.value.option == "kernel"
