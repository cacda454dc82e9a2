"""Activation checkpointing: the backward pass computes activations again.

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

from insight.models.checks import require_known, require_positive
from insight.runtime.component import Component


class Recomputable(nn.Module):
    """A module that can keep nothing but its inputs for the backward pass.

    Random numbers are drawn again as they were, so gradients are the same bit for bit. Where there is no
    backward pass (no gradients, or a cache in the call's context) nothing changes.

    Attributes:
        part: The name that :class:`ActivationCheckpointing` has for it.
        recomputes: Whether it keeps only its inputs.
    """

    part = ""
    recomputes = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Every call of a module comes through here, while each kind writes a `forward` of its own.
        if not self.recomputes or not torch.is_grad_enabled():
            return super().__call__(*args, **kwargs)
        if any(getattr(argument, "cache", None) is not None for argument in args):
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
        every: Distance of the blocks that do this, counted from the first block on; 1 = all of them.
    """

    part: Literal["block", "attention"] = "block"
    every: int = 1

    def __post_init__(self) -> None:
        require_positive(every=self.every)
        require_known("part", self.part, ("block", "attention"))

    def build(self, blocks: Iterable[nn.Module]) -> None:
        """Switch it on in the blocks of a network."""
        for block in itertools.islice(blocks, 0, None, self.every):
            for module in block.modules():
                if isinstance(module, Recomputable) and module.part == self.part:
                    module.recomputes = True
