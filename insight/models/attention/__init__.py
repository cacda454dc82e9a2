"""Attention = projection x position x mask x kernel, each its own file."""

from insight.models.attention.base import Attention, AttentionModule
from insight.models.attention.grouped_query import GroupedQueryAttention
from insight.models.attention.kernels import Kernel, ReferenceKernel, SDPAKernel, TiledKernel
from insight.models.attention.masks import CausalMask, DocumentMask, Mask, causal_mask

__all__ = [
    "Attention",
    "AttentionModule",
    "CausalMask",
    "DocumentMask",
    "GroupedQueryAttention",
    "Kernel",
    "Mask",
    "ReferenceKernel",
    "SDPAKernel",
    "TiledKernel",
    "causal_mask",
]
