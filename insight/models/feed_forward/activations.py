"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from insight.runtime.errors import ConfigError, nearest

ActivationName = Literal["gelu", "gelu_tanh", "relu", "relu_squared", "silu"]
Activation = Callable[[torch.Tensor], torch.Tensor]


def gelu_tanh(values: torch.Tensor) -> torch.Tensor:
    """GELU by its tanh approximation, which GPT-2 and Gemma were trained with (arXiv 1606.08415)."""
    return F.gelu(values, approximate="tanh")


def relu_squared(values: torch.Tensor) -> torch.Tensor:
    """relu(x)^2 (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(values).square()


_ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "relu_squared": relu_squared,
    "silu": F.silu,
}


def find_activation(name: str) -> Activation:
    """The function called ``name``.

    Raises:
        ConfigError: There is no such function.
    """
    if name not in _ACTIVATIONS:
        match = nearest(name, _ACTIVATIONS)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(_ACTIVATIONS)}"
        raise ConfigError(f"activation={name!r} is unknown", remedy)
    return _ACTIVATIONS[name]
