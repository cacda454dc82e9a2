"""``run.find_learning_rate``: a sweep before training, with a network of its own."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks import GracefulInterrupt
from insight.callbacks.checkpointing import InitialWeights
from insight.runtime.errors import InsightError
from insight.runtime.json_files import write_object
from insight.runtime.messages import say
from insight.runtime.seeding import capture_random_state, restore_random_state
from insight.training.guards import Guard, StepGuard
from insight.training.lightning_internals import step_completed
from insight.training.schedules import ExponentialSweep, has_diverged, judge_sweep

if TYPE_CHECKING:
    from insight.api.configuration import InsightCLI
    from insight.runtime.run_folder import RunFolder


def find_learning_rate(cli: InsightCLI, folder: RunFolder, num_steps: int) -> None:
    """Sweep the learning rates over ``num_steps``, print the best multiple, and write ``learning_rate.json``.

    The sweep builds its own network, optimizer and data module from the same configuration and restores the
    random states, so the following run is bit for bit the same as without it.
    """
    random_state = capture_random_state()
    try:
        sweep = _swept(cli, num_steps)
    finally:
        restore_random_state(random_state)
    found = judge_sweep(sweep.multipliers, sweep.losses)
    record = {"multipliers": sweep.multipliers, "losses": sweep.losses, "rates": sweep.rates}
    write_object(folder.learning_rate_path, record | asdict(found))
    if found.steepest is None:
        say(f"learning rate: the loss did not fall in {len(sweep.losses)} steps; nothing can be said")
        return
    rates = ", ".join(f"{role} {found.steepest * rate:.3g}" for role, rate in sweep.rates.items())
    end = f", worse than untrained at {found.diverged:.3g}" if found.diverged else ""
    say(
        f"learning rate: the loss falls fastest at {found.steepest:.3g} times the configured rates ({rates}),"
        f" lowest at {found.lowest_loss:.3g}{end}; this run keeps the configured ones"
    )


def _swept(cli: InsightCLI, num_steps: int) -> _SweepRecorder:
    own: Any = cli.parser.instantiate(cli.config)
    own.model.schedule = ExponentialSweep()
    own.model.compile_choice = "off"
    own.model.step.guard = StepGuard(Guard())  # the run's guard may skip a bad step; the sweep ends there
    recorder = _SweepRecorder()
    callbacks: list[Callback] = [recorder, GracefulInterrupt()]
    if cli.config.get("init_from"):
        callbacks.append(InitialWeights(cli.config.init_from, cli.run_config.root))
    turned_off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    length = {"limit_val_batches": 0, "max_steps": num_steps, "max_epochs": -1, "max_time": None}
    options = {"callbacks": callbacks, "precision": cli.choices.precision, **turned_off, **length}
    trainer = Trainer(**{**own.trainer, **options})
    try:
        trainer.fit(own.model, datamodule=own.data)
    except InsightError as error:
        # The guard refuses a NaN or infinite loss, which ends the sweep unless it is the first loss.
        if type(error) is not InsightError or not recorder.losses:
            raise
        recorder.losses.append(math.nan)
    return recorder


class _SweepRecorder(Callback):
    """Keeps the loss of every step, and ends the sweep when further steps are useless."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: dict[str, float] = {}
        self.num_steps = 0

    @property
    def multipliers(self) -> list[float]:
        """The multiple of the configured rates at each loss."""
        sweep = ExponentialSweep()
        return [sweep.multiplier(step, self.num_steps) for step in range(len(self.losses))]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.num_steps = trainer.max_steps
        for group in trainer.optimizers[0].param_groups:
            role, rate = str(group.get("role", "all")), float(group["initial_lr"])
            self.rates[role] = max(rate, self.rates.get(role, 0.0))  # layers may have different rates

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        if step_completed(trainer):
            self.losses.append(float(trainer.callback_metrics["train/loss"]))
            trainer.should_stop |= has_diverged(self.losses)
