"""Where the time of some training steps goes, operation by operation."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

from insight.callbacks.steps import step_completed
from insight.callbacks.trainer_parts import run_folder_of
from insight.runtime.errors import ConfigError
from insight.runtime.files import atomic_write_text, writing_to
from insight.runtime.messages import say

_NAME_COLUMN = 60


class StepProfiler(Callback):
    """Profiles a few optimizer steps of the first process with ``torch.profiler``.

    In ``profile/`` of the run folder it leaves ``trace.json.gz``, which chrome://tracing and
    https://ui.perfetto.dev open, and ``operations.txt``, the operations by the time that they took
    themselves. The profiled steps are slower; what they compute is the same.

    Args:
        start_step: Optimizer steps to let pass first: compilation and the choice of kernels say nothing.
        num_steps: Optimizer steps to profile.
        num_operations: Rows of the table.
        record_shapes: Whether to tell operations apart by the shapes of what they work on.
        profile_memory: Whether to record what operations allocate.
    """

    def __init__(
        self,
        start_step: int = 10,
        num_steps: int = 3,
        num_operations: int = 30,
        record_shapes: bool = False,
        profile_memory: bool = False,
    ) -> None:
        for name, value, least in (
            ("start_step", start_step, 0),
            ("num_steps", num_steps, 1),
            ("num_operations", num_operations, 1),
        ):
            if value < least:
                raise ConfigError(
                    f"StepProfiler({name}={value}): must be at least {least}", "use 10, 3 and 30"
                )
        self.start_step = start_step
        self.num_steps = num_steps
        self.num_operations = num_operations
        self.record_shapes = record_shapes
        self.profile_memory = profile_memory
        self._first_step = 0
        self._profile: profile | None = None
        self._done = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step, self._done = trainer.global_step + self.start_step, False
        if getattr(trainer, "fast_dev_run", False):
            self._done = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._done or self._profile is not None or trainer.global_step < self._first_step:
            return
        if not trainer.is_global_zero:
            self._done = True
            return
        activities = [ProfilerActivity.CPU]
        if trainer.strategy.root_device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._first_step = trainer.global_step
        # The library under it announces its start and end on stderr, whatever happens.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        self._profile = profile(
            activities=activities, record_shapes=self.record_shapes, profile_memory=self.profile_memory
        )
        self._profile.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = self._first_step + self.num_steps
        if self._profile is not None and step_completed(trainer) and trainer.global_step >= last:
            self._finish(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._profile is not None:
            self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _finish(self, trainer: Trainer) -> None:
        assert self._profile is not None
        found, self._profile, self._done = self._profile, None, True
        found.stop()
        folder = run_folder_of(trainer).profile
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            found.export_chrome_trace(str(folder / "trace.json.gz"))
        on_cuda = trainer.strategy.root_device.type == "cuda"
        table = found.key_averages(group_by_input_shape=self.record_shapes).table(
            sort_by="self_cuda_time_total" if on_cuda else "self_cpu_time_total",
            row_limit=self.num_operations,
            max_name_column_width=_NAME_COLUMN,
        )
        steps = trainer.global_step - self._first_step
        head = f"Steps {self._first_step} to {trainer.global_step - 1}, torch {torch.__version__}\n\n"
        atomic_write_text(folder / "operations.txt", head + table + "\n")
        say(f"profile of {steps} step{'' if steps == 1 else 's'}: {folder}")
