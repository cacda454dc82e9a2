"""Stops a run early when its criterion says so, and reports the reason."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.trainer import (
    TrainingState,
    is_training,
    is_trial,
    newest_value,
    planned_steps,
    run_folder_of,
    tokens_of,
)
from insight.reporting.run_files import stopping_record
from insight.runtime.errors import ConfigError
from insight.runtime.json_files import write_object
from insight.runtime.messages import say
from insight.training.lightning_internals import step_completed
from insight.training.parallel import num_replicas
from insight.training.stopping import Advice, Criterion, History, Patience, Validation, single_advice
from insight.training.translation_metrics import NAMES

_TRAINING, _VALIDATION = "train/loss", "validation/loss"
# No loss of training tokens can be converted to these scores of whole translations.
_OF_SENTENCES = tuple(f"validation/{name}" for name in NAMES)


class EarlyStopping(TrainingState):
    """Ends training when its criterion, which is asked after every validation, says so.

    The reason and its numbers are printed. The numbers of every validation are logged as
    ``early_stopping/...``, kept in ``early_stopping.json`` in the run folder, and drawn in the report.
    Training does not end before the Trainer's ``min_epochs`` and ``min_steps``; it ends then unless the
    criterion no longer says so. Every checkpoint contains the history, so a resumed run judges as the
    uninterrupted one would; a run resumed with another criterion judges the whole history by it.

    Args:
        monitor: Name of the logged metric.
        criterion: When to stop: ``Patience``, ``Plateau``, ``GrowingGap``, ``ExpectedGain``, ``Divergence``,
            ``TargetReached``, ``TokenBudget``, ``DurationBudget``, or several of them in ``AnyOf`` or
            ``AllOf``.
        mode: ``min`` if smaller is better, ``max`` if larger is (criteria then see the negative).
    """

    def __init__(
        self, monitor: str = "validation/bits_per_byte", criterion: Criterion = Patience(), mode: str = "min"
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError("is neither min nor max", "use min or max", option="mode", value=mode)
        self.monitor = monitor
        self.criterion = criterion
        self.mode = mode
        self.sign = 1.0 if mode == "min" else -1.0
        super().__init__()

    def reset(self) -> None:
        self.validations: list[Validation] = []
        self.stopping_reason_message: str | None = None
        self._training_loss, self._num_losses, self._num_tokens = torch.zeros(()), 0, 0
        self._seconds_before, self._started = 0.0, time.monotonic()
        self._is_stopping = self._has_said_so = False

    def state_dict(self) -> dict[str, Any]:
        return {
            "validations": [asdict(validation) for validation in self.validations],
            "training_loss": float(self._training_loss),
            "num_losses": self._num_losses,
            "num_tokens": self._num_tokens,
            "seconds": self._seconds_before + time.monotonic() - self._started,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = [Validation(**validation) for validation in state_dict["validations"]]
        self._training_loss = torch.tensor(state_dict["training_loss"])
        self._num_losses = state_dict["num_losses"]
        self._num_tokens = state_dict["num_tokens"]
        self._seconds_before = state_dict.get("seconds", 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._num_tokens += tokens_of(batch) * num_replicas(trainer)
        loss = trainer.callback_metrics.get(_TRAINING)
        if loss is not None and step_completed(trainer):
            # Without waiting for the device.
            self._training_loss = self._training_loss.to(loss.device) + loss.detach()
            self._num_losses += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_training(trainer):
            return
        self._remember(trainer, pl_module)
        history = History(tuple(self.validations), planned_steps(trainer, pl_module))
        advice = self.criterion.judge(history)
        figures = {f"early_stopping/{name}": value for name, value in advice.figures.items()}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=trainer.global_step)
        # Training losses and clocks differ between processes, which must all stop at the same step.
        self._decide(trainer, trainer.strategy.broadcast(advice.stop), advice.evidence)
        self._write(trainer, history, advice, self._is_stopping and _may_stop(trainer))

    def _decide(self, trainer: Trainer, stops: bool, evidence: str) -> None:
        if not stops:
            if self._is_stopping:
                trainer.should_stop = self._is_stopping = self._has_said_so = False
                self.stopping_reason_message = None
                say(f"not stopping early any more at step {trainer.global_step}: {self.monitor}: {evidence}")
            return
        if trainer.should_stop and not self._is_stopping:
            return  # something else ends the run
        trainer.should_stop = self._is_stopping = True
        self.stopping_reason_message = f"{self.monitor}: {evidence}"
        if _may_stop(trainer):
            say(f"stopping early at step {trainer.global_step}: {self.stopping_reason_message}")
        elif not self._has_said_so:
            self._has_said_so = True
            say(
                f"would stop early at step {trainer.global_step}: {self.stopping_reason_message}; it "
                f"goes on until trainer.min_epochs={trainer.min_epochs} and min_steps={trainer.min_steps}"
            )

    def _write(self, trainer: Trainer, history: History, advice: Advice, stops: bool) -> None:
        """Write what the report draws after every validation, so that a killed run has it too."""
        if trainer.is_global_zero and not is_trial(trainer):
            answers = single_advice(self.criterion, advice)
            record = stopping_record(
                self.criterion.to_dict(),
                [asdict(validation) for validation in history.validations],
                history.num_planned_steps,
                advice.evidence,
                [(type(criterion).__name__, asdict(answer)) for criterion, answer in answers],
                self.sign,
            )
            record |= {"monitor": self.monitor, "mode": self.mode, "stopped": stops}
            write_object(run_folder_of(trainer).early_stopping_path, record)

    def _remember(self, trainer: Trainer, module: LightningModule) -> None:
        metrics, training = trainer.callback_metrics, None
        value = float(newest_value(trainer, self.monitor))
        of_loss = self.monitor not in _OF_SENTENCES
        if of_loss and self._num_losses and _VALIDATION in metrics and float(metrics[_VALIDATION]):
            # Converted to the unit of the monitored metric: both come from one loss.
            unit = value / float(metrics[_VALIDATION])
            training = self.sign * unit * float(self._training_loss) / self._num_losses
        step, seconds = trainer.global_step, self._seconds_before + time.monotonic() - self._started
        if not self.validations or self.validations[-1].step != step:
            self.validations.append(Validation(step, self._num_tokens, self.sign * value, training, seconds))
        self._training_loss, self._num_losses = torch.zeros(()), 0


def _may_stop(trainer: Trainer) -> bool:
    """Whether the Trainer, once asked to stop, ends at the end of this epoch at the latest."""
    epochs, steps = trainer.min_epochs or 0, trainer.min_steps or 0
    return trainer.current_epoch + 1 >= epochs and trainer.global_step >= steps
