"""T5 and Marian. T5 encodes distances, does not scale its scores, and its norms do not subtract the mean.

T5 1.0 shares one matrix between both embeddings and the head, and scales before the head; T5 1.1 has a
separate head and a gate in the feed-forward layer.
"""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import GroupedQueryAttention
from insight.models.blocks import PostNorm
from insight.models.decoder import DecoderConfig
from insight.models.encoder import EncoderConfig
from insight.models.encoder_decoder import EncoderDecoderConfig
from insight.models.feed_forward import MLP, FeedForward, GeGLU
from insight.models.norms import LayerNorm, RMSNorm
from insight.models.positions import NoPosition, RelativeBias, SinusoidalPosition
from insight.models.presets.preset import Preset


def _t5(num_layers: int, num_heads: int, feed_forward: FeedForward, tied: bool) -> EncoderDecoderConfig:
    cross = GroupedQueryAttention(num_heads, head_dim=64, position=NoPosition(), score_scale=1.0)
    encoder = EncoderConfig(
        hidden_size=512,
        num_layers=num_layers,
        attention=replace(cross, position=RelativeBias(32, 128, bidirectional=True)),
        feed_forward=feed_forward,
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=512,
    )
    decoder = DecoderConfig(
        hidden_size=512,
        num_layers=num_layers,
        attention=replace(cross, position=RelativeBias(32, 128)),
        feed_forward=feed_forward,
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=512,
        tie_embeddings=tied,
        output_scale=512**-0.5 if tied else None,
    )
    return EncoderDecoderConfig(encoder, decoder, cross, share_embeddings=True)


T5_SMALL = Preset(
    _t5(6, 8, MLP(2048, activation="relu"), tied=True),
    vocabulary_size=32128,
    source="Raffel et al. 2019, arXiv 1910.10683",
)

T5_V11_SMALL = Preset(
    _t5(8, 6, GeGLU(1024), tied=False),
    vocabulary_size=32128,
    source="Raffel et al. 2020, T5 version 1.1 (gated as in arXiv 2002.05202)",
)


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
