"""Stops a run that no longer gets better, and says why."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from torch import Tensor

from insight.runtime.errors import ConfigError, nearest
from insight.runtime.messages import say


class EarlyStopping(LightningEarlyStopping):
    """Ends training when a metric stops improving; checked after every validation.

    The reason is printed, and RunRecord notes it in the report. Training can be resumed from the last
    checkpoint with a larger ``patience``.

    Args:
        monitor: Name of the logged metric.
        patience: Validations in a row without improvement before training ends.
        min_delta: Least change that counts as an improvement.
        mode: ``min`` if smaller is better, ``max`` if larger is.
        stopping_threshold: End training as soon as the metric is better than this.
        divergence_threshold: End training as soon as the metric is worse than this.
    """

    def __init__(
        self,
        monitor: str = "validation/bits_per_byte",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str = "min",
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
    ) -> None:
        if patience < 1:
            raise ConfigError(
                f"EarlyStopping(patience={patience}): patience counts validations", "use at least 1"
            )
        if mode not in ("min", "max"):
            raise ConfigError(f"EarlyStopping(mode={mode!r}): unknown mode", "use min or max")
        super().__init__(
            monitor=monitor,
            patience=patience,
            min_delta=min_delta,
            mode=mode,
            stopping_threshold=stopping_threshold,
            divergence_threshold=divergence_threshold,
            check_on_train_epoch_end=False,  # a metric is fresh when a validation has just ended
        )
        self._configured_patience = patience

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        super().load_state_dict(state_dict)
        # Lightning restores the old patience over the configured one; a larger one is why people resume.
        self.patience = self._configured_patience
        self.stopping_reason_message = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stopped_before = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        if trainer.should_stop and not stopped_before and self.stopping_reason_message:
            say(f"stopping early at step {trainer.global_step}: {self.stopping_reason_message}")

    def _validate_condition_metric(self, logs: dict[str, Tensor]) -> bool:
        if self.monitor not in logs:
            match = nearest(self.monitor, logs)
            raise ConfigError(
                f"EarlyStopping(monitor={self.monitor!r}): no such metric was logged",
                f"did you mean {match!r}?" if match else f"use one of {', '.join(sorted(logs))}",
            )
        return True

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        should_stop, reason = super()._evaluate_stopping_criteria(current)
        if not should_stop:
            return False, reason
        value, best, metric = float(current), float(self.best_score), self.monitor
        sentences = {
            "PATIENCE_EXHAUSTED": f"{metric} has not improved on {best:.4f} in {self.wait_count} validations",
            "NON_FINITE_METRIC": f"{metric} is {value}",
            "STOPPING_THRESHOLD": f"{metric} reached {value:.4f}, past {self.stopping_threshold}",
            "DIVERGENCE_THRESHOLD": f"{metric} is {value:.4f}, worse than {self.divergence_threshold}",
        }
        return True, sentences[self.stopping_reason.name]
