"""The parts of a Trainer that callbacks look for: one another, the data module, the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, cast

from lightning.pytorch import Callback, Trainer

from insight.runtime.run_folder import RunFolder

CallbackType = TypeVar("CallbackType", bound=Callback)


def callbacks_of(trainer: Trainer, kind: type[CallbackType]) -> list[CallbackType]:
    """The callbacks of one kind, in the order they run."""
    return [callback for callback in cast(Any, trainer).callbacks if isinstance(callback, kind)]


def datamodule_of(trainer: Trainer) -> Any:
    """The data module, or ``None`` for a Trainer that was given loaders."""
    return getattr(trainer, "datamodule", None)


def run_folder_of(trainer: Trainer) -> RunFolder:
    """The run folder: the Trainer's ``default_root_dir``, which the command line sets to it."""
    return RunFolder(Path(trainer.default_root_dir))
