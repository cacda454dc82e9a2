"""Back to the weights and the optimizer state of the last checkpoint that a bad stretch did not touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from insight.runtime.errors import InsightError
from insight.training.training_weights import use_training_weights


def put_back_last_good(trainer: Any) -> Path:
    """Load weights and optimizer state of the last good checkpoint; everything else goes on as it is.

    Every process must ask at the same time.

    Args:
        trainer: Lightning's, between two steps.

    Returns:
        The checkpoint.

    Raises:
        InsightError: There is none.
    """
    wait = getattr(trainer.checkpoint_callback, "wait", None)
    if wait is not None:  # for what is still being written
        wait(trainer)
    found = trainer.strategy.broadcast(_last_good(trainer) if trainer.is_global_zero else None)
    if found is None:
        raise InsightError(
            f"step {trainer.global_step}: there is no checkpoint from before the steps without a number",
            "set RunCheckpoint's keep_every_n_steps, or use --model.guard.non_finite skip",
        )
    checkpoint = trainer.strategy.load_checkpoint(found, weights_only=True)
    use_training_weights(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)
    trainer.strategy.load_optimizer_state_dict(checkpoint)
    return Path(found)


def _last_good(trainer: Any) -> str | None:
    """The checkpoint of the latest step that was not saved between steps that had been left out."""
    newest = str(getattr(trainer.checkpoint_callback, "last_model_path", ""))
    found: list[tuple[int, str]] = []
    for path in sorted(Path(newest).parent.glob("*.ckpt")) if newest else []:
        if path.name.startswith("."):  # being written
            continue
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not checkpoint["insight"].get("guard", {}).get("num_in_a_row", 0):
            found.append((checkpoint["global_step"], str(path)))
    return max(found)[1] if found else None
