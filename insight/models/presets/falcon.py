"""Falcon: multi-query attention beside the feed-forward layer, one norm for both."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.blocks import ParallelResidual
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MLP
from insight.models.norms import LayerNorm
from insight.models.presets.preset import Preset

FALCON_7B = Preset(
    DecoderConfig(
        hidden_size=4544,
        num_layers=32,
        attention=GroupedQueryAttention(71, 1),
        feed_forward=MLP(activation="gelu"),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        tie_embeddings=True,
        block=ParallelResidual(shared_norm=True),
    ),
    vocabulary_size=65024,
    source="Almazrouei et al. 2023, arXiv 2311.16867",
)
