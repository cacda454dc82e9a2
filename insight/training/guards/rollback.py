"""Back to the weights and the optimizer state of the last checkpoint that a bad stretch did not touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from insight.runtime.errors import CheckpointError, InsightError
from insight.runtime.run_folder import is_complete
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
        CheckpointError: One of them cannot be read.
    """
    wait = getattr(trainer.checkpoint_callback, "wait", None)
    if wait is not None:  # for what is still being written
        wait(trainer)
    # The others wait for what the first process finds, and for what it could not read too.
    found, problem = trainer.strategy.broadcast(_search(trainer) if trainer.is_global_zero else (None, ""))
    if problem:
        raise CheckpointError(
            f"step {trainer.global_step}: going back, {problem}",
            "move that file out of the folder and resume",
        )
    if found is None:
        raise InsightError(
            f"step {trainer.global_step}: there is no checkpoint from before the steps without a number",
            "set RunCheckpoint's keep_every_n_steps, or use --model.guard.non_finite skip",
        )
    checkpoint = trainer.strategy.load_checkpoint(found, weights_only=True)
    use_training_weights(checkpoint)
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)
    trainer.strategy.load_optimizer_state_dict(checkpoint)
    for callback in trainer.callbacks:
        put_back = getattr(callback, "put_back", None)
        if put_back is not None:  # an average of the weights is spoilt with them
            put_back(trainer, checkpoint)
    return Path(found)


def _search(trainer: Any) -> tuple[str | None, str]:
    """The checkpoint of the latest step that was not saved between steps that had been left out.

    Files of later steps, which an earlier run left in the folder, are none of this run's past.

    Returns:
        Its path, ``None`` if there is none, and what could not be read, ``""`` if nothing.
    """
    newest = str(getattr(trainer.checkpoint_callback, "last_model_path", ""))
    found: list[tuple[int, str]] = []
    for path in sorted(Path(newest).parent.glob("*.ckpt")) if newest else []:
        if path.name.startswith(".") or not is_complete(path):  # being written, or torn
            continue
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            step, num_in_a_row = checkpoint["global_step"], _num_in_a_row(checkpoint)
        except Exception as error:  # of whatever kind: the other processes have to hear of it
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            return None, f"{path} cannot be read ({reason})"
        if not num_in_a_row and step <= trainer.global_step:
            found.append((step, str(path)))
    return (max(found)[1] if found else None), ""


def _num_in_a_row(checkpoint: dict[str, Any]) -> int:
    """Steps without a number right before it; checkpoints from before there was a guard tell of none."""
    return int(checkpoint["insight"].get("guard", {}).get("num_in_a_row", 0))
