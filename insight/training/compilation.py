"""The choice whether training compiles the network, and a description of its attention kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class CompileChoice:
    """The user's choice whether to compile the network: ``on``, ``off`` or ``auto``."""

    value: str

    def __post_init__(self) -> None:
        if self.value not in ("auto", "on", "off"):
            match = nearest(self.value, ("auto", "on", "off"))
            raise ConfigError(
                "unknown choice", f"use {match or 'auto, on or off'}", option="compile", value=self.value
            )

    def check_network_in_parts(self) -> None:
        """Refuse to compile a network that is sharded over processes.

        Raises:
            ConfigError: The choice is ``on``.
        """
        if self.value == "on":
            raise ConfigError(
                "a network that is cut over processes runs eager",
                "use --model.compile off, or --trainer.strategy ddp",
                option="compile",
                value="on",
            )


def compiled_or_eager(
    network: nn.Module, choice: CompileChoice, expected_seconds: float | Callable[[float], float]
) -> Callable[..., torch.Tensor]:
    """The function that training calls: the network itself or its compiled form (same parameters).

    ``expected_seconds`` is the duration of the run, or a function of the matmul rate in FLOP/s.
    """
    if choice.value == "off":
        return network
    if choice.value == "auto":
        if callable(expected_seconds):
            hardware = measure_hardware()
            rate = max(hardware.matmul_flops.values(), default=0.0)
            expected_seconds = expected_seconds(_TYPICAL_SHARE * rate) if rate else 0.0
        if expected_seconds < _SECONDS_TO_REPAY:
            return network
    if next(network.parameters()).device.type == "cpu" and compiler_path() is None:
        say("compile: no C++ compiler found, or torch lies under a path with a space; training runs eager")
        return network
    say(f"compile: {choice.value}; the first step takes up to a minute longer")
    compiled: Callable[..., torch.Tensor] = torch.compile(network, dynamic=False)
    return compiled


def kernels_of(network: nn.Module, device: str, precision: str, num_tokens: int) -> list[str]:
    """One entry for each attention kernel of the network, with the reason and the number of layers.

    Args:
        network: A network; one without Insight's attention gives an empty list.
        device: ``"cpu"`` or ``"cuda"``.
        precision: Lightning's name, e.g. ``"bf16-mixed"``.
        num_tokens: Length of a sequence.
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
