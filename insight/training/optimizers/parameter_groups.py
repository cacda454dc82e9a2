"""Parameter groups that share a learning rate, and freezing of parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

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
    roles = parameter_role(network)
    depths = _depths(network)
    height = max(depths.values(), default=0)
    groups: dict[tuple[str, int], ParameterGroup] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        below = 0 if layer_decay == 1 else height - depths[name]
        key = (roles[name], below)
        group = groups.setdefault(key, ParameterGroup(roles[name], layer_decay**below))
        group.parameters[name] = parameter
    return sorted(groups.values(), key=lambda group: -group.rate_factor)


def _depths(network: nn.Module) -> dict[str, int]:
    """Depth by parameter: 0 before the blocks, 1 in the first block, one more than the last after them."""
    names = [name for name, _ in network.named_parameters()]
    of_blocks = {name: int(match["index"]) + 1 for name in names if (match := _BLOCK.search(name))}
    top = max(of_blocks.values(), default=0) + 1
    depths: dict[str, int] = {}
    behind = False
    for name in names:
        behind = behind or name in of_blocks
        depths[name] = of_blocks.get(name, top if behind else 0)
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
        frozen = [name for name in parameters if _fits(name, pattern)]
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


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _remedy(names: Iterable[str], pattern: str) -> str:
    known = {".".join(parts[:end]) for parts in map(_parts, names) for end in range(1, len(parts) + 1)}
    near = nearest(pattern.rstrip(".*"), sorted(known))
    if near:
        return f"did you mean {near!r}?"
    return f"names begin with {', '.join(dict.fromkeys(_parts(name)[0] for name in names))}"


def _parts(name: str) -> list[str]:
    return name.split(".")
