"""Linear maps that know their place in the network, so that optimizers and initialisation can group them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Projection(nn.Linear):
    """A linear map inside a block; several maps of one input share one matrix product.

    Args:
        in_features: Size of the input.
        splits: Output sizes of the maps that are fused, in order; their rows lie one below the other.
        bias: Whether there is a bias; it begins at zero.
        writes_residual: Whether the output is added to the residual stream (initialisation scales these).

    Attributes:
        splits: As given. An optimizer that treats matrices as wholes (Muon) must split the rows so.
        writes_residual: As given.
    """

    parameter_role = "hidden"

    def __init__(
        self, in_features: int, splits: Sequence[int], *, bias: bool = False, writes_residual: bool = False
    ) -> None:
        super().__init__(in_features, sum(splits), bias=bias)
        self.splits = tuple(splits)
        self.writes_residual = writes_residual

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def parts(self) -> tuple[torch.Tensor, ...]:
        """Views of the fused matrices, each ``(split, in_features)``."""
        return torch.split(self.weight, list(self.splits))


class TokenEmbedding(nn.Embedding):
    """Token ids to vectors; its matrix may also serve as the output head."""

    parameter_role = "embedding"


class OutputHead(nn.Linear):
    """Hidden states to vocabulary scores, with a matrix of its own."""

    parameter_role = "head"

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__(hidden_size, vocabulary_size, bias=False)
