"""Whether a method's kernels run on a machine: tried on a network of a few thousand weights."""

from __future__ import annotations

import numpy as np
import torch

from insight.models import DecoderConfig, GroupedQueryAttention, SwiGLU
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.methods.base import QuantizationMethod

_WIDTH = 32
_VOCABULARY = 16


def kernel_problem(
    method: QuantizationMethod, config: QuantizationConfig, device: torch.device
) -> str | None:
    """Quantize a tiny network and let it read and write; ``None`` when that works.

    Compiling is not tried: it takes seconds, and that a compiler exists is checked apart.

    Args:
        method: To try.
        config: The user's.
        device: Where.

    Returns:
        The first line of what went wrong.
    """
    width = _WIDTH if config.group_size is None else config.group_size * 4
    attention = GroupedQueryAttention(num_heads=2)
    shape = DecoderConfig(
        hidden_size=width, num_layers=1, attention=attention, feed_forward=SwiGLU(intermediate_size=width)
    )
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():  # whoever asks keeps their random state
        network = shape.build(_VOCABULARY).to(device).eval()
        windows = np.zeros((1, 4), dtype=np.int64)
        try:
            network.to(method.dtype(config))
            selected = method.select(network, config).quantized
            method.convert(network, selected, config, Calibration(windows, ""))
            cache = network.make_cache(2)
            for num_tokens in (4, 1):
                ids = torch.zeros(2, num_tokens, dtype=torch.int64, device=device)
                scores = network.logits(network(ids, cache=cache)[:, -1])
        except (RuntimeError, NotImplementedError, AssertionError, ValueError, TypeError) as error:
            return (str(error).splitlines() or [type(error).__name__])[0][:200]
    return None if bool(torch.isfinite(scores).all()) else "its scores are not finite"
