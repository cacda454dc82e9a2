"""Access to the parts of a Trainer, its plan in optimizer steps, and the base of callbacks with a state."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from insight.runtime.errors import ConfigError, nearest
from insight.runtime.run_folder import RunFolder
from insight.training.module import steps_of_limits

CallbackType = TypeVar("CallbackType", bound=Callback)


class TrainingState(Callback):
    """The base of callbacks whose state begins anew with every training, and goes on in a resumed one."""

    saved: ClassVar[tuple[str, ...]] = ()
    """The attributes that every checkpoint contains."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Set all attributes of the state as they are before a training."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.reset()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.saved:
            setattr(self, name, state_dict[name])


def callbacks_of(trainer: Trainer, kind: type[CallbackType]) -> list[CallbackType]:
    """The callbacks of one class, in the order in which they run."""
    return [callback for callback in cast(Any, trainer).callbacks if isinstance(callback, kind)]


def datamodule_of(trainer: Trainer) -> Any:
    """The data module, or ``None`` for a Trainer that was given loaders."""
    return getattr(trainer, "datamodule", None)


def run_folder_of(trainer: Trainer) -> RunFolder:
    """The run folder, which is the Trainer's ``default_root_dir``."""
    return RunFolder(Path(trainer.default_root_dir))


def is_training(trainer: Trainer) -> bool:
    """Whether the Trainer trains, or validates within a training."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def is_trial(trainer: Trainer) -> bool:
    """Whether the Trainer only tries a few batches (``fast_dev_run``), of which nothing is written."""
    return bool(getattr(trainer, "fast_dev_run", False))


def newest_value(trainer: Trainer, monitor: str) -> torch.Tensor:
    """The newest value of a logged metric; a :class:`ConfigError` if there is none."""
    metrics = trainer.callback_metrics
    if monitor not in metrics:
        match = nearest(monitor, metrics)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(sorted(metrics))}"
        raise ConfigError("no such metric was logged", remedy, option="monitor", value=monitor)
    return metrics[monitor]


def tokens_of(batch: Any) -> int:
    """Tokens of a batch on this process, source and target together; 0 for a batch of unknown kind."""
    if hasattr(batch, "num_tokens"):
        return int(batch.num_tokens)
    targets = getattr(batch, "targets", None)
    return 0 if targets is None else int(targets.numel())


def planned_steps(trainer: Trainer, module: LightningModule) -> int | None:
    """The optimizer step after which training ends, or ``None`` if nothing limits it."""
    planned = getattr(module, "num_planned_steps", None)
    if isinstance(planned, int) and planned > 0:
        return planned
    return steps_of_limits(trainer)


def steps_per_validation(trainer: Trainer) -> float:
    """Average number of optimizer steps between two validations; infinite if none will come."""
    batches = trainer.val_check_batch
    if not trainer.enable_validation or batches is None or not math.isfinite(batches):
        return math.inf
    every_n_epochs = trainer.check_val_every_n_epoch
    per_epoch = trainer.num_training_batches
    if every_n_epochs is None or not math.isfinite(per_epoch):
        return max(1.0, batches / trainer.accumulate_grad_batches)
    if batches > per_epoch:
        return math.inf
    steps = math.ceil(per_epoch / trainer.accumulate_grad_batches)
    return max(1.0, every_n_epochs * steps / (per_epoch // batches))
