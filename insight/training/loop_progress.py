"""Lightning's count of batches, when the batches of an optimizer step have another size than before."""

from __future__ import annotations

from typing import Any


def count_batches_anew(checkpoint: dict[str, Any], size_before: int, size_now: int) -> None:
    """Put the Trainer's counts of training batches to what they are in batches of another size.

    The data module refuses a checkpoint unless an optimizer step has the samples it had, and unless it was
    saved between two batches of this run. But a step may be made of more and smaller batches, or of fewer and
    larger ones, and where a step and an epoch end, Lightning tells by counting batches.

    Args:
        checkpoint: What is about to be restored; its counts are replaced.
        size_before: Samples of a batch on all processes together, when it was saved.
        size_now: The same in this run.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        begun = counts["ready"]
        begun_now = begun * size_before // size_now
        # A save while a batch ends finds it begun and not completed: that tells Lightning where it was.
        counts.update({name: begun_now - (begun - number) for name, number in counts.items()})
