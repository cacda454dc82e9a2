"""Small networks in which every parameter matters."""

from __future__ import annotations

from typing import Any

import torch


def build_shaken(config: Any, *vocabulary_sizes: int, noise: float) -> Any:
    """The network of ``config``, from a fixed seed, in float64.

    First values hide mistakes: factors are 1, biases 0 and outputs small. So each gets some noise.

    Args:
        config: Has ``build``.
        vocabulary_sizes: For ``build``.
        noise: Its standard deviation.
    """
    torch.manual_seed(0)
    network = config.build(*vocabulary_sizes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return network.double()
