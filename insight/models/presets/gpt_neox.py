"""Pythia, of GPT-NeoX's architecture: parallel branches, a quarter of the channels rotated."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.blocks import ParallelResidual
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MLP
from insight.models.norms import LayerNorm
from insight.models.positions import Rope
from insight.models.presets.preset import Preset

PYTHIA_160M = Preset(
    DecoderConfig(
        hidden_size=768,
        num_layers=12,
        attention=GroupedQueryAttention(
            12, position=Rope(rotated_share=0.25), qkv_bias=True, output_bias=True
        ),
        feed_forward=MLP(activation="gelu", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        block=ParallelResidual(),
    ),
    vocabulary_size=50304,
    source="Biderman et al. 2023, arXiv 2304.01373",
)
