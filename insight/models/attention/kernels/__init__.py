"""How softmax(q k^T * scale) v is computed under a mask: one file a kernel."""

from insight.models.attention.kernels.auto import AutoKernel, make_kernel
from insight.models.attention.kernels.base import Kernel, ScoreChange
from insight.models.attention.kernels.reference import ReferenceKernel
from insight.models.attention.kernels.sdpa import SDPAKernel
from insight.models.attention.kernels.tiled import TiledKernel

__all__ = [
    "AutoKernel",
    "Kernel",
    "ReferenceKernel",
    "SDPAKernel",
    "ScoreChange",
    "TiledKernel",
    "make_kernel",
]
