"""Where an optimized model is meant to run."""

from __future__ import annotations

import platform
from typing import Literal, get_args

import torch

Target = Literal["cpu-x86", "cpu-arm", "cuda", "mobile"]
TARGETS: tuple[str, ...] = get_args(Target)

_X86 = ("x86_64", "amd64", "i386", "i686")


def this_target(device: torch.device | str = "cpu") -> str:
    """The target that a device of this machine is: one of ``TARGETS``, or the device's own name."""
    kind = torch.device(device).type
    if kind != "cpu":
        return kind
    return "cpu-x86" if platform.machine().lower() in _X86 else "cpu-arm"
