"""Parameter groups that share a learning rate, and freezing of parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from insight.models import parameter_role
from insight.runtime.errors import ConfigError, nearest

_BLOCK = re.compile(r"(?:^|\.)blocks\.(?P<index>\d+)\.")

DECAYED_ROLES = ("hidden", "head")
"""Roles with weight decay; norms, biases, embeddings and routers are better without."""


@dataclass(frozen=True)
class ParameterGroup:
    """Trainable parameters, by name, with the same role and factor of the learning rate for their depth."""

    role: str
    rate_factor: float
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)


def parameter_groups(network: nn.Module, layer_decay: float = 1.0) -> list[ParameterGroup]:
    """Trainable parameters by role, and by depth if ``layer_decay`` is not 1; frozen ones are left out.

    Parameters after the blocks have the full rate, the last block ``layer_decay`` times it, each block below
    ``layer_decay`` times that of the one above, and parameters before the blocks that of the first block
    times ``layer_decay`` (Clark et al. 2020, arXiv 2003.10555). Groups with a higher rate come first.
    """
    roles, depths = parameter_role(network), _depths(network)
    height = max(depths.values(), default=0)
    groups: dict[tuple[str, int], ParameterGroup] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            below = 0 if layer_decay == 1 else height - depths[name]
            new = ParameterGroup(roles[name], layer_decay**below)
            groups.setdefault((roles[name], below), new).parameters[name] = parameter
    return sorted(groups.values(), key=lambda group: -group.rate_factor)


def optimizer_groups(
    groups: Iterable[ParameterGroup], options_of: Callable[[str], tuple[float, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The groups as torch's optimizers take them; ``options_of`` gives rate and other options of a role."""
    built = []
    for group in groups:
        rate, options = options_of(group.role)
        rate *= group.rate_factor
        common = {"params": list(group.parameters.values()), "role": group.role}
        built.append({**common, "lr": rate, "initial_lr": rate, **options})
    return built


def _depths(network: nn.Module) -> dict[str, int]:
    """Depth by parameter: 0 before the blocks, 1 in the first block, one more than the last after them."""
    names = [name for name, _ in network.named_parameters()]
    of_blocks = {name: int(match["index"]) + 1 for name in names if (match := _BLOCK.search(name))}
    depths: dict[str, int] = {}
    others = 0
    for name in names:
        if name in of_blocks:
            others = max(of_blocks.values()) + 1
        depths[name] = of_blocks.get(name, others)
    return depths


def freeze_parameters(network: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from training: they get no gradient, no optimizer state and no update.

    Args:
        network: The network; modules are named as in ``network.named_modules()``.
        patterns: Names of parameters or modules, in which ``*`` stands for any text, ``?`` for a character
            and ``[ab]`` for one of several, e.g. ``embedding`` or ``blocks.[01].*``.

    Raises:
        ConfigError: A pattern matches no parameter, or no parameter is left to train.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        frozen = [n for n in parameters if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")]
        if not frozen:
            raise ConfigError(
                "no parameter has such a name",
                _remedy(parameters, pattern),
                option="model.freeze",
                value=pattern,
            )
        for name in frozen:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(
            "nothing is left to train",
            "leave a part of the network out",
            option="model.freeze",
            value=", ".join(patterns),
        )


def _remedy(names: Iterable[str], pattern: str) -> str:
    paths = [name.split(".") for name in names]
    known = {".".join(parts[:end]) for parts in paths for end in range(1, len(parts) + 1)}
    near = nearest(pattern.rstrip(".*"), sorted(known))
    if near:
        return f"did you mean {near!r}?"
    return f"names begin with {', '.join(dict.fromkeys(parts[0] for parts in paths))}"
