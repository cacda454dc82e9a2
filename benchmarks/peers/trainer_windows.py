"""Adapters for transformers' Trainer: windows with its column names, and options without extras."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers.windows import TrainingWindows


class ShiftedLabels(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """``windows`` in training order, with the names that LlamaForCausalLM takes and shifted targets."""

    def __init__(self, windows: TrainingWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        window = self.windows[index]
        return {
            "input_ids": window["input_ids"],
            "labels": window["targets"],
            "shift_labels": window["targets"],
        }


def trainer_arguments(
    folder: str, batch_size: int, precision: str, mode: str, seed: int = 0
) -> dict[str, Any]:
    """Keyword arguments of ``TrainingArguments``: no saving, no reports, no progress bar, rare logging."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch_size,
        "num_train_epochs": 1,  # the order covers many epochs; the clock stops the run
        "train_sampling_strategy": "sequential",
        "bf16": precision == "bf16",
        "torch_compile": mode == "compiled",
        "use_cpu": True,
        "max_grad_norm": 1.0,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "seed": seed,
    }
