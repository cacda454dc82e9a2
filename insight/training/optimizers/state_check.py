"""A checkpoint's optimizer state is put into an optimizer of the same kind and groups only."""

from __future__ import annotations

from typing import Any

import torch

from insight.runtime.errors import CheckpointError

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
