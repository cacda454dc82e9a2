"""Dropout of softmax weights: in training only, drawn as transformers draws it, on every kernel that can."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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
from insight.models.masks import BidirectionalMask
from insight.runtime.errors import ConfigError


def decoder(attention: Any, **options: Any) -> Decoder:
    torch.manual_seed(0)
    return DecoderConfig(32, 2, attention=attention, max_sequence_length=32, **options).build(50)


def ids() -> torch.Tensor:
    return torch.randint(0, 50, (2, 20), generator=torch.Generator().manual_seed(1))


def test_equals_transformers_with_the_same_seed() -> None:
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
    expected = theirs(ids(), use_cache=False).logits
    expected.square().mean().backward()
    torch.manual_seed(5)
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
