"""Activation checkpointing: the backward pass recomputes activations (Chen et al. 2016, arXiv 1604.06174)."""

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
    """A module that can keep only its inputs for the backward pass.

    Recomputation draws the same random numbers, so gradients are equal bit for bit. Without a backward pass
    (no gradients, or a cache in the call's context) nothing changes.

    Attributes:
        part: Name of the module's kind in :class:`ActivationCheckpointing`.
        recomputes: Whether it keeps only its inputs.
    """

    part = ""
    recomputes = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Every call of a module passes here, while each class has its own `forward`.
        if not self.recomputes or not torch.is_grad_enabled():
            return super().__call__(*args, **kwargs)
        if any(getattr(argument, "cache", None) is not None for argument in args):
            return super().__call__(*args, **kwargs)
        return checkpoint(self._call_once, *args, use_reentrant=False, **kwargs)

    def _call_once(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@dataclass(frozen=True)
class ActivationCheckpointing(Component):
    """Less memory for about a third more time in training: activations are recomputed when needed.

    Args:
        part: ``block`` keeps only the inputs of a block; ``attention`` recomputes only the inside of
            attention, which grows fastest with the length where scores are held.
        every: Distance between the blocks that recompute, counted from the first block; 1 = all of them.
    """

    part: Literal["block", "attention"] = "block"
    every: int = 1

    def __post_init__(self) -> None:
        require_positive(every=self.every)
        require_known("part", self.part, ("block", "attention"))

    def build(self, blocks: Iterable[nn.Module]) -> None:
        """Switch recomputation on in the blocks of a network."""
        for block in itertools.islice(blocks, 0, None, self.every):
            for module in block.modules():
                if isinstance(module, Recomputable) and module.part == self.part:
                    module.recomputes = True
