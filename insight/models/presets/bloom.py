"""BLOOM: linear biases instead of positions, and a norm of the embedding."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MLP
from insight.models.norms import LayerNorm
from insight.models.positions import Alibi
from insight.models.presets.preset import Preset

BLOOM_560M = Preset(
    DecoderConfig(
        hidden_size=1024,
        num_layers=24,
        attention=GroupedQueryAttention(16, position=Alibi(), qkv_bias=True, output_bias=True),
        feed_forward=MLP(activation="gelu_tanh", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        tie_embeddings=True,
        embedding_norm=LayerNorm(eps=1e-5),
    ),
    vocabulary_size=250880,
    source="Le Scao et al. 2022, arXiv 2211.05100",
)
