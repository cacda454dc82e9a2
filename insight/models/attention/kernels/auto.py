"""The kernels by name, and the choice of the fastest one for a call."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor

from insight.models.attention.kernels.base import PLAIN, Kernel, ScoreChange, Situation
from insight.models.attention.kernels.flex import FlexKernel
from insight.models.attention.kernels.fused import SDPAKernel, TiledKernel
from insight.models.attention.kernels.reference import PlainKernel, ReferenceKernel
from insight.models.checks import require, require_known, require_number
from insight.models.masks import BidirectionalMask, CausalMask, DocumentMask, Mask, PrefixMask

KernelName = Literal["auto", "sdpa", "tiled", "flex", "reference"]

# Measured, forward and backward, against the fused kernel in bfloat16: tiles are 5 times as fast at 128
# tokens with AMX, 2 at 256, 1.5 at 512, and slower at 1024; without AMX 2 and 1.3 times at 128 and 256. In
# float32 a network gains nothing. On a CPU without bfloat16 products tiles take twice the time.
_LONGEST_TILED = 512
# Queries of one block of FlexAttention: with fewer there is nothing to skip, and decoding would recompile.
_FLEX_BLOCK = 128


class AutoKernel(Kernel):
    """Flex on CUDA for what fused kernels cannot do, tiled for short training in bfloat16 on a CPU that
    multiplies it in hardware, fused otherwise.

    A fixed rule chooses, not a measurement: a resumed run must use the kernel of the interrupted one.
    """

    name = "auto"
    caps_scores = True

    def __init__(self) -> None:
        self.plain: Kernel = PlainKernel()
        self.reference: Kernel = ReferenceKernel()
        self.sdpa: Kernel = SDPAKernel()
        self.tiled: Kernel = TiledKernel()
        self.flex: Kernel = FlexKernel()
        self.fast_bfloat16 = _multiplies_bfloat16()
        self.compiles_flex = importlib.util.find_spec("triton") is not None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, change: ScoreChange = PLAIN
    ) -> Tensor:
        trains = query.requires_grad and torch.is_grad_enabled()
        if not trains and query.device.type == "cpu" and change.soft_cap is None:
            return self.sdpa(query, key, value, mask, scale, change)  # without a look at the rest, for speed
        device, wide_keys = query.device.type, key.shape[-1] > value.shape[-1]
        situation = Situation(device, query.dtype, query.shape[2], trains, mask, change, wide_keys)
        return self.choose(situation)[0](query, key, value, mask, scale, change)

    def describe(self, situation: Situation) -> str:
        kernel, reason = self.choose(situation)
        return f"{kernel.name}, {reason}"

    def choose(self, situation: Situation) -> tuple[Kernel, str]:
        """Return the kernel for a situation and the reason for it."""
        change = situation.change
        flex_can = self.compiles_flex and not change.dropout and situation.num_queries >= _FLEX_BLOCK
        if situation.device == "cuda" and flex_can:
            reason = _needs_flex(situation)
            if reason:
                return self.flex, reason
        if change.soft_cap is not None:
            # The reference where a kernel without sinks would bound these too, or a bias needs the square.
            square = change.sinks is not None or change.bias is not None
            return self.reference if square else self.plain, "since no fused kernel here bounds scores"
        tiled = (
            self.fast_bfloat16
            and situation.dtype == torch.bfloat16
            and situation.device == "cpu"
            and situation.num_queries <= _LONGEST_TILED
            and situation.trains
            and not change.dropout
        )
        if tiled:
            return self.tiled, f"the fastest to train up to {_LONGEST_TILED} tokens in bfloat16 on this CPU"
        return self.sdpa, "the fastest here"


def _needs_flex(situation: Situation) -> str:
    """The reason for flex on CUDA; empty where torch's fused kernels are as good."""
    if situation.change.soft_cap is not None:
        return "which bounds scores inside the kernel"
    if situation.wide_keys:
        return "since fused kernels want keys as wide as values"
    mask = situation.mask
    if isinstance(mask, DocumentMask):
        if mask.lengths is None:
            return "which skips what documents in pieces hide"
        mask = mask.inside
    if isinstance(mask, PrefixMask):
        return "which needs no written-out prefix"
    if isinstance(mask, CausalMask) and mask.chunk_size is not None:
        return "which skips what the chunks hide"
    if isinstance(mask, (CausalMask, BidirectionalMask)) and mask.window is not None:
        return "which skips what the window hides"
    return ""


def _multiplies_bfloat16() -> bool:
    # This is a private function of torch and may vanish; then the fused kernel is the safe choice.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


_KERNELS: dict[str, type[Kernel]] = {
    kernel.name: kernel for kernel in (AutoKernel, SDPAKernel, TiledKernel, FlexKernel, ReferenceKernel)
}


def make_kernel(name: str) -> Kernel:
    """Make the kernel called ``name``, one of :data:`KernelName`."""
    require_known("kernel", name, _KERNELS)
    return _KERNELS[name]()


def check_kernel(name: str, dropout: float, score_soft_cap: float | None = None) -> None:
    """Refuse an unknown kernel, a share of dropped weights that is none, and what the kernel cannot do."""
    require_number(0, 1, "use 0 to 0.3", low_allowed=True, dropout=dropout)
    kernel = make_kernel(name)
    problem = f"it cannot bound the scores (score_soft_cap={score_soft_cap})"
    require(score_soft_cap is None or kernel.caps_scores, problem, "use auto or reference", kernel=name)
    problem = f"it cannot drop weights (dropout={dropout})"
    require(not dropout or kernel.drops_weights, problem, "use auto, sdpa or reference", kernel=name)
