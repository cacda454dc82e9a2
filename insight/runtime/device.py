"""The device that a command uses, and how its arithmetic treats the smallest numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch


def flush_denormals() -> bool:
    """Let torch's CPU arithmetic take numbers below 1e-38 for zero, and say whether it does.

    Softmax weights of far keys are such numbers where scores fall with the distance (ALiBi), and so are old
    averages of gradients. A thread inherits the setting from the one that starts it, so this comes before
    torch starts its own: at the start of a command. A program of your own calls it, or
    ``torch.set_flush_denormal(True)``, before its first computation.
    """
    import torch

    return torch.set_flush_denormal(True)


def usable_device(name: str) -> torch.device:
    """The device called ``name``, after it has been tried; the CPU flushes denormal numbers from now on.

    Raises:
        ConfigError: torch cannot use it here.
    """
    import torch

    flush_denormals()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("torch cannot use it here", "use cpu", option="--device", value=name) from error
    return device
