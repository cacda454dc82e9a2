"""A run that saves after every step, to be killed while it does."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from tiny_run import TinyModule, tiny_fit

from insight.callbacks.checkpointing import RunCheckpoint
from insight.checkpoints import writer


def save_always(folder: Path, how: str) -> None:
    """Train and save; ``in place`` writes files where a reader may find them half written."""
    TinyModule.configure_model = _add_ballast
    if how == "in place":
        writer.publish_copy = _copy_in_place
    tiny_fit(folder, [RunCheckpoint(every_n_steps=1)], max_steps=100_000, val_check_interval=3)


def _add_ballast(self: TinyModule) -> None:
    self.register_buffer("ballast", torch.zeros(1_000_000))


def _copy_in_place(source: Path, target: Path) -> None:
    data = source.read_bytes()
    with target.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(60 if target.name == "best.ckpt" else 0)
        file.write(data[len(data) // 2 :])
