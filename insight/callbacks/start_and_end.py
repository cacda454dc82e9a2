"""Checks and announcements at the start and at the end of a run, and the work after training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.throughput import TimeBudget
from insight.callbacks.trainer import TrainingState, callbacks_of, is_trial, run_folder_of
from insight.reporting import update_run_info
from insight.runtime.errors import DataError, InsightError
from insight.runtime.messages import aligned, say
from insight.runtime.run_folder import RunFolder
from insight.training import ScheduleConfig
from insight.training.lightning_internals import (
    is_last_batch_of_training,
    restore_options,
    step_completed,
    validate_after_this_batch,
)
from insight.training.module import steps_of_limits


class ParameterTable(Callback):
    """Prints size, learning rate and weight decay of the optimizer's groups by role, and what is frozen.

    The rates are the full ones, which the schedule multiplies; if they differ by layer, the lowest and the
    highest are given. ``run.json`` and the report contain the table too.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        frozen = sum(p.numel() for p in pl_module.parameters() if not p.requires_grad)
        table = parameter_table(groups, frozen)
        for line in aligned(table).splitlines():
            say(line)
        path = run_folder_of(trainer).info_path
        if path.is_file():
            words = "{1}, learning rate {2}, weight decay {3}"
            update_run_info(path, parameter_groups={row[0]: words.format(*row) for row in table[1:]})


def parameter_table(groups: Iterable[dict[str, Any]], num_frozen: int = 0) -> list[tuple[str, str, str, str]]:
    """Rows (role, number of parameters, learning rate, weight decay) of the groups, the header first."""
    by_role: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_role.setdefault(str(group.get("role", "all")), []).append(group)
    table = [("parameters", "numbers", "learning rate", "weight decay")]
    for role, members in by_role.items():
        count = sum(parameter.numel() for group in members for parameter in group["params"])
        rates = [float(group.get("initial_lr", group["lr"])) for group in members]
        decays = [float(group.get("weight_decay", 0.0)) for group in members]
        table.append((role, f"{count:,}", _range(rates), _range(decays)))
    if num_frozen:
        table.append(("frozen", f"{num_frozen:,}", "0", "0"))
    return table


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"


class ScheduleCheck(TrainingState):
    """Refuses, before the first step, a schedule whose phases are longer than the run.

    A run with a time budget has no length yet and is not checked.
    """

    def reset(self) -> None:
        self._is_done = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._is_done or callbacks_of(trainer, TimeBudget):
            return
        self._is_done = True
        # The module knows the length of an epoch and the size of a step only from now on.
        schedule = getattr(pl_module, "schedule", None)
        num_steps = getattr(pl_module, "num_planned_steps", None)
        if isinstance(schedule, ScheduleConfig) and isinstance(num_steps, int):
            schedule.check_fits(num_steps)


_REMEDY = "give more text, or a smaller data.batch_size or data.sequence_length"


class AfterTraining(Callback):
    """The base of callbacks that work on the best checkpoint of a run after training, in the first process.

    A failure neither ends the run nor hides its results: it is reported in one line, and ``insight fit`` ends
    with exit code 1 after the report.

    Attributes:
        failure: The error of this callback, if it failed.
    """

    noun: ClassVar[str]
    """The name of the work, with which its lines begin."""
    failure: Exception | None = None

    def check_module(self, module: LightningModule, data: Any) -> None:
        """Refuse a module or a data module with which the work is not possible, before there is a run."""

    def what_follows(self) -> str:
        """The work of this callback after training, for the announcement."""
        return self.noun

    def work_on(self, checkpoint: Path, trainer: Trainer, module: LightningModule) -> None:
        """Do the work."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run, self.failure = run_folder_of(trainer), None
        if not trainer.is_global_zero or is_trial(trainer):
            return
        checkpoint = run.best_checkpoint or run.last_checkpoint
        if checkpoint is None:
            say(f"{self.noun}: the run kept no checkpoint, so there is nothing to work on")
            return
        try:
            self.work_on(checkpoint, trainer, pl_module)
        except Exception as error:  # of any kind, since the model is trained, and other callbacks still wait
            self.failure = error
            name = "" if isinstance(error, InsightError) else f"{type(error).__name__}: "
            say(f"{self.noun}: {name}{error}")


def refuse_failures(trainer: Trainer, run: RunFolder) -> None:
    """Raise an :class:`InsightError` at the end of a complete run if work after training failed."""
    failed = {
        type(each).__name__: each.failure for each in callbacks_of(trainer, AfterTraining) if each.failure
    }
    if failed:
        remedy = f"see above; the trained model and its report are complete in {run.path}"
        error = InsightError(f"after training, {' and '.join(failed)} failed", remedy)
        raise error from next(iter(failed.values()))


class EndOfTraining(TrainingState):
    """Validates the trained model, refuses data without batches, and says why a run ends early.

    Lightning alone validates only at its intervals. It ends silently when the loader is empty, when a resumed
    run is complete, and when ``max_epochs`` comes before ``max_steps``, and starts epochs forever when a
    loader announces batches but yields none.
    """

    def reset(self) -> None:
        self._num_batches = self._num_empty_epochs = 0

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        restore_options(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = steps_of_limits(trainer)
        if steps is not None and steps < trainer.max_steps:
            say(
                f"trainer.max_epochs={trainer.max_epochs} ends training after {steps:,} steps, before "
                f"trainer.max_steps={trainer.max_steps:,}"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._num_batches += 1
        self._num_empty_epochs = -1  # this epoch is not empty

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if is_last_batch_of_training(trainer) and step_completed(trainer) and not is_trial(trainer):
            validate_after_this_batch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._num_empty_epochs += 1
        # One epoch may be empty: that of a run resumed at the end of an epoch.
        if self._num_empty_epochs > 1:
            problem = f"the loader promises {trainer.num_training_batches} batches an epoch and gives none"
            raise DataError(problem, "look at the data module")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks = [] if is_trial(trainer) else callbacks_of(trainer, Callback)
        coming = [callback.what_follows() for callback in callbacks if hasattr(callback, "what_follows")]
        if coming:
            say(f"training is over and saved; now {', then '.join(coming)} (Ctrl-C leaves the rest out)")
        if self._num_batches:
            return
        for option in ("limit_train_batches", "max_steps", "max_epochs"):
            if getattr(trainer, option) == 0:
                say(f"trainer.{option}=0: nothing was trained")
                return
        if trainer.global_step == 0:
            raise DataError("the training data gives no batch, so nothing was trained", _REMEDY)
        say(
            f"nothing is left to train: step {trainer.global_step:,} was the last one; raise "
            "trainer.max_steps or trainer.max_epochs to go on"
        )
