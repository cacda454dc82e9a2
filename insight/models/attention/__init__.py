"""Attention: projections, positions, mask and kernel."""

from insight.models.attention.base import (
    Attention,
    AttentionModule,
    CallContext,
    CrossAttentionModule,
    LayerPattern,
)
from insight.models.attention.differential import DifferentialAttention
from insight.models.attention.grouped_query import GroupedQueryAttention
from insight.models.attention.kernels import (
    FlexKernel,
    Kernel,
    ReferenceKernel,
    ScoreChange,
    SDPAKernel,
    TiledKernel,
)
from insight.models.attention.latent import LatentAttention
from insight.models.attention.linear import GatedDeltaNet, GatedLinearAttention, LinearMixer, Retention
from insight.models.masks import CausalMask, DocumentMask, Mask, causal_mask
from insight.models.norms import FullWidthNorm, HeadNorm, QueryKeyNorm

__all__ = [
    "Attention",
    "AttentionModule",
    "CallContext",
    "CausalMask",
    "CrossAttentionModule",
    "DifferentialAttention",
    "DocumentMask",
    "FlexKernel",
    "FullWidthNorm",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "GroupedQueryAttention",
    "HeadNorm",
    "Kernel",
    "LatentAttention",
    "LayerPattern",
    "LinearMixer",
    "Mask",
    "QueryKeyNorm",
    "ReferenceKernel",
    "Retention",
    "SDPAKernel",
    "ScoreChange",
    "TiledKernel",
    "causal_mask",
]
