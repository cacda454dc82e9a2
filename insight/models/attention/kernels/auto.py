"""Which kernel a name stands for, and which one is the fastest for a call."""

from __future__ import annotations

import torch

from insight.models.attention.kernels.base import UNCHANGED, Kernel, ScoreChange
from insight.models.attention.kernels.plain import PlainKernel
from insight.models.attention.kernels.reference import ReferenceKernel
from insight.models.attention.kernels.sdpa import SDPAKernel
from insight.models.attention.kernels.tiled import TiledKernel
from insight.models.masks import Mask
from insight.runtime.errors import ConfigError, nearest

# Measured, forward and backward against the fused kernel in bfloat16: with AMX 5 times as fast at 128
# tokens, 2 at 256, 1.5 at 512, slower at 1024; without AMX 2 and 1.3 times at 128 and 256. In float32 a
# network is no faster with tiles. On a CPU without bfloat16 products tiles take twice the time.
_LONGEST_TILED = 512


class AutoKernel(Kernel):
    """Tiled for training in bfloat16 on a CPU that multiplies it in hardware, fused otherwise.

    A soft cap leaves plain products as the only choice. A rule, not a measurement: a resumed run
    must take the kernel that the interrupted one took.
    """

    caps_scores = True

    def __init__(self) -> None:
        self.plain: Kernel = PlainKernel()
        self.reference: Kernel = ReferenceKernel()
        self.sdpa: Kernel = SDPAKernel()
        self.tiled: Kernel = TiledKernel()
        self.fast_bfloat16 = _multiplies_bfloat16()

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Mask,
        scale: float,
        change: ScoreChange = UNCHANGED,
    ) -> torch.Tensor:
        if change.soft_cap is not None:
            # The reference where a kernel that knows no sinks would bound these too, or biases need a square.
            square = change.sinks is not None or change.bias is not None
            return (self.reference if square else self.plain)(query, key, value, mask, scale, change)
        tiled = (
            self.fast_bfloat16
            and query.dtype == torch.bfloat16
            and query.device.type == "cpu"
            and query.shape[2] <= _LONGEST_TILED
            and query.requires_grad
            and torch.is_grad_enabled()
        )
        return (self.tiled if tiled else self.sdpa)(query, key, value, mask, scale, change)


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
