"""Lightning's count of batches, when the batches of an optimizer step have another size than before."""

from __future__ import annotations

from typing import Any

from insight.runtime.errors import CheckpointError


def count_batches_anew(checkpoint: dict[str, Any], size_before: int, size_now: int) -> None:
    """Put the Trainer's counts of training batches to what they are in batches of another size.

    The data module refuses a checkpoint unless an optimizer step has the samples it had; but it may be made
    of more and smaller batches, or of fewer and larger ones. Where a step and an epoch end, Lightning tells by
    counting batches.

    Args:
        checkpoint: What is about to be restored; its counts are replaced.
        size_before: Samples of a batch on all processes together, when it was saved.
        size_now: The same in this run.

    Raises:
        CheckpointError: It was saved in the middle of what is one batch now.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        for name, num_batches in counts.items():
            counts[name], rest = divmod(num_batches * size_before, size_now)
            if rest:
                raise CheckpointError(
                    f"the checkpoint was saved after {num_batches} batches of {size_before} samples, inside "
                    f"a batch of {size_now}",
                    "resume with the batch_size and the accumulation of the run",
                )
