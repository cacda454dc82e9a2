"""OLMo 2: norms after the branches, and of queries and keys over their full width."""

from __future__ import annotations

from insight.models.attention import FullWidthNorm, GroupedQueryAttention
from insight.models.blocks import BranchNorm
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import Rope
from insight.models.presets.preset import Preset

OLMO2_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(
            32, position=Rope(500000.0), qk_norm=FullWidthNorm(RMSNorm(eps=1e-6))
        ),
        feed_forward=SwiGLU(11008),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=4096,
        block=BranchNorm(),
    ),
    vocabulary_size=100352,
    source="OLMo Team 2024, arXiv 2501.00656",
)
