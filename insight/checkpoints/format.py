"""Checkpoints whose weights are those to be used, while training goes on from others that lie beside them."""

from __future__ import annotations

from typing import Any

TRAINING_WEIGHTS = "training_weights"
"""Key of what training goes on from: tensors by name. ``state_dict`` then holds what was measured."""

EVALUATION_WEIGHTS = "evaluation_weights"
"""Key that :func:`use_training_weights` moves the others to; never in a file."""


def use_training_weights(checkpoint: dict[str, Any]) -> None:
    """Make the ``state_dict`` of a checkpoint that was read the weights that training goes on from.

    Nothing happens to a checkpoint that has only one kind of weights, nor at a second call.
    """
    training = checkpoint.get(TRAINING_WEIGHTS)
    if training and EVALUATION_WEIGHTS not in checkpoint:
        state = checkpoint["state_dict"]
        checkpoint[EVALUATION_WEIGHTS] = {name: state[name] for name in training}
        checkpoint["state_dict"] = {**state, **training}
