"""Logs how fast training goes, how much of the machine that is, and how long it will still take."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.machine import matmul_rate
from insight.callbacks.step_timing import StepTiming
from insight.callbacks.steps import seconds_left, step_completed
from insight.runtime.errors import ConfigError


class ThroughputMonitor(StepTiming):
    """Logs ``throughput/tokens_per_second``, ``throughput/matmul_share`` and ``throughput/seconds_left``.

    Tokens a second are taken over a window of steps; steps that a validation, a sample or a checkpoint
    followed are left out, so the number says how fast *training* is. The matmul share is the network's
    matmul FLOPs a second over the rate that this machine reached in a short measurement with the type
    that training uses: measured, never looked up by name, and absent where it could not be measured.

    Args:
        window: Optimizer steps that the rate is averaged over.
    """

    def __init__(self, window: int = 50) -> None:
        if window < 1:
            raise ConfigError(
                f"ThroughputMonitor(window={window}): a window holds at least one step", "use 50"
            )
        self.clock_window = window
        super().__init__()
        self._flops_per_token: int | None = None
        self._machine_flops: float | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all processes a second of training; ``None`` before the first measured step."""
        return self.clock.tokens_per_second

    @property
    def matmul_share(self) -> float | None:
        """Matmul FLOP/s reached over those measured for this machine; ``None`` where either is unknown."""
        rate = self.clock.tokens_per_second
        if rate is None or self._flops_per_token is None or not self._machine_flops:
            return None
        return rate * self._flops_per_token / self._machine_flops

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._flops_per_token = None
        # Every process measured the same machine; CUDA processes have a device each, CPU processes share one.
        machines = trainer.world_size if trainer.strategy.root_device.type == "cuda" else trainer.num_nodes
        rate = matmul_rate(str(trainer.precision))
        self._machine_flops = rate * machines if rate else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._flops_per_token is None:
            self._flops_per_token = _flops_per_token(pl_module, batch)
        if not (trainer._logger_connector.should_update_logs and step_completed(trainer)):
            return
        for name, value in (
            ("tokens_per_second", self.tokens_per_second),
            ("matmul_share", self.matmul_share),
            ("seconds_left", seconds_left(trainer, pl_module, self.clock)),
        ):
            if value is not None:
                pl_module.log(f"throughput/{name}", value, batch_size=1)


def _flops_per_token(module: LightningModule, batch: Any) -> int | None:
    count = getattr(getattr(module, "network", None), "flops_per_token", None)
    targets = getattr(batch, "targets", None)
    return int(count(targets.shape[-1])) if callable(count) and targets is not None else None
