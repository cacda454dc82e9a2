"""A network as it is used, not trained: without dropout, without gradients, and left as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; the mode before it comes back after it."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)
