"""MPT: linear biases instead of positions, no bias anywhere."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MLP
from insight.models.norms import LayerNorm
from insight.models.positions import Alibi
from insight.models.presets.preset import Preset

MPT_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32, position=Alibi()),
        feed_forward=MLP(activation="gelu"),
        norm=LayerNorm(eps=1e-5, bias=False),
        max_sequence_length=2048,
        tie_embeddings=True,
    ),
    vocabulary_size=50432,
    source="MosaicML 2023, MPT-7B",
)
