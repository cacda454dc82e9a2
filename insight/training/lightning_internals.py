"""Every use that training makes of parts of Lightning and torch which are not in their documentation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch.distributed.constants import default_pg_timeout


def logs_this_step(trainer: Any) -> bool:
    """Whether Lightning hands to the loggers what is logged at this optimizer step."""
    interval = int(trainer.log_every_n_steps)
    return interval > 0 and (trainer.global_step + 1) % interval == 0


def has_loss_scaler(trainer: Any) -> bool:
    """Whether a scaler of float16 gradients leaves out overflowing steps itself."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def unscale_before_step(optimizer: torch.optim.Optimizer) -> None:
    """Take the loss scale out of gradients before they are judged and clipped."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def count_batches_anew(checkpoint: dict[str, Any], size_before: int, size_now: int) -> None:
    """Convert the Trainer's counts of training batches to batches of another size.

    The data module refuses a checkpoint unless an optimizer step has the samples it had, and unless it was
    saved between two batches of this run. But a step may now be made of more and smaller batches, or of fewer
    and larger ones, and Lightning finds the end of a step and of an epoch by counting batches.

    Args:
        checkpoint: The checkpoint that is about to be restored; its counts are replaced.
        size_before: Samples of a batch on all processes together, when it was saved.
        size_now: Samples of a batch on all processes together, in this run.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        begun = counts["ready"]
        begun_now = begun * size_before // size_now
        # A save while a batch ends finds it begun and not completed: that tells Lightning where it was.
        counts.update({name: begun_now - (begun - number) for name, number in counts.items()})


def measure_without_inference_mode(trainer: Any) -> None:
    """Let all loops measure under ``no_grad``.

    FSDP2 uses the memory of gathered weights again in training, and what was gathered in inference mode could
    not be trained.
    """
    for loop in (
        trainer.validate_loop,
        trainer.test_loop,
        trainer.predict_loop,
        trainer.fit_loop.epoch_loop.val_loop,
    ):
        loop.inference_mode = False


def tensor_parallel_size(strategy: Any) -> int:
    """How many processes share the matrices of a replica under a ModelParallelStrategy."""
    return int(strategy._tensor_parallel_size)


def set_mesh_sizes(strategy: Any) -> tuple[int, int]:
    """Resolve the ``auto`` of a ModelParallelStrategy.

    Returns:
        The size of the data-parallel and of the tensor-parallel dimension; their product need not be the
        number of processes.
    """
    shared = tensor_parallel_size(strategy)
    if strategy._data_parallel_size == "auto":
        strategy._data_parallel_size = max(1, strategy.num_nodes * strategy.num_processes // shared)
    return int(strategy._data_parallel_size), shared


def use_timeout_in_mesh(strategy: Any) -> None:
    """Give the groups of a mesh's dimensions the time-out of the strategy: torch gives them its default."""
    from torch.distributed.distributed_c10d import _set_pg_timeout

    if strategy._timeout is not None:
        for group in strategy.device_mesh.get_all_groups():
            _set_pg_timeout(strategy._timeout, group)


# From the moment when a rank is late: to ask all processes, to write their stacks and to end.
_TIME_TO_JUDGE = timedelta(minutes=2)


def let_collectives_wait(strategy: Any, seconds: float) -> None:
    """Keep collective operations from timing out before a watch of the ranks has said which one hangs.

    Args:
        strategy: The strategy of a Trainer that has not begun; a time-out that the user has set is kept.
        seconds: The time without progress after which the watch judges.
    """
    if hasattr(strategy, "_timeout") and strategy._timeout in (None, default_pg_timeout):
        strategy._timeout = max(default_pg_timeout, timedelta(seconds=seconds) + _TIME_TO_JUDGE)
