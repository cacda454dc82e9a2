"""Marian: the first transformer's shape, as the OPUS-MT translation models have it."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.blocks import PostNorm
from insight.models.decoder import DecoderConfig
from insight.models.encoder import EncoderConfig
from insight.models.encoder_decoder import EncoderDecoderConfig
from insight.models.feed_forward import MLP
from insight.models.norms import LayerNorm
from insight.models.positions import NoPosition, SinusoidalPosition
from insight.models.presets.preset import Preset

_ATTENTION = GroupedQueryAttention(8, position=NoPosition(), qkv_bias=True, output_bias=True)

MARIAN = Preset(
    EncoderDecoderConfig(
        encoder=EncoderConfig(
            hidden_size=512,
            num_layers=6,
            attention=_ATTENTION,
            feed_forward=MLP(2048, activation="silu", bias=True),
            norm=LayerNorm(eps=1e-5),
            max_sequence_length=512,
            block=PostNorm(),
            input_position=SinusoidalPosition(in_turn=False),
            embedding_scale=512**0.5,
        ),
        decoder=DecoderConfig(
            hidden_size=512,
            num_layers=6,
            attention=_ATTENTION,
            feed_forward=MLP(2048, activation="silu", bias=True),
            norm=LayerNorm(eps=1e-5),
            max_sequence_length=512,
            block=PostNorm(),
            input_position=SinusoidalPosition(in_turn=False),
            embedding_scale=512**0.5,
            tie_embeddings=True,
        ),
        cross_attention=_ATTENTION,
        share_embeddings=True,
        logit_bias=True,
    ),
    vocabulary_size=58101,
    source="Tiedemann and Thottingal 2020, OPUS-MT (English to German); Marian, arXiv 1804.00344",
)
