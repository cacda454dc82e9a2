"""Weight names of gpt-oss, whose experts are stored transposed, gate and up channel by channel."""

from __future__ import annotations

import torch

from insight.interchange.llama import ATTENTION, PRE_NORM, TOP
from insight.interchange.name_map import NameMap, rows


def _gate_before_up(tensor: torch.Tensor) -> torch.Tensor:
    """``(experts, 2 channels, ...)``: channels of gate and up in turn to all of gate, then all of up."""
    return torch.cat([tensor[:, 0::2], tensor[:, 1::2]], dim=1)


GPT_OSS = NameMap(
    TOP,
    ATTENTION
    | PRE_NORM
    | {
        "attention.sinks": rows("self_attn.sinks"),
        "feed_forward.router.projection.weight": rows("mlp.router.weight"),
        "feed_forward.router.projection.bias": rows("mlp.router.bias"),
        "feed_forward.expert_gate_up.weight": rows(
            "mlp.experts.gate_up_proj", rearrange=lambda tensor: _gate_before_up(tensor.mT)
        ),
        "feed_forward.expert_gate_up.bias": rows("mlp.experts.gate_up_proj_bias", rearrange=_gate_before_up),
        "feed_forward.expert_down.weight": rows("mlp.experts.down_proj", rearrange=lambda tensor: tensor.mT),
        "feed_forward.expert_down.bias": rows("mlp.experts.down_proj_bias"),
    },
)
