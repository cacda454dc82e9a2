"""Kernels: how softmax(q k^T * scale) v is computed under a mask."""

from insight.models.attention.kernels.auto import AutoKernel, KernelName, make_kernel
from insight.models.attention.kernels.base import Kernel, ScoreChange, Situation, soft_cap
from insight.models.attention.kernels.flex import FlexKernel
from insight.models.attention.kernels.fused import SDPAKernel, TiledKernel
from insight.models.attention.kernels.reference import ReferenceKernel

__all__ = [
    "AutoKernel",
    "FlexKernel",
    "Kernel",
    "KernelName",
    "ReferenceKernel",
    "SDPAKernel",
    "ScoreChange",
    "Situation",
    "TiledKernel",
    "make_kernel",
    "soft_cap",
]
