"""What cross-attention reads: another sequence, or keys and values made of it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from insight.models.masks import BidirectionalMask, Mask, PaddingMask

ProjectMemory = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""States ``(batch, source, size)`` to keys and values ``(batch, num_key_value_heads, source, head_dim)``."""


@dataclass(frozen=True)
class Memory:
    """Another sequence that a decoder's cross-attention reads.

    Args:
        states: ``(batch, source, size)``.
        mask: Which of them each query sees.
    """

    states: torch.Tensor
    mask: Mask = BidirectionalMask()

    def keys_and_values(self, project: ProjectMemory) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, made anew."""
        return project(self.states)


class CrossCache:
    """Keys and values of a memory for one layer, computed once a sequence and read by every step.

    They do not grow with what is decoded, so taking tokens back leaves them as they are.

    Args:
        memory: What they are made of.
        project: What makes them.
        dtype: Of the stored keys and values.

    Attributes:
        keys: ``(batch, num_key_value_heads, source, head_dim)``.
        values: Like ``keys``.
        mask: Which of them each query sees.
    """

    def __init__(self, memory: Memory, project: ProjectMemory, dtype: torch.dtype) -> None:
        keys, values = memory.keys_and_values(project)
        self.keys, self.values = keys.to(dtype), values.to(dtype)
        self.mask = memory.mask

    def keys_and_values(self, project: ProjectMemory) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values as they are stored; ``project`` is not called."""
        return self.keys, self.values

    def reorder(self, rows: torch.Tensor) -> None:
        """Row i becomes what row ``rows[i]`` was; rows may repeat and be dropped."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        if isinstance(self.mask, PaddingMask):
            self.mask = PaddingMask(self.mask.tokens[rows])
