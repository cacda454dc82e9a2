"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MLP
from insight.models.norms import LayerNorm
from insight.models.positions import LearnedPosition, NoPosition
from insight.models.presets.preset import Preset

GPT2 = Preset(
    DecoderConfig(
        hidden_size=768,
        num_layers=12,
        attention=GroupedQueryAttention(12, position=NoPosition(), qkv_bias=True, output_bias=True),
        feed_forward=MLP(activation="gelu_tanh", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=1024,
        tie_embeddings=True,
        input_position=LearnedPosition(),
    ),
    vocabulary_size=50257,
    source="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
)
