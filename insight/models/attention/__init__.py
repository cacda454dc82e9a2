"""Attention = projection x position x mask x kernel, each its own file."""

from insight.models.attention.base import Attention, AttentionModule
from insight.models.attention.differential import DifferentialAttention
from insight.models.attention.grouped_query import GroupedQueryAttention
from insight.models.attention.kernels import Kernel, ReferenceKernel, ScoreChange, SDPAKernel, TiledKernel
from insight.models.attention.latent import LatentAttention
from insight.models.attention.layer_pattern import LayerPattern
from insight.models.attention.query_key_norm import FullWidthNorm, HeadNorm, QueryKeyNorm
from insight.models.masks import CausalMask, DocumentMask, Mask, causal_mask

__all__ = [
    "Attention",
    "AttentionModule",
    "CausalMask",
    "DifferentialAttention",
    "DocumentMask",
    "FullWidthNorm",
    "GroupedQueryAttention",
    "HeadNorm",
    "Kernel",
    "LatentAttention",
    "LayerPattern",
    "Mask",
    "QueryKeyNorm",
    "ReferenceKernel",
    "SDPAKernel",
    "ScoreChange",
    "TiledKernel",
    "causal_mask",
]
