"""Checkpoints whose weights are those to be used, while training goes on from others that lie beside them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
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


FORMAT_VERSION = 1
"""Version of :class:`CheckpointContent`; its readers and its writer both take it from here."""


@dataclass(frozen=True)
class CheckpointContent:
    """What a checkpoint holds under ``"insight"``, beside weights, optimizer state and loop positions.

    All values are primitives or tensors, so that ``torch.load(weights_only=True)`` reads them.

    Args:
        network: The network's configuration, from ``to_dict()``.
        tokenizer: The tokenizer as JSON text.
        vocabulary_size: Number of rows of the embedding.
        sequence_length: Number of tokens in a training sequence.
        global_batch_size: Samples of a batch on all processes together; ``None`` in old checkpoints.
        num_planned_steps: Optimizer steps that the learning rate schedule counts on.
        random_states: The state of every global random generator, by rank.
        guard: State of the step guard; ``None`` in old checkpoints.
        canaries: The record of the planted secrets, or ``None`` if nothing was planted.
        open_window: Micro-batches whose optimizer step is still to come; ``None`` right after a step.
    """

    network: dict[str, Any]
    tokenizer: str
    vocabulary_size: int
    sequence_length: int
    global_batch_size: int | None = None
    num_planned_steps: int | None = None
    random_states: list[dict[str, Any]] = field(default_factory=list)
    guard: dict[str, Any] | None = None
    canaries: dict[str, Any] | None = None
    open_window: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """This content as it is saved; what is ``None`` is left out."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"format_version": FORMAT_VERSION, **{k: v for k, v in content.items() if v is not None}}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> CheckpointContent:
        """Undo :meth:`to_dict`, for checkpoints of this version.

        Raises:
            TypeError: A required field is missing.
        """
        known = {each.name: saved[each.name] for each in fields(cls) if each.name in saved}
        if "random_states" not in known and "random_state" in saved:
            known["random_states"] = [saved["random_state"]]  # the first checkpoints hold that of rank 0 only
        return cls(**known)
