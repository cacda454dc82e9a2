"""Linear maps with a role in the network, by which optimizers and initialisation can group them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A custom operator, because a compiler cannot trace slices whose sizes depend on the data.


@torch.library.custom_op("insight::grouped_linear", mutates_args=())
def grouped_linear(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Compute ``rows[start:end] @ weight[group].T`` for every group, ``(rows, outputs)``.

    Args:
        rows: ``(rows, inputs)``, group after group.
        weight: ``(groups, outputs, inputs)``, of the dtype of ``rows``.
        ends: int64 ``(groups,)``: the end of each group's rows; a group may be empty.
    """
    if has_fused_kernel(rows, weight):
        return F.grouped_mm(rows, weight.mT, offs=ends.int())
    output = rows.new_empty(rows.shape[0], weight.shape[1])
    for group, members in _groups(ends):
        torch.mm(rows[members], weight[group].T, out=output[members])
    return output


@torch.library.custom_op("insight::grouped_linear_backward", mutates_args=())
def grouped_linear_backward(
    gradient: Tensor, rows: Tensor, weight: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``rows`` and ``weight`` for that of the output of :func:`grouped_linear`."""
    if has_fused_kernel(rows, weight):
        gradient, offsets = gradient.contiguous(), ends.int()
        return F.grouped_mm(gradient, weight, offs=offsets), F.grouped_mm(gradient.mT, rows, offs=offsets)
    rows_gradient, weight_gradient = torch.empty_like(rows), torch.zeros_like(weight)
    for group, members in _groups(ends):
        torch.mm(gradient[members], weight[group], out=rows_gradient[members])
        torch.mm(gradient[members].T, rows[members], out=weight_gradient[group])
    return rows_gradient, weight_gradient


def has_fused_kernel(rows: Tensor, weight: Tensor) -> bool:
    """Whether one kernel multiplies all groups: in bfloat16 on CUDA, with rows of multiples of 16 bytes."""
    sizes = weight.shape[1:]
    return rows.is_cuda and rows.dtype == torch.bfloat16 and not any(size % 8 for size in sizes)


def _groups(ends: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield the number and the rows of every group that is not empty."""
    start = 0
    for group, end in enumerate(ends.tolist()):
        if end > start:
            yield group, slice(start, end)
        start = end


@grouped_linear.register_fake
def _(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])


@grouped_linear_backward.register_fake
def _(gradient: Tensor, rows: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows), torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    return *grouped_linear_backward(gradient, *ctx.saved_tensors), None


grouped_linear.register_autograd(_backward, setup_context=_save)


class Projection(nn.Linear):
    """A linear map inside a block; several maps of one input share one matrix product.

    Args:
        in_features: Size of the input.
        splits: Output sizes of the fused maps, in order; their rows are concatenated. An optimizer that
            treats whole matrices (Muon) must split the rows accordingly.
        bias: Whether there is a bias, which begins at zero.
        writes_residual: Whether the output is added to the residual stream (initialisation scales these).

    Attributes:
        row_order: The stored order of the rows where it differs: processes that share the matrices need their
            parts of each in one piece.
    """

    parameter_role = "hidden"
    row_order: Tensor | None = None

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

    def parts(self) -> tuple[Tensor, ...]:
        """Return views of the fused matrices, each ``(split, in_features)``."""
        return torch.split(self.weight, list(self.splits))


class StackedProjection(nn.Module):
    """Linear maps of one shape, one of which maps each row: the experts of a mixture.

    Weights are ``(num_maps, sum(splits), in_features)``, biases ``(num_maps, sum(splits))``.

    Args:
        num_maps: Number of maps.
        num_active: Number of maps that a token passes through.
        in_features: Size of the input.
        splits: Output sizes of the fused parts of every map; this and the rest is as in :class:`Projection`.
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
        self.num_maps, self.num_active, self.in_features = num_maps, num_active, in_features
        self.splits, self.writes_residual = tuple(splits), writes_residual
        self.weight = nn.Parameter(torch.empty(num_maps, sum(splits), in_features))
        self.bias = nn.Parameter(torch.empty(num_maps, sum(splits))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, rows: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """Pass each row through its map.

        Args:
            rows: ``(rows, in_features)``, ordered by their maps.
            owners: int64 ``(rows,)``: the map of each row.
            ends: int64 ``(num_maps,)``: the end of each map's rows.

        Returns:
            ``(rows, sum(splits))``, in the dtype of autocast where that is on.
        """
        device = rows.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        output: Tensor = grouped_linear(rows.to(dtype), self.weight.to(dtype), ends)
        return output if self.bias is None else output + self.bias.to(dtype).index_select(0, owners)

    def num_active_weights(self) -> int:
        """Number of matrix entries that multiply a token."""
        return self.weight.numel() // self.num_maps * self.num_active

    def num_idle_parameters(self) -> int:
        """Number of parameters, biases included, that a token does not use."""
        total = sum(parameter.numel() for parameter in self.parameters())
        return total // self.num_maps * (self.num_maps - self.num_active)


class TokenEmbedding(nn.Embedding):
    """Token ids to vectors; its matrix may also serve as the output head."""

    parameter_role = "embedding"


class OutputHead(nn.Linear):
    """Hidden states to vocabulary scores, with its own matrix and optionally a bias that begins at zero."""

    parameter_role = "head"

    def __init__(self, hidden_size: int, vocabulary_size: int, bias: bool = False) -> None:
        super().__init__(hidden_size, vocabulary_size, bias=bias)


def parameter_role(network: nn.Module) -> dict[str, str]:
    """Return the role of every parameter by its name in ``network.named_parameters()``.

    Roles: ``embedding`` (token table, also if it serves as head), ``head`` (any other output matrix),
    ``hidden`` (matrices inside blocks, with three dimensions for experts), ``router`` (scores of experts),
    ``vector`` (norm factors, biases, scalars, tables of positions).
    """
    roles: dict[str, str] = {}
    owners = dict(network.named_modules())
    for name, parameter in network.named_parameters():
        is_vector = parameter.ndim < 2 or name.endswith(".bias")  # stacked biases have two dimensions
        owner = owners[name.rpartition(".")[0]]
        roles[name] = "vector" if is_vector else str(getattr(owner, "parameter_role", "hidden"))
    return roles


def muon_splits(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the row counts of the matrices inside each weight that fuses several, by parameter name.

    Muon orthogonalises the parts of ``weight.split(rows, dim=-2)`` one by one, for each expert of a stack.
    """
    return {
        f"{name}.weight" if name else "weight": module.splits
        for name, module in network.named_modules()
        if isinstance(module, (Projection, StackedProjection)) and len(module.splits) > 1
    }


def row_orders(network: nn.Module) -> dict[str, Tensor]:
    """Return the row order of each parameter whose rows are stored in another order, by parameter name."""
    return {
        f"{name}.{kind}" if name else kind: module.row_order
        for name, module in network.named_modules()
        if isinstance(module, Projection) and module.row_order is not None
        for kind, _ in module.named_parameters()
    }


def row_orders_by_parameter(network: nn.Module) -> dict[Tensor, Tensor]:
    """Return :func:`row_orders` by the parameters themselves."""
    orders = row_orders(network)
    return {parameter: orders[name] for name, parameter in network.named_parameters() if name in orders}
