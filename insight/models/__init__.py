"""Networks as plain torch modules: token ids to hidden states to logits."""

from insight.models.attention import (
    Attention,
    AttentionModule,
    CausalMask,
    DocumentMask,
    GroupedQueryAttention,
    Kernel,
    Mask,
    ReferenceKernel,
    SDPAKernel,
    TiledKernel,
)
from insight.models.caches import DecoderCache, FullCache, LayerCache
from insight.models.decoder import Decoder, DecoderConfig
from insight.models.feed_forward import MLP, FeedForward, GeGLU, ReluSquared, SwiGLU
from insight.models.initialization import Initialization, ScaledInitialization, ZeroOutputInitialization
from insight.models.linear import OutputHead, Projection, TokenEmbedding
from insight.models.norms import LayerNorm, Norm, OffsetRMSNorm, RMSNorm
from insight.models.positions import NoPosition, Position, PositionEncoding, Rope
from insight.models.roles import muon_splits, parameter_role

__all__ = [
    "Attention",
    "AttentionModule",
    "CausalMask",
    "Decoder",
    "DecoderCache",
    "DecoderConfig",
    "DocumentMask",
    "FeedForward",
    "FullCache",
    "GeGLU",
    "GroupedQueryAttention",
    "Initialization",
    "Kernel",
    "LayerCache",
    "LayerNorm",
    "MLP",
    "Mask",
    "NoPosition",
    "Norm",
    "OffsetRMSNorm",
    "OutputHead",
    "Position",
    "PositionEncoding",
    "Projection",
    "RMSNorm",
    "ReferenceKernel",
    "ReluSquared",
    "Rope",
    "SDPAKernel",
    "ScaledInitialization",
    "SwiGLU",
    "TiledKernel",
    "TokenEmbedding",
    "ZeroOutputInitialization",
    "muon_splits",
    "parameter_role",
]
