"""The device that ``--device`` names."""

from __future__ import annotations

import torch

from insight.runtime.denormals import flush_denormals
from insight.runtime.errors import ConfigError


def usable_device(name: str) -> torch.device:
    """The device called ``name``, after it has been tried; on a CPU denormal numbers are flushed from now on.

    Raises:
        ConfigError: torch cannot use it here.
    """
    flush_denormals()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device={name}: torch cannot use it here", "use cpu") from error
    return device
