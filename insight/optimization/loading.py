"""Any model that a path names: a checkpoint of a run, or a quantized artefact."""

from __future__ import annotations

from pathlib import Path

import torch

from insight.checkpoints import LoadedCheckpoint, load_checkpoint
from insight.optimization.artifact import is_artifact, load_artifact


def load_model(
    path: Path | str, device: torch.device | str = "cpu", allowed_packages: tuple[str, ...] = ("insight",)
) -> LoadedCheckpoint:
    """The model at ``path``, ready to run as it was measured.

    Args:
        path: A ``.ckpt`` file, or a folder that ``insight quantize`` wrote.
        device: Where the weights go.
        allowed_packages: Packages that class paths in it may point into.

    Raises:
        CheckpointError: It is missing, damaged, unsafe, of another version, or cannot run here.
    """
    if is_artifact(path):
        return load_artifact(path, device, allowed_packages)
    return load_checkpoint(path, device, allowed_packages)
