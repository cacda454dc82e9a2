"""The device that a command uses, and how its arithmetic treats very small numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch


def flush_denormals() -> bool:
    """Make torch's CPU arithmetic treat numbers below 1e-38 as zero, and return whether it does.

    Such numbers arise as softmax weights of far keys where scores fall with the distance (ALiBi), and as old
    averages of gradients. Each thread inherits the setting from the thread that starts it, so a command calls
    this before torch starts its threads. Call it, or ``torch.set_flush_denormal(True)``, before the first
    computation of your own program.
    """
    import torch

    return torch.set_flush_denormal(True)


def usable_device(name: str) -> torch.device:
    """The device called ``name``, after a trial; from now on the CPU treats denormal numbers as zero.

    Raises:
        ConfigError: torch cannot use the device on this machine.
    """
    import torch

    flush_denormals()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("torch cannot use it here", "use cpu", option="--device", value=name) from error
    return device
