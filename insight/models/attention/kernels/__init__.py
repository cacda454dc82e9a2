"""Kernels: how softmax(q k^T * scale) v is computed under a mask."""

from insight.models.attention.kernels.auto import AutoKernel as AutoKernel
from insight.models.attention.kernels.auto import KernelName as KernelName
from insight.models.attention.kernels.auto import check_kernel as check_kernel
from insight.models.attention.kernels.auto import make_kernel as make_kernel
from insight.models.attention.kernels.base import Kernel as Kernel
from insight.models.attention.kernels.base import ScoreChange as ScoreChange
from insight.models.attention.kernels.base import Situation as Situation
from insight.models.attention.kernels.base import soft_cap as soft_cap
from insight.models.attention.kernels.flex import FlexKernel as FlexKernel
from insight.models.attention.kernels.fused import SDPAKernel as SDPAKernel
from insight.models.attention.kernels.fused import TiledKernel as TiledKernel
from insight.models.attention.kernels.reference import ReferenceKernel as ReferenceKernel
