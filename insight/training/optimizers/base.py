"""What every optimizer configuration shares, and the check of a checkpoint's optimizer state."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from insight.runtime.component import Component
from insight.runtime.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class OptimizerConfig(Component):
    """What updates the weights, and how fast."""

    @abstractmethod
    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """One optimizer over all parameters; each group holds its full rate as ``initial_lr``."""

    def numbers_kept(self, role: str) -> int:
        """How many numbers it keeps for each number of a parameter of ``role`` (Adam: two means)."""
        return 2


def check_rate(name: str, value: float | None) -> None:
    """Refuse a learning rate that is not a positive number.

    Raises:
        ConfigError: It is zero, negative or not finite.
    """
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"{name}={value}: must be above 0", "use for example 0.003")


def check_share(name: str, value: float) -> None:
    """Refuse a decay rate of a running mean outside [0, 1).

    Raises:
        ConfigError: It lies outside.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{name}={value}: must be at least 0 and below 1", "use for example 0.95")


def check_decay(value: float) -> None:
    """Refuse a negative weight decay.

    Raises:
        ConfigError: It is negative.
    """
    if value < 0:
        raise ConfigError(f"weight_decay={value}: must be at least 0", "use 0.1, or 0 for none")


_REMEDY = (
    "resume with the optimizer, layer_decay and freeze of its run, or begin a new one from its weights by "
    "--init_from"
)


def refuse_other_state(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Make ``optimizer`` refuse, in one line, the state of one with other groups or other options.

    What it takes over leaves ``fused`` as it is: that depends on how this process's parameters are cut.

    Returns:
        ``optimizer``, whose ``load_state_dict`` raises a :class:`CheckpointError` from now on.
    """
    optimizer.register_load_state_dict_pre_hook(_check)
    return optimizer


def _check(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    saved, present = state["param_groups"], optimizer.param_groups
    if _described(saved) != _described(present):
        raise CheckpointError(
            f"the checkpoint's optimizer has other groups of parameters ({_described(saved)} tensors) "
            f"than this one ({_described(present)})",
            _REMEDY,
        )
    for theirs, ours in zip(saved, present, strict=True):
        # Another version of torch may add options; another optimizer has some and lacks others.
        unknown, missing = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
        if unknown and missing:
            raise CheckpointError(
                f"the checkpoint is of another optimizer: it has {', '.join(unknown)}, this one "
                f"{', '.join(missing)}",
                _REMEDY,
            )
    groups = [
        {**theirs, "fused": ours["fused"]} if "fused" in ours else theirs
        for theirs, ours in zip(saved, present, strict=True)
    ]
    return {**state, "param_groups": groups}


def _described(groups: list[dict[str, Any]]) -> str:
    return ", ".join(f"{group.get('role', 'all')} {len(group['params'])}" for group in groups)
