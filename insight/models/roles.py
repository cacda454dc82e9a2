"""What each parameter is for, so that optimizers, decay and initialisation can treat it rightly."""

from __future__ import annotations

import torch
from torch import nn

from insight.models.linear import Projection, StackedProjection


def parameter_role(network: nn.Module) -> dict[str, str]:
    """The role of every parameter by its name in ``network.named_parameters()``.

    Roles: ``embedding`` (token table), ``head`` (output matrix of its own), ``hidden`` (matrices inside
    blocks, of three dimensions where experts are stacked), ``router`` (scores of experts), ``vector`` (norm
    factors, biases, scalars, tables of positions). A matrix that serves as both embedding and head is an
    ``embedding``.
    """
    roles: dict[str, str] = {}
    owners = dict(network.named_modules())
    for name, parameter in network.named_parameters():
        owner = owners[name.rpartition(".")[0]]
        tag = getattr(owner, "parameter_role", "hidden")
        is_vector = parameter.ndim < 2 or name.endswith(".bias")  # stacked biases have two dimensions
        roles[name] = "vector" if is_vector else str(tag)
    return roles


def muon_splits(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Row counts of the separate matrices inside each fused weight, by parameter name.

    Muon orthogonalises matrices as wholes, so it must treat ``weight.split(rows, dim=-2)`` one by one,
    of each expert where these are stacked. Weights that hold one matrix (each) are not listed.
    """
    return {
        f"{name}.weight" if name else "weight": module.splits
        for name, module in network.named_modules()
        if isinstance(module, (Projection, StackedProjection)) and len(module.splits) > 1
    }


def row_orders(network: nn.Module) -> dict[str, torch.Tensor]:
    """Of each parameter whose rows lie in another order the order, by parameter name."""
    return {
        f"{name}.{kind}" if name else kind: module.row_order
        for name, module in network.named_modules()
        if isinstance(module, Projection) and module.row_order is not None
        for kind, _ in module.named_parameters()
    }


def row_orders_by_parameter(network: nn.Module) -> dict[torch.Tensor, torch.Tensor]:
    """As :func:`row_orders`, by the parameter itself."""
    orders = row_orders(network)
    return {parameter: orders[name] for name, parameter in network.named_parameters() if name in orders}
