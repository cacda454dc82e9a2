"""Access to the parts of a Trainer, and its plan in optimizer steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from insight.runtime.run_folder import RunFolder
from insight.training.parallel import is_sharded

CallbackType = TypeVar("CallbackType", bound=Callback)


def callbacks_of(trainer: Trainer, kind: type[CallbackType]) -> list[CallbackType]:
    """The callbacks of one class, in the order in which they run."""
    return [callback for callback in cast(Any, trainer).callbacks if isinstance(callback, kind)]


def datamodule_of(trainer: Trainer) -> Any:
    """The data module, or ``None`` for a Trainer that was given loaders."""
    return getattr(trainer, "datamodule", None)


def run_folder_of(trainer: Trainer) -> RunFolder:
    """The run folder, which is the Trainer's ``default_root_dir``."""
    return RunFolder(Path(trainer.default_root_dir))


@contextlib.contextmanager
def writing_while_training(trainer: Trainer, network: nn.Module) -> Iterator[None]:
    """Let a network in training generate text inside the ``with`` block.

    The network runs eagerly, since it would be compiled again for every length of the growing text. A sharded
    network runs under the precision of training, in which its blocks gather their weights.
    """
    precision = (
        trainer.precision_plugin.forward_context() if is_sharded(network) else contextlib.nullcontext()
    )
    with torch.compiler.set_stance("force_eager"), precision:
        yield


def planned_steps(trainer: Trainer, module: LightningModule) -> int | None:
    """The optimizer step after which training ends, or ``None`` if nothing limits it."""
    planned = getattr(module, "num_planned_steps", None)
    if isinstance(planned, int) and planned > 0:
        return planned
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    if epochs is not None and epochs > 0 and math.isfinite(batches):
        limits.append(epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    return min(limits, default=None)


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


def num_targets(batch: Any) -> int:
    """Number of target positions in ``batch``, padding included; 0 for a batch without targets."""
    targets = getattr(batch, "targets", None)
    return 0 if targets is None else int(targets.numel())
