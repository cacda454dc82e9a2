"""The format of a checkpoint: the entries beside Lightning's own, and their keys.

A checkpoint is one ``torch.save`` archive of tensors and plain values. Lightning adds ``state_dict``,
``optimizer_states``, ``loops``, ``callbacks``, ``epoch`` and ``global_step``; the data module adds its
position under the name of its class; Insight adds :class:`CheckpointContent` under :data:`CONTENT` and, if
the evaluation weights differ from the training weights, the latter under :data:`TRAINING_WEIGHTS`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

FORMAT_VERSION = 1
"""The version of :class:`CheckpointContent`; a file with another version is refused."""

CONTENT = "insight"
"""The key of :class:`CheckpointContent` in a checkpoint."""

TRAINING_WEIGHTS = "training_weights"
"""The key of the training weights by name; ``state_dict`` then contains the evaluation weights."""

EVALUATION_WEIGHTS = "evaluation_weights"
"""The key that :func:`use_training_weights` moves the evaluation weights to; it is never in a file."""


@dataclass(frozen=True)
class CheckpointContent:
    """The part of a checkpoint that makes it understandable and resumable without its run folder."""

    network: dict[str, Any]  # the configuration of the network, as a plain component
    tokenizer: str  # the text of its tokenizer.json
    vocabulary_size: int  # number of rows of the embedding
    sequence_length: int  # number of tokens of a training window
    random_states: list[dict[str, Any]]  # of every process, by rank
    num_planned_steps: int | None = None  # number of optimizer steps, for the schedule
    global_batch_size: int | None = None  # number of samples of a batch over all processes
    guard: dict[str, Any] | None = None  # the state of the guard that judges optimizer steps
    # The canaries of insight.data.CanaryInjection, for measuring memorisation later.
    canaries: dict[str, Any] | None = None
    source_tokenizer: str | None = None  # of a translation model with a tokenizer for each side
    languages: list[str] | None = None  # source, target and directions of a translation model
    # Sums and gradients of an unfinished accumulation window; None right after a step.
    open_window: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plain form that is saved; entries that are ``None`` are left out."""
        present = {name: value for name, value in vars(self).items() if value is not None}
        return {"format_version": FORMAT_VERSION, **present}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> CheckpointContent:
        """Read the plain form, including that of older versions."""
        known = {field.name: saved[field.name] for field in fields(cls) if field.name in saved}
        if "random_states" not in known:  # older files contain only the state of the first process
            known["random_states"] = [saved["random_state"]] if "random_state" in saved else []
        return cls(**known)


def use_training_weights(checkpoint: dict[str, Any]) -> None:
    """Put the training weights of a read checkpoint into its ``state_dict``.

    A checkpoint without separate training weights is unchanged; a second call changes nothing.
    """
    training = checkpoint.get(TRAINING_WEIGHTS)
    if training and EVALUATION_WEIGHTS not in checkpoint:
        state = checkpoint["state_dict"]
        checkpoint[EVALUATION_WEIGHTS] = {name: state[name] for name in training}
        checkpoint["state_dict"] = {**state, **training}
