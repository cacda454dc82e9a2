"""Which attention kernels a run takes, in words."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from insight.models import AttentionModule


def kernels_of(network: nn.Module, device: str, precision: str, num_tokens: int) -> list[str]:
    """One entry for each kernel of the network's layers, with the reason and the number of layers.

    Args:
        network: Any network with attention of Insight inside; others give an empty list.
        device: ``"cpu"`` or ``"cuda"``.
        precision: Lightning's name, e.g. ``"bf16-mixed"``.
        num_tokens: Of a sequence.
    """
    dtype = torch.float32
    if precision.startswith("bf16"):
        dtype = torch.bfloat16
    elif precision.startswith("16"):
        dtype = torch.float16
    found: Counter[str] = Counter()
    for module in network.modules():
        if isinstance(module, AttentionModule):
            description = module.describe_kernel(device, dtype, num_tokens)
            found.update([description] if description else [])
    return [f"{text} ({count} layer{'s' if count > 1 else ''})" for text, count in found.items()]
