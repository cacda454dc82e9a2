"""Which modules of a network a method takes, and why it leaves each of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from insight.models import Decoder, RouterProjection, StackedProjection
from insight.optimization.report import KeptModule

TIED_HEAD = KeptModule("head", "tied: its matrix is that of the embedding, which only looks rows up")
_ROUTER = "it chooses experts: rounding would choose others"
_EXPERTS = "experts stacked in one tensor, which the integer products do not take"


@dataclass(frozen=True)
class Selection:
    """A division of a network's modules.

    Attributes:
        quantized: Modules to quantize, by name.
        kept: The others that hold parameters, with the reasons.
    """

    quantized: dict[str, nn.Module]
    kept: tuple[KeptModule, ...]


def select_linear_maps(
    network: Decoder, *, group_size: int | None = None, keep_head: str | None = None
) -> Selection:
    """The linear maps of a network with a matrix of their own.

    Args:
        network: To look through.
        group_size: Inputs that share a scale; a map whose inputs it does not divide is kept.
        keep_head: Why the output head is kept; ``None`` quantizes it.
    """
    quantized: dict[str, nn.Module] = {}
    kept = []
    for name, module in modules_with_parameters(network):
        if isinstance(module, RouterProjection):
            kept.append(KeptModule(name, _ROUTER))
        elif isinstance(module, StackedProjection):
            kept.append(KeptModule(name, _EXPERTS))
        elif not isinstance(module, nn.Linear):
            looked_up = isinstance(module, nn.Embedding)
            reason = "its rows are looked up, not multiplied" if looked_up else "not a linear map"
            kept.append(KeptModule(name, reason))
        elif group_size is not None and module.in_features % group_size:
            kept.append(
                KeptModule(name, f"group_size={group_size} does not divide its {module.in_features} inputs")
            )
        elif module is network.head and keep_head is not None:
            kept.append(KeptModule(name, keep_head))
        else:
            quantized[name] = module
    if network.head is None:
        kept.append(TIED_HEAD)
    return Selection(quantized, tuple(kept))


def modules_with_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module that holds parameters itself, by name; a shared one once."""
    for name, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            yield name, module
