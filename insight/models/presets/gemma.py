"""Gemma 2 and 3: a norm before and after each branch, local layers between the global ones.

Gemma 2 caps scores; Gemma 3 instead normalises queries and keys and gives global layers a longer base.
"""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import GroupedQueryAttention, HeadNorm, LayerPattern
from insight.models.blocks import SandwichNorm
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import GeGLU
from insight.models.norms import OffsetRMSNorm
from insight.models.positions import Rope
from insight.models.presets.preset import Preset

_GEMMA2_GLOBAL = GroupedQueryAttention(8, 4, head_dim=256, score_scale=256**-0.5, score_soft_cap=50.0)

GEMMA2_2B = Preset(
    DecoderConfig(
        hidden_size=2304,
        num_layers=26,
        attention=LayerPattern((replace(_GEMMA2_GLOBAL, window=4096), _GEMMA2_GLOBAL)),
        feed_forward=GeGLU(9216),
        norm=OffsetRMSNorm(eps=1e-6),
        max_sequence_length=8192,
        tie_embeddings=True,
        logit_soft_cap=30.0,
        block=SandwichNorm(),
        embedding_scale=2304**0.5,
    ),
    vocabulary_size=256000,
    source="Gemma Team 2024, arXiv 2408.00118",
)

_GEMMA3_GLOBAL = GroupedQueryAttention(
    4,
    1,
    head_dim=256,
    position=Rope(1000000.0),
    qk_norm=HeadNorm(OffsetRMSNorm(eps=1e-6)),
    score_scale=256**-0.5,
)
_GEMMA3_LOCAL = replace(_GEMMA3_GLOBAL, position=Rope(10000.0), window=512)

GEMMA3_1B = Preset(
    DecoderConfig(
        hidden_size=1152,
        num_layers=26,
        attention=LayerPattern((*5 * (_GEMMA3_LOCAL,), _GEMMA3_GLOBAL)),
        feed_forward=GeGLU(6912),
        norm=OffsetRMSNorm(eps=1e-6),
        max_sequence_length=32768,
        tie_embeddings=True,
        block=SandwichNorm(),
        embedding_scale=1152**0.5,
    ),
    vocabulary_size=262144,
    source="Gemma Team 2025, arXiv 2503.19786",
)
