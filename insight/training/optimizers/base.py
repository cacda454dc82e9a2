"""The base of every optimizer configuration, and the choice of options on resuming."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from insight.models import parameter_role
from insight.runtime.component import Component
from insight.runtime.errors import CheckpointError, ConfigError, nearest
from insight.runtime.numbers import require_number

MAX_LEARNING_RATE = 1e30
"""The largest learning rate; with a larger one the first update overflows float32."""

_REMEDY = (
    "resume with the optimizer, layer_decay and freeze of its run, or begin a new one from its weights by "
    "--init_from"
)
_AS_CONFIGURED = "as_configured"
# Options that depend on a measurement, with the option that the user sets instead.
_MEASURED = {"dtype": "precision"}
# Optimizers of these packages change only learning rates in training. Others may change any option of a
# group, so a checkpoint without `as_configured` has the right values except for _RATES.
_OWN_PACKAGES = ("torch.optim", "insight.")
_RATES = ("lr", "initial_lr", "weight_decay")

RATE: dict[str, Any] = {"example": 0.003, "optional": True, "above": 0, "at_most": MAX_LEARNING_RATE}
_MEAN_DECAY: dict[str, Any] = {"example": 0.95, "at_least": 0, "below": 1}
_RANGES: dict[str, dict[str, Any]] = {
    "learning_rate": RATE,
    "adam_learning_rate": RATE,
    "embedding_learning_rate": RATE,
    "beta1": _MEAN_DECAY,
    "beta2": _MEAN_DECAY,
    "momentum": _MEAN_DECAY,
    "eps": {"example": 1e-8, "at_least": 0, "at_most": 1},
    "num_iterations": {"example": 5, "whole": True, "at_least": 1, "at_most": 20},
    "weight_decay": {"example": 0.1, "at_least": 0, "at_most": 1000},
    "layer_decay": {"example": "0.9, or 1 for none", "above": 0, "at_most": 1},
}


@dataclass(frozen=True)
class OptimizerConfig(Component):
    """The optimizer that updates the weights, and its options; fields with usual names must be in range."""

    def __post_init__(self) -> None:
        for name in filter(_RANGES.get, self.__dataclass_fields__):
            require_number(name, getattr(self, name), **_RANGES[name])

    @abstractmethod
    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """Build one optimizer of all parameters; each group has its full learning rate as ``initial_lr``."""

    def numbers_kept(self, role: str) -> int:
        """Number of state values for each element of a parameter of ``role`` (Adam: 2)."""
        return 2


def prepare_for_resuming(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Let ``optimizer`` load the state of a checkpoint, but keep the options that this run has changed.

    Each group remembers the options that it was built with. An option that this run configures differently
    from the run that saved the checkpoint keeps its present value; all others are restored, since some
    optimizers keep counters and means in their groups. ``fused`` is never restored, since it depends on the
    sharding of this process's parameters. The state of an optimizer with other groups or other options is
    refused with a :class:`CheckpointError`.
    """
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name not in _MEASURED and _is_plain(value)}
        group[_AS_CONFIGURED] = options
    optimizer.register_load_state_dict_pre_hook(_resumed_state)
    return optimizer


def _resumed_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    saved, present = state["param_groups"], optimizer.param_groups
    before, now = (
        ", ".join(f"{group.get('role', 'all')} {len(group['params'])}" for group in groups)
        for groups in (saved, present)
    )
    if before != now:
        problem = f"the checkpoint's optimizer has other groups of parameters ({before} tensors)"
        raise CheckpointError(f"{problem} than this one ({now})", _REMEDY)
    for theirs, ours in zip(saved, present, strict=True):
        # Another version of torch may add or lack options; another optimizer does both.
        unknown = sorted(theirs.keys() - ours.keys())
        missing = sorted(ours.keys() - theirs.keys() - {_AS_CONFIGURED, *_MEASURED.values()})
        if unknown and missing:
            named = f"it has {', '.join(unknown)}, this one {', '.join(missing)}"
            raise CheckpointError(f"the checkpoint is of another optimizer: {named}", _REMEDY)
    is_known = type(optimizer).__module__.startswith(_OWN_PACKAGES)
    groups = [_resumed_group(theirs, ours, is_known) for theirs, ours in zip(saved, present, strict=True)]
    return {**state, "param_groups": groups}


def _resumed_group(saved: dict[str, Any], present: dict[str, Any], is_known: bool) -> dict[str, Any]:
    """The saved options of a group, except for those that this run has changed."""
    now, before = present[_AS_CONFIGURED], saved.get(_AS_CONFIGURED)
    if before is None:  # an older checkpoint does not contain the configured options
        changed = {name for name in now if is_known or name in _RATES}
        changed -= set(_MEASURED.values())
    else:
        changed = {name for name in now if before.get(name, now[name]) != now[name]}
    changed |= {measured for measured, option in _MEASURED.items() if option in changed}
    kept = {name: present[name] for name in (*changed, "fused", _AS_CONFIGURED) if name in present}
    return {**saved, **kept}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value) and bool(value)
    return value is None or isinstance(value, (bool, int, float, str))


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
        others = max(of_blocks.values()) + 1 if name in of_blocks else others
        depths[name] = of_blocks.get(name, others)
    return depths


def freeze_parameters(network: nn.Module, patterns: Sequence[str]) -> None:
    """Exclude parameters from training: they get no gradient, no optimizer state and no update.

    In the names of parameters or modules ``*`` stands for any text, ``?`` for a character and ``[ab]`` for
    one of several, e.g. ``embedding`` or ``blocks.[01].*``.

    Raises:
        ConfigError: A pattern matches no parameter, or no parameter is left to train.
    """
    parameters = dict(network.named_parameters())
    for pattern in patterns:
        frozen = [n for n in parameters if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")]
        if not frozen:
            problem, remedy = "no parameter has such a name", _remedy(parameters, pattern)
            raise ConfigError(problem, remedy, option="model.freeze", value=pattern)
        for name in frozen:
            parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        problem, remedy = "nothing is left to train", "leave a part of the network out"
        raise ConfigError(problem, remedy, option="model.freeze", value=", ".join(patterns))


def _remedy(names: Iterable[str], pattern: str) -> str:
    paths = [name.split(".") for name in names]
    known = {".".join(parts[:end]) for parts in paths for end in range(1, len(parts) + 1)}
    near = nearest(pattern.rstrip(".*"), sorted(known))
    first = ", ".join(dict.fromkeys(parts[0] for parts in paths))
    return f"did you mean {near!r}?" if near else f"names begin with {first}"
