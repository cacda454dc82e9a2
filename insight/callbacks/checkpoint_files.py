"""The files of one checkpoint: written once, given all their names, and what is not kept removed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Trainer

from insight.callbacks.atomic_io import AtomicCheckpointIO, publish_copy
from insight.runtime.errors import ConfigError
from insight.runtime.files import FREED, freed_beside, writing_to

BEST = "best.ckpt"
LAST = "last.ckpt"
_NEW = ".new.ckpt"
# What name_of_best makes: a copy of the user's own with another name is not ours to remove.
_BEST_OF_STEP = re.compile(r"best-\d{8,}\.ckpt")


def name_of_best(step: int) -> str:
    """Name of one of the best checkpoints, removed when better ones come."""
    return f"best-{step:08d}.ckpt"


def name_of_kept(step: int) -> str:
    """Name of a checkpoint that is never removed."""
    return f"step-{step:08d}.ckpt"


def kept_checkpoints(folder: Path) -> list[Path]:
    """Those of :func:`name_of_kept` that are there, in the order of their steps."""
    return sorted(folder.glob("step-*.ckpt"))


def write_checkpoint(
    checkpoint: dict[str, Any], folder: Path, names: Iterable[str], best_steps: Iterable[int] | None
) -> list[str]:
    """Write a checkpoint under several names, and remove the best ones that no longer are.

    It is written once, under another name, and every name is a hard link to it. A name stands for a
    complete file at every moment.

    Args:
        checkpoint: Tensors and plain values.
        folder: Where to.
        names: In the order they appear: after a crash in between, the later ones are still the older file.
        best_steps: Steps whose :func:`name_of_best` stays; ``None`` where none is written, and none removed.

    Returns:
        Names that were written or removed.

    Raises:
        OutputError: Read-only or full; the names stand for what they stood for.
    """
    new = folder / _NEW
    changed = list(names)
    AtomicCheckpointIO().save_checkpoint(checkpoint, new)
    for name in changed:
        publish_copy(new, folder / name)
    with writing_to(folder):
        new.unlink()
        if best_steps is not None:
            staying = {name_of_best(step) for step in best_steps}
            for path in folder.iterdir():
                if _BEST_OF_STEP.fullmatch(path.name) and path.name not in staying:
                    with freed_beside(path):
                        path.unlink()
                    changed.append(path.name)
    return changed


def remove_remains(folder: Path) -> None:
    """Remove what a process left that was killed while it saved."""
    for pattern in (f"*{_NEW}*", "*.ckpt.tmp", f"*{FREED}"):
        for remains in folder.glob(pattern):
            remains.unlink()


def collect_checkpoint(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """What the Trainer and its strategy would write to ``folder``; ``{}`` on all processes but the first.

    Every process has to call it.

    Raises:
        ConfigError: The strategy writes a folder of its own, not what it is asked to.
    """
    collector = _Collector()
    strategy = trainer.strategy
    usual, strategy.checkpoint_io = strategy.checkpoint_io, collector
    try:
        trainer.save_checkpoint(folder / _NEW, weights_only=False)
    finally:
        strategy.checkpoint_io = usual
    if trainer.is_global_zero and not collector.checkpoint:
        raise ConfigError(
            f"trainer.strategy: {type(strategy).__name__} writes each checkpoint as a folder",
            "set save_distributed_checkpoint to false",
        )
    return collector.checkpoint


class _Collector(CheckpointIO):
    """Takes a checkpoint instead of writing it."""

    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        self.checkpoint = checkpoint

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        raise NotImplementedError

    def remove_checkpoint(self, path: str | Path) -> None:
        raise NotImplementedError
