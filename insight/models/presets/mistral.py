"""Mistral: Llama with a sliding window in every layer; Mixtral: Llama with experts instead."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MixtureOfExperts, SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import Rope
from insight.models.presets.preset import Preset

MISTRAL_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32, 8, window=4096),
        feed_forward=SwiGLU(14336),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=32768,
    ),
    vocabulary_size=32000,
    source="Jiang et al. 2023, arXiv 2310.06825",
)

MIXTRAL_8X7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32, 8, position=Rope(1000000.0)),
        feed_forward=MixtureOfExperts(8, 2, intermediate_size=14336),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=32768,
    ),
    vocabulary_size=32000,
    source="Jiang et al. 2024, arXiv 2401.04088",
)
