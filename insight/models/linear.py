"""Linear maps that know their place in the network, so that optimizers and initialisation can group them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from insight.models.grouped_linear import grouped_linear


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
        row_order: Rows of the fused matrices in the order in which they lie, where that is another one:
            processes that share them want each its part of every matrix in one piece.
    """

    parameter_role = "hidden"
    row_order: torch.Tensor | None = None

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


class StackedProjection(nn.Module):
    """Linear maps of one shape, of which each row goes through one: the experts of a mixture.

    Args:
        num_maps: How many there are.
        num_active: How many of them a token goes through.
        in_features: Size of the input.
        splits: As in :class:`Projection`, of every map.
        bias: Whether each map has a bias; they begin at zero.
        writes_residual: As in :class:`Projection`.

    Attributes:
        weight: ``(num_maps, sum(splits), in_features)``.
        bias: ``(num_maps, sum(splits))`` or ``None``.
        splits: As given.
        writes_residual: As given.
    """

    parameter_role = "hidden"

    def __init__(
        self,
        num_maps: int,
        num_active: int,
        in_features: int,
        splits: Sequence[int],
        *,
        bias: bool = False,
        writes_residual: bool = False,
    ) -> None:
        super().__init__()
        self.num_maps, self.num_active = num_maps, num_active
        self.in_features = in_features
        self.splits = tuple(splits)
        self.writes_residual = writes_residual
        self.weight = nn.Parameter(torch.empty(num_maps, sum(splits), in_features))
        self.bias = nn.Parameter(torch.empty(num_maps, sum(splits))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Values as of torch's own linear map, and biases of zero."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, rows: torch.Tensor, owners: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Each row through its map.

        Args:
            rows: ``(rows, in_features)``, ordered by their maps.
            owners: int64 ``(rows,)``: the map of each row.
            ends: int64 ``(num_maps,)``: where the rows of each map end.

        Returns:
            ``(rows, sum(splits))``, in the type of autocast where that is on.
        """
        device = rows.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        output: torch.Tensor = grouped_linear(rows.to(dtype), self.weight.to(dtype), ends)
        return output if self.bias is None else output + self.bias.to(dtype).index_select(0, owners)

    def num_active_weights(self) -> int:
        """Numbers of the matrices that multiply a token."""
        return self.weight.numel() // self.num_maps * self.num_active

    def num_idle_parameters(self) -> int:
        """Numbers, biases included, that take no part in a token."""
        total = sum(parameter.numel() for parameter in self.parameters())
        return total // self.num_maps * (self.num_maps - self.num_active)


class TokenEmbedding(nn.Embedding):
    """Token ids to vectors; its matrix may also serve as the output head."""

    parameter_role = "embedding"


class OutputHead(nn.Linear):
    """Hidden states to vocabulary scores, with a matrix of its own."""

    parameter_role = "head"

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__(hidden_size, vocabulary_size, bias=False)
