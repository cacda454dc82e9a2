"""What may keep a checkpoint from becoming the best one."""

from __future__ import annotations

from lightning.pytorch import Callback


class BestGate(Callback):
    """A callback with a veto: while it blocks, RunCheckpoint writes ``last.ckpt`` only.

    Attributes:
        blocks_best: Whether the state of the validation that has just ended must not become ``best.ckpt``.
    """

    blocks_best: bool = False
