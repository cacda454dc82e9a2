"""Training that ran out of memory, in words that name what to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from insight.cli.failures import is_out_of_memory
from insight.runtime.errors import InsightError


@contextlib.contextmanager
def explained_memory_errors(datamodule: Any) -> Iterator[None]:
    """Turn a failed allocation inside the block into one line with the three settings that help.

    Args:
        datamodule: That of the training.

    Raises:
        InsightError: In place of what torch and Python raise.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        shape = ", ".join(
            f"data.{name}={getattr(datamodule, name)}"
            for name in ("batch_size", "sequence_length")
            if hasattr(datamodule, name)
        )
        raise InsightError(
            f"out of memory in training ({shape})",
            "lower --data.batch_size and raise --trainer.accumulate_grad_batches by as much, lower "
            "--data.sequence_length, or set --model.network.activation_checkpointing ActivationCheckpointing",
        ) from error
