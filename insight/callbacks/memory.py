"""Logs how much memory training holds, and watches that it does not run out."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.steps import step_completed
from insight.runtime.memory import peak_resident_bytes, resident_bytes
from insight.runtime.memory_watcher import MemoryThresholds, process_watcher


class MemoryMonitor(Callback):
    """Logs memory, and lets caches shrink while it is short.

    At every logged step ``memory/resident_bytes`` and ``memory/peak_bytes``: on CUDA what torch holds on the
    device, elsewhere the physical memory of the process. While training runs, the watcher of the process
    looks at the tightest of machine, containers and address-space limit: ``memory/limit_share`` is how much
    of it is used. Once the watcher has acted, ``memory/num_shrinks`` and ``memory/num_clears`` are how often
    caches were halved and emptied since the process began, encoding included, and ``memory/work_share`` is
    the share of the usual amount of text that is encoded at once. Training batches stay as they are: their
    sums, and so the weights, would come to depend on the machine.

    Args:
        relax: Below this share of the limit memory is plentiful again.
        shrink: From this share on caches are halved at every look, and texts encoded in smaller batches.
        clear: From this share on caches are emptied.
    """

    def __init__(self, relax: float = 0.75, shrink: float = 0.85, clear: float = 0.95) -> None:
        self.thresholds = MemoryThresholds(relax, shrink, clear)
        self._watching: contextlib.ExitStack | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self._watching is None:
            watcher = process_watcher()
            self._watching = contextlib.ExitStack()
            self._watching.callback(setattr, watcher, "thresholds", watcher.thresholds)
            watcher.thresholds = self.thresholds
            self._watching.enter_context(watcher.watching())

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not (trainer._logger_connector.should_update_logs and step_completed(trainer)):
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            resident, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        else:
            resident, peak = resident_bytes(), peak_resident_bytes()
        watcher = process_watcher()
        values = {"resident_bytes": float(resident), "peak_bytes": float(peak)}
        if watcher.newest is not None:
            values["limit_share"] = watcher.newest.share
        if watcher.num_events:  # a call costs a tenth of a millisecond, and in most runs nothing happens
            values |= {
                "num_shrinks": float(watcher.num_events["shrink"]),
                "num_clears": float(watcher.num_events["clear"]),
                "work_share": watcher.work_share,
            }
        pl_module.log_dict({f"memory/{name}": value for name, value in values.items()}, batch_size=1)

    def _stop(self) -> None:
        if self._watching is not None:
            self._watching.close()
            self._watching = None
