"""Callbacks that measure ``insight fit`` with one or several processes, and the cost of a save."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.peers.measured import peak_resident_bytes
from benchmarks.peers.protocol import print_result
from insight.callbacks import RunCheckpoint
from insight.callbacks.trainer import callbacks_of, step_completed

_NUM_SUMS = 5


class MeasureOptimizerSteps(Callback):
    """Times optimizer steps of all ranks, and an all-reduce of all gradients alone; rank 0 prints the result.

    The run has to end by ``trainer.max_steps``, since ranks could not agree on an end by their clocks.

    Args:
        num_warmup_steps: First steps, which are not counted.
    """

    def __init__(self, num_warmup_steps: int = 2) -> None:
        self.num_warmup_steps = num_warmup_steps
        self.durations: list[float] = []
        self._tokens = 0
        self._last = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._tokens += batch.targets.numel() * trainer.world_size
        if step_completed(trainer):
            now = time.perf_counter()
            self.durations.append(now - self._last)
            self._last = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        num_numbers = sum(parameter.numel() for parameter in pl_module.parameters())
        sums = _seconds_of_sums(num_numbers) if trainer.world_size > 1 else 0.0
        step = statistics.median(self.durations[self.num_warmup_steps :])
        if trainer.is_global_zero:
            print_result(
                {
                    "tokens_per_second": self._tokens / len(self.durations) / step,
                    "step_seconds": step,
                    "num_steps": len(self.durations) - self.num_warmup_steps,
                    "sum_seconds": sums,
                    "parameters": num_numbers,
                    "peak_bytes": peak_resident_bytes(),
                    "num_threads": torch.get_num_threads(),
                    "num_processes": trainer.world_size,
                }
            )


def _seconds_of_sums(num_numbers: int) -> float:
    """Median time of an all-reduce of so many numbers, with nothing else running."""
    numbers = torch.zeros(num_numbers)
    seconds = []
    for _ in range(1 + _NUM_SUMS):
        torch.distributed.barrier()
        begin = time.perf_counter()
        torch.distributed.all_reduce(numbers)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


class MeasureSaves(Callback):
    """Times steps with a save against ordinary steps, and writing the same bytes with a flush to the disk.

    A period is the steps from one save to the next. Its first step includes the save. In its first three
    quarters an asynchronous save may still be writing; then the same bytes are written as a reference, and
    the steps of the last quarter count as ordinary.

    Args:
        period: ``every_n_steps`` of the run's ``RunCheckpoint``.
    """

    def __init__(self, period: int = 40) -> None:
        self.period = period
        self.durations: dict[int, float] = {}
        self.writes: list[float] = []
        self._num_bytes = 0
        self._last = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, step = time.perf_counter(), trainer.global_step
        self.durations[step] = now - self._last
        if step > self.period and step % self.period == self._quiet_from:
            (checkpoint,) = callbacks_of(trainer, RunCheckpoint)
            checkpoint.wait(trainer)
            self._write(Path(checkpoint.last_model_path))
        self._last = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saves = range(self.period, max(self.durations) - self._quiet_from + 1, self.period)
        ordinary = statistics.median(
            seconds for step, seconds in self.durations.items() if step % self.period > self._quiet_from
        )
        stalls = [self.durations[save + 1] - ordinary for save in saves]
        all_lost = [
            sum(self.durations[step] - ordinary for step in range(save + 1, save + self._quiet_from + 1))
            for save in saves
        ]
        print_result(
            {
                "stall_seconds": statistics.median(stalls),
                "lost_seconds": statistics.median(all_lost),
                "write_seconds": statistics.median(self.writes),
                "step_seconds": ordinary,
                "num_bytes": self._num_bytes,
                "num_saves": len(stalls),
            }
        )

    @property
    def _quiet_from(self) -> int:
        return 3 * self.period // 4

    def _write(self, checkpoint: Path) -> None:
        content = checkpoint.read_bytes()
        self._num_bytes = len(content)
        copy = checkpoint.with_name("same_bytes")
        # The first write brings pages into the system's cache for the second: on a virtual machine, the first
        # use of memory takes longer than everything else.
        for _ in range(2):
            begin = time.perf_counter()
            with copy.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            seconds = time.perf_counter() - begin
            copy.unlink()
        self.writes.append(seconds)
