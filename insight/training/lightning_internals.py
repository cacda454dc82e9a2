"""Every use of parts of Lightning and torch that are not in their documentation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch.distributed.constants import default_pg_timeout

from insight.runtime.errors import ConfigError


def logs_this_step(trainer: Any) -> bool:
    """Whether Lightning passes values logged at this optimizer step, before it is taken, to the loggers."""
    interval, step = int(trainer.log_every_n_steps), trainer.global_step + 1
    is_last = step == trainer.fit_loop.epoch_loop.max_steps
    return trainer.should_stop or is_last or (interval > 0 and step % interval == 0)


def logs_this_batch(trainer: Any) -> bool:
    """Whether Lightning passes values that are logged at the end of this batch to the loggers."""
    return bool(trainer._logger_connector.should_update_logs) and step_completed(trainer)


def forget_older_values(trainer: Any) -> None:
    """Keep values of earlier steps, which Lightning repeats in every row, out of the row of this step."""
    for value in trainer.fit_loop.epoch_loop._results.values():
        if value.meta.on_step and not value.meta.on_epoch:
            value.has_reset = True


def step_completed(trainer: Any) -> bool:
    """Whether the batch that just ended completed an optimizer step, instead of only accumulating."""
    return not trainer.fit_loop._should_accumulate()


def validation_follows(trainer: Any) -> bool:
    """Whether Lightning validates right after the training batch that just ended."""
    fit_loop = trainer.fit_loop
    return bool(fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher))


def set_last_step(trainer: Any, step: int) -> None:
    """Let training end after an optimizer step; -1 for no limit."""
    trainer.fit_loop.epoch_loop.max_steps = step


def is_last_batch_of_training(trainer: Any) -> bool:
    """Whether the limits of the Trainer end training after the batch that just ended."""
    loop = trainer.fit_loop.epoch_loop
    is_last_epoch = trainer.max_epochs and trainer.current_epoch + 1 == trainer.max_epochs
    is_last = bool(is_last_epoch and loop.batch_progress.is_last_batch)
    return is_last or 0 < loop.max_steps <= trainer.global_step


_OPTIONS_BEFORE = "_options_before_last_validation"


def validate_after_this_batch(trainer: Any) -> None:
    """Validate after this batch and end training; :func:`restore_options` undoes what this changes."""
    loop = trainer.fit_loop
    options = trainer.check_val_every_n_epoch, loop.min_epochs, loop.epoch_loop.min_steps
    vars(trainer).setdefault(_OPTIONS_BEFORE, options)
    # The last epoch may be one without validation, or below the minimum.
    trainer.check_val_every_n_epoch = loop.min_epochs = loop.epoch_loop.min_steps = None
    trainer.should_stop = True


def restore_options(trainer: Any) -> None:
    """Restore the options that :func:`validate_after_this_batch` has changed: the Trainer may train again."""
    loop, options = trainer.fit_loop, vars(trainer).pop(_OPTIONS_BEFORE, None)
    if options is not None:
        trainer.check_val_every_n_epoch, loop.min_epochs, loop.epoch_loop.min_steps = options


def take_over_sigterm(trainer: Any) -> bool:
    """Whether Lightning has received a SIGTERM; clear it, since Lightning would end with exit code 0."""
    connector = trainer._signal_connector
    received, connector.received_sigterm = bool(connector.received_sigterm), False
    return received


def collect_checkpoint(trainer: Any) -> dict[str, Any]:
    """The contents of a checkpoint of the run; every process must call this, and the first gets all of it."""
    strategy = trainer.strategy
    is_whole = getattr(strategy, "_state_dict_type", "full") == "full"
    in_parts = getattr(strategy, "_save_distributed_checkpoint", False)
    if not is_whole or in_parts or hasattr(strategy, "deepspeed_engine"):
        problem, remedy = "writes each checkpoint as a folder", "set save_distributed_checkpoint to false"
        raise ConfigError(problem, remedy, option="trainer.strategy", value=type(strategy).__name__)
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return checkpoint


def has_loss_scaler(trainer: Any) -> bool:
    """Whether a loss scaler for float16 skips steps that overflow itself."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def unscale_before_step(optimizer: torch.optim.Optimizer) -> None:
    """Let the loss scaler unscale gradients before they are judged and clipped."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def count_batches_anew(checkpoint: dict[str, Any], size_before: int, size_now: int) -> None:
    """Convert the counts of training batches in ``checkpoint`` to batches of another size.

    Lightning counts batches to find the end of a step and of an epoch. The data module ensures that an
    optimizer step has as many samples as before, and that the checkpoint lies between two batches of this
    run, but the batches (of so many samples over all processes) may be smaller or larger than before.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        begun = counts["ready"]
        begun_now = begun * size_before // size_now
        # A batch that had begun but not ended when the checkpoint was saved must stay so.
        counts.update({name: begun_now - (begun - number) for name, number in counts.items()})


def measure_without_inference_mode(trainer: Any) -> None:
    """Run all evaluation loops under ``no_grad``: FSDP2 trains on with the weights that they gathered."""
    others = trainer.validate_loop, trainer.test_loop, trainer.predict_loop
    for loop in (*others, trainer.fit_loop.epoch_loop.val_loop):
        loop.inference_mode = False


def tensor_parallel_size(strategy: Any) -> int:
    """Number of processes that share the matrices of a replica under a ModelParallelStrategy."""
    return int(strategy._tensor_parallel_size)


def set_mesh_sizes(strategy: Any) -> tuple[int, int]:
    """Resolve the ``auto`` of a ModelParallelStrategy; return the data- and tensor-parallel sizes."""
    shared = tensor_parallel_size(strategy)
    if strategy._data_parallel_size == "auto":
        strategy._data_parallel_size = max(1, strategy.num_nodes * strategy.num_processes // shared)
    return int(strategy._data_parallel_size), shared


def use_timeout_in_mesh(strategy: Any) -> None:
    """Give the process groups of the mesh the timeout of the strategy instead of torch's default."""
    from torch.distributed.distributed_c10d import _set_pg_timeout

    if strategy._timeout is not None:
        for group in strategy.device_mesh.get_all_groups():
            _set_pg_timeout(strategy._timeout, group)


# The time that the watch needs to ask all processes, write their stacks and end the run.
_TIME_TO_JUDGE = timedelta(minutes=2)


def let_collectives_wait(strategy: Any, seconds: float) -> None:
    """Let collective operations wait longer than the watch, which reports after ``seconds`` which rank hangs.

    A timeout that the user has set is kept.
    """
    if hasattr(strategy, "_timeout") and strategy._timeout in (None, default_pg_timeout):
        strategy._timeout = max(default_pg_timeout, timedelta(seconds=seconds) + _TIME_TO_JUDGE)
