"""The choice whether training compiles the network, and a description of its attention kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

from insight.models import AttentionModule
from insight.runtime.errors import ConfigError, nearest
from insight.runtime.hardware import compiler_path, measure_hardware
from insight.runtime.messages import say

# Compiling takes 25 to 60 s on two cores and makes each step about a fifth faster, so it is repaid after
# three to five minutes; from ten minutes on it is clearly worth it.
_SECONDS_TO_REPAY = 600.0
# In eager mode small networks reach about this share of the measured matmul rate.
_TYPICAL_SHARE = 0.25


def check_compile_choice(value: str) -> str:
    """The option ``compile``, if it is ``auto``, ``on`` or ``off``; otherwise a :class:`ConfigError`."""
    choices = ("auto", "on", "off")
    if value not in choices:
        remedy = f"use {nearest(value, choices) or 'auto, on or off'}"
        raise ConfigError("unknown choice", remedy, option="compile", value=value)
    return value


def refuse_compiling_parts(choice: str) -> None:
    """Refuse to compile a network that is sharded over processes."""
    if choice == "on":
        raise ConfigError(
            "a network that is cut over processes runs eager",
            "use --model.compile off, or --trainer.strategy ddp",
            option="compile",
            value="on",
        )


def compiled_or_eager(
    network: nn.Module, choice: str, expected_seconds: float | Callable[[float], float]
) -> Callable[..., torch.Tensor]:
    """The function that training calls: the network itself or its compiled form (same parameters).

    ``expected_seconds`` is the duration of the run, or a function of the matmul rate in FLOP/s.
    """
    if choice == "off":
        return network
    if choice == "auto":
        if callable(expected_seconds):
            rate = max(measure_hardware().matmul_flops.values(), default=0.0)
            expected_seconds = expected_seconds(_TYPICAL_SHARE * rate) if rate else 0.0
        if expected_seconds < _SECONDS_TO_REPAY:
            return network
    if next(network.parameters()).device.type == "cpu" and compiler_path() is None:
        say("compile: no C++ compiler found, or torch lies under a path with a space; training runs eager")
        return network
    say(f"compile: {choice}; the first step takes up to a minute longer")
    compiled: Callable[..., torch.Tensor] = torch.compile(network, dynamic=False)
    return compiled


def kernels_of(network: nn.Module, device: str, precision: str, num_tokens: int) -> list[str]:
    """One entry for each attention kernel of the network, with the reason and the number of layers.

    ``precision`` is Lightning's name, e.g. ``"bf16-mixed"``, and ``num_tokens`` the length of a sequence.
    """
    half = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    dtype = half if precision.startswith(("bf16", "16")) else torch.float32
    found: Counter[str] = Counter()
    for module in network.modules():
        if isinstance(module, AttentionModule):
            description = module.describe_kernel(device, dtype, num_tokens)
            found.update([description] if description else [])
    return [f"{text} ({count} layer{'s' if count > 1 else ''})" for text, count in found.items()]
