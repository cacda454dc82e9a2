"""The format of a checkpoint: the entries beside Lightning's own, and their keys.

A checkpoint is one ``torch.save`` archive of tensors and plain values. Lightning fills in ``state_dict``,
``optimizer_states``, ``loops``, ``callbacks``, ``epoch`` and ``global_step``; the data module adds its
position under the name of its class; Insight adds :class:`CheckpointContent` under :data:`CONTENT` and, where
the weights that are used are not those that are trained, the latter under :data:`TRAINING_WEIGHTS`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

FORMAT_VERSION = 1
"""The version of :class:`CheckpointContent`; a file with another version is refused."""

CONTENT = "insight"
"""The key of :class:`CheckpointContent` in a checkpoint."""

TRAINING_WEIGHTS = "training_weights"
"""The key of the weights that training goes on from, by name; ``state_dict`` then holds what was measured."""

EVALUATION_WEIGHTS = "evaluation_weights"
"""The key that :func:`use_training_weights` moves the measured weights to; it is never in a file."""


@dataclass(frozen=True)
class CheckpointContent:
    """The part of a checkpoint that makes it understandable and resumable without its run folder.

    Args:
        network: The configuration of the network, as a plain component.
        tokenizer: The text of its ``tokenizer.json``.
        vocabulary_size: Rows of the embedding.
        sequence_length: Tokens of a training window.
        random_states: The states of the random generators of every process, in the order of their ranks.
        num_planned_steps: Optimizer steps that the schedule counts on, if they are planned.
        global_batch_size: Samples of a batch over all processes, which the position of the data counts in.
        guard: The state of the guard that judges optimizer steps; ``None`` in files that are older than it.
        canaries: The record of what :class:`insight.data.CanaryInjection` planted, ``None`` without it:
            nobody could measure later whether it was remembered.
        open_window: Sums and gradients of micro-batches whose optimizer step is still to come, ``None`` right
            after a step.
    """

    network: dict[str, Any]
    tokenizer: str
    vocabulary_size: int
    sequence_length: int
    random_states: list[dict[str, Any]]
    num_planned_steps: int | None = None
    global_batch_size: int | None = None
    guard: dict[str, Any] | None = None
    canaries: dict[str, Any] | None = None
    open_window: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plain form that is saved; entries that are ``None`` are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        present = {name: value for name, value in values.items() if value is not None}
        return {"format_version": FORMAT_VERSION, **present}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> CheckpointContent:
        """Read the plain form, also one that an earlier Insight wrote.

        Raises:
            KeyError: Something that every checkpoint holds is missing.
        """
        known = {field.name: saved[field.name] for field in fields(cls) if field.name in saved}
        for name in ("network", "tokenizer", "vocabulary_size", "sequence_length"):
            known[name] = saved[name]
        if "random_states" not in known:  # earlier files hold the state of the first process only
            known["random_states"] = [saved["random_state"]] if "random_state" in saved else []
        return cls(**known)


def use_training_weights(checkpoint: dict[str, Any]) -> None:
    """Make the ``state_dict`` of a checkpoint that was read the weights that training goes on from.

    A checkpoint that has only one kind of weights is left as it is; a second call changes nothing.
    """
    training = checkpoint.get(TRAINING_WEIGHTS)
    if training and EVALUATION_WEIGHTS not in checkpoint:
        state = checkpoint["state_dict"]
        checkpoint[EVALUATION_WEIGHTS] = {name: state[name] for name in training}
        checkpoint["state_dict"] = {**state, **training}
