"""Activation checkpointing: forget what the backward pass needs, and compute it again there.

Chen et al. 2016, arXiv 1604.06174.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from insight.models.checks import require_positive
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


class Recomputable(nn.Module):
    """A module that can keep nothing but its inputs for the backward pass.

    Random numbers are drawn again as they were, so gradients are the same bit for bit. Where there is no
    backward pass (no gradients, or a cache) nothing changes.

    Attributes:
        part: What :class:`ActivationCheckpointing` calls it.
        recomputes: Whether it does.
    """

    part = ""
    recomputes = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Not in `forward`, which each kind writes for itself; whoever calls the module comes through here.
        if not (self.recomputes and torch.is_grad_enabled() and kwargs.get("cache") is None):
            return super().__call__(*args, **kwargs)
        return checkpoint(self._call_once, *args, use_reentrant=False, **kwargs)

    def _call_once(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@dataclass(frozen=True)
class ActivationCheckpointing(Component):
    """Less memory for about a third more time in training: activations are computed again when needed.

    Args:
        part: ``block`` keeps only what a block is given; ``attention`` forgets only the inside of attention,
            which is what grows fastest with the length where scores are held.
        every: Which blocks: every so many-th, from the first on; 1 = all.
    """

    part: Literal["block", "attention"] = "block"
    every: int = 1

    def __post_init__(self) -> None:
        require_positive(every=self.every)
        if self.part not in ("block", "attention"):
            raise ConfigError(f"part={self.part!r}: there is no such part", "use block or attention")

    def build(self, blocks: Iterable[nn.Module]) -> None:
        """Switch it on in the blocks of a network."""
        for block in itertools.islice(blocks, 0, None, self.every):
            for module in block.modules():
                if isinstance(module, Recomputable) and module.part == self.part:
                    module.recomputes = True
