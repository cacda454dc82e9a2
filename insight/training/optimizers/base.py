"""The base of every optimizer configuration, and the choice of options on resuming."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from insight.runtime.component import Component
from insight.runtime.errors import CheckpointError
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


# Ranges of the options of an optimizer, with an example.
RATE: dict[str, Any] = {"example": 0.003, "optional": True, "above": 0, "at_most": MAX_LEARNING_RATE}
MEAN_DECAY: dict[str, Any] = {"example": 0.95, "at_least": 0, "below": 1}
WEIGHT_DECAY: dict[str, Any] = {"example": 0.1, "at_least": 0, "at_most": 1000}
LAYER_DECAY: dict[str, Any] = {"example": "0.9, or 1 for none", "above": 0, "at_most": 1}


@dataclass(frozen=True)
class OptimizerConfig(Component):
    """The optimizer that updates the weights, and its options."""

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {}

    def __post_init__(self) -> None:
        for name, limits in self._ranges.items():
            require_number(name, getattr(self, name), **limits)

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
    sharding of this process's parameters.

    Returns:
        ``optimizer``, whose ``load_state_dict`` raises a :class:`CheckpointError` for the state of an
        optimizer with other groups or other options.
    """
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if _is_plain(value)}
        group[_AS_CONFIGURED] = {name: options[name] for name in options if name not in _MEASURED}
    optimizer.register_load_state_dict_pre_hook(_resumed_state)
    return optimizer


def _resumed_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    saved, present = state["param_groups"], optimizer.param_groups
    if _described(saved) != _described(present):
        raise CheckpointError(
            f"the checkpoint's optimizer has other groups of parameters ({_described(saved)} tensors) "
            f"than this one ({_described(present)})",
            _REMEDY,
        )
    for theirs, ours in zip(saved, present, strict=True):
        # Another version of torch may add or lack options; another optimizer does both.
        unknown = sorted(theirs.keys() - ours.keys())
        missing = sorted(ours.keys() - theirs.keys() - {_AS_CONFIGURED, *_MEASURED.values()})
        if unknown and missing:
            raise CheckpointError(
                f"the checkpoint is of another optimizer: it has {', '.join(unknown)}, this one "
                f"{', '.join(missing)}",
                _REMEDY,
            )
    is_known = type(optimizer).__module__.startswith(_OWN_PACKAGES)
    groups = [_resumed_group(theirs, ours, is_known) for theirs, ours in zip(saved, present, strict=True)]
    return {**state, "param_groups": groups}


def _resumed_group(saved: dict[str, Any], present: dict[str, Any], is_known: bool) -> dict[str, Any]:
    """The saved options of a group, except for those that this run has changed."""
    now = present[_AS_CONFIGURED]
    before = saved.get(_AS_CONFIGURED)
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


def _described(groups: list[dict[str, Any]]) -> str:
    return ", ".join(f"{group.get('role', 'all')} {len(group['params'])}" for group in groups)
