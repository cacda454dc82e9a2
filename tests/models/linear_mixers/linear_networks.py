"""Small decoders with linear mixers, for the tests beside this file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from insight.models import (
    Attention,
    Decoder,
    DecoderConfig,
    GatedDeltaNet,
    GatedLinearAttention,
    GroupedQueryAttention,
    LatentAttention,
    LayerPattern,
    NoPosition,
    Retention,
)

DELTA = GatedDeltaNet(4)
MIXERS: dict[str, Attention] = {
    "delta net": DELTA,
    "delta net, fewer keys": GatedDeltaNet(4, 6, 10, num_key_heads=2, convolution_width=3),
    "gated linear": GatedLinearAttention(4, 4),
    "retention": Retention(4, value_dim=16),
    "retention without positions": Retention(2, position=NoPosition()),
}
HYBRIDS: dict[str, Attention] = {
    "three to one": LayerPattern((*3 * (DELTA,), GroupedQueryAttention(4, 2))),
    "attention first": LayerPattern((GroupedQueryAttention(4, 2), DELTA)),
    "with a window": LayerPattern((DELTA, GroupedQueryAttention(4, 2, window=5))),
    "with latents": LayerPattern((GatedLinearAttention(4), LatentAttention(4, 12, None, 6, 4, 8))),
}
ALL = MIXERS | HYBRIDS
VOCABULARY = 30


def config(attention: Attention, **options: Any) -> DecoderConfig:
    """A decoder of hidden size 32, with as many layers as a pattern is long, and at least two."""
    num_layers = len(attention.layers) if isinstance(attention, LayerPattern) else 2
    settings = DecoderConfig(32, num_layers, attention=attention, max_sequence_length=200)
    return replace(settings, **options)


def decoder(attention: Attention, **options: Any) -> Decoder:
    """Float64, with weights large enough that everything matters."""
    torch.manual_seed(0)
    network = config(attention, **options).build(VOCABULARY)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith(("log_rate", "step_bias")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double().eval()


def ids(batch: int = 2, length: int = 30) -> torch.Tensor:
    """Fixed random tokens."""
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))
