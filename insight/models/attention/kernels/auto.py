"""Which kernel a name stands for, and which one is the fastest for a call."""

from __future__ import annotations

import torch

from insight.models.attention.kernels.base import Kernel
from insight.models.attention.kernels.reference import ReferenceKernel
from insight.models.attention.kernels.sdpa import SDPAKernel
from insight.models.attention.kernels.tiled import TiledKernel
from insight.models.attention.masks import Mask
from insight.runtime.errors import ConfigError, nearest

# Lengths up to which tiles beat the fused kernel (forward and backward, measured on CPUs with AMX, with
# AVX-512 bfloat16 and with AVX2): at 128 tokens by 2 to 5 times in bfloat16 and not in float32, at 512 by
# 1.5 times and 1.1 times, at 1024 no longer.
_LONGEST_TILED = 512
_SHORTEST_TILED_FLOAT32 = 129


class AutoKernel(Kernel):
    """Tiled for training on short sequences on a CPU, in bfloat16 where it multiplies it in hardware.

    Fused otherwise. A rule, not a measurement: a resumed run must take the kernel that the interrupted
    one took.
    """

    def __init__(self) -> None:
        self.sdpa: Kernel = SDPAKernel()
        self.tiled: Kernel = TiledKernel()
        self.fast_bfloat16 = _multiplies_bfloat16()

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, scale: float
    ) -> torch.Tensor:
        length = query.shape[2]
        wins = (
            self.fast_bfloat16
            if query.dtype == torch.bfloat16
            else query.dtype == torch.float32 and length >= _SHORTEST_TILED_FLOAT32
        )
        trains = query.requires_grad and torch.is_grad_enabled()
        tiled = wins and trains and query.device.type == "cpu" and length <= _LONGEST_TILED
        return (self.tiled if tiled else self.sdpa)(query, key, value, mask, scale)


def _multiplies_bfloat16() -> bool:
    # A private question, so torch may stop answering it; then the fused kernel is the safe choice.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


_KERNELS: dict[str, type[Kernel]] = {
    "auto": AutoKernel,
    "sdpa": SDPAKernel,
    "tiled": TiledKernel,
    "reference": ReferenceKernel,
}


def make_kernel(name: str) -> Kernel:
    """The kernel called ``name``: ``auto``, ``sdpa``, ``tiled`` or ``reference``.

    Raises:
        ConfigError: There is no such kernel.
    """
    if name not in _KERNELS:
        match = nearest(name, _KERNELS)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(_KERNELS)}"
        raise ConfigError(f"kernel={name!r} is unknown", remedy)
    return _KERNELS[name]()
