"""Logs how much memory training holds."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.steps import step_completed
from insight.runtime.memory import peak_resident_bytes, resident_bytes


class MemoryMonitor(Callback):
    """Logs ``memory/resident_bytes`` and ``memory/peak_bytes`` at every logged step.

    On CUDA they are what torch holds on the device; elsewhere the physical memory of the process.
    """

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
        pl_module.log("memory/resident_bytes", float(resident), batch_size=1)
        pl_module.log("memory/peak_bytes", float(peak), batch_size=1)
