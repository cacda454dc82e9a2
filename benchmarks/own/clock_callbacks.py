"""Callbacks that measure Insight's Trainer from inside, added to a run by ``--trainer.callbacks+=...``."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.own.decoder import decoder_loss
from benchmarks.peers.measured import StepClock, adamw, plain_step
from benchmarks.peers.protocol import print_result
from insight.data import LanguageModelBatch


class MeasureSteps(Callback):
    """Times the Trainer's steps, from the end of one to the end of the next, and prints the result.

    Args:
        seconds: How long to measure.
        precision: ``fp32`` or ``bf16``, for the rate of matrix products to compare with.
        num_warmup_steps: First steps, which are not counted.
        min_steps: Fewest steps to measure, even if they take longer.
    """

    def __init__(
        self, seconds: float = 15.0, precision: str = "fp32", num_warmup_steps: int = 3, min_steps: int = 5
    ) -> None:
        self.clock = StepClock(num_warmup_steps, seconds, min_steps)
        self.precision = precision
        self.tokens_per_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: LanguageModelBatch,
        batch_idx: int,
    ) -> None:
        self.tokens_per_step = batch.input_ids.numel()
        if self.clock.step_ended():
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        print_result({**self.clock.report(self.tokens_per_step, self.precision), "parameters": parameters})


class MeasureOverhead(Callback):
    """Takes a step of a bare loop after each step of the Trainer, so both see the machine in the same state.

    The bare loop has a copy of the network, a separate optimizer and the Trainer's batch. Its time is
    subtracted from the Trainer's.

    Args:
        seconds: How long to measure, counting only the Trainer's steps.
        precision: Precision of the Trainer, ``fp32`` or ``bf16``.
        compiled: Whether the bare loop compiles its network, as the Trainer does.
        num_warmup_steps: First steps, which are not counted.
        min_steps: Fewest steps to measure, even if they take longer.
    """

    def __init__(
        self,
        seconds: float = 15.0,
        precision: str = "fp32",
        compiled: bool = False,
        num_warmup_steps: int = 3,
        min_steps: int = 5,
    ) -> None:
        self.seconds = seconds
        self.precision = precision
        self.compiled = compiled
        self.num_warmup_steps = num_warmup_steps
        self.min_steps = min_steps
        self.trainer_seconds: list[float] = []
        self.loop_seconds: list[float] = []
        self._num_steps = 0
        self._resumed_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network: Any = pl_module.network
        weights = network.state_dict()
        bare = network.config.build(network.vocabulary_size)
        bare.load_state_dict(weights)
        self._step = plain_step(
            bare, adamw(bare, 1e-3), decoder_loss(bare, self.compiled), self.precision, max_norm=1.0
        )
        self._resumed_at = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: LanguageModelBatch,
        batch_idx: int,
    ) -> None:
        begin = time.perf_counter()
        self._num_steps += 1
        self._step(batch.input_ids, batch.targets).item()
        end = time.perf_counter()
        if self._num_steps > self.num_warmup_steps:
            self.trainer_seconds.append(begin - self._resumed_at)
            self.loop_seconds.append(end - begin)
        enough = len(self.loop_seconds) >= self.min_steps and sum(self.trainer_seconds) >= self.seconds
        trainer.should_stop = trainer.should_stop or enough
        self._resumed_at = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ratios = [ours / bare for ours, bare in zip(self.trainer_seconds, self.loop_seconds, strict=True)]
        print_result(
            {
                "overhead": statistics.median(ratios) - 1,
                "trainer_step_seconds": statistics.median(self.trainer_seconds),
                "loop_step_seconds": statistics.median(self.loop_seconds),
                "num_steps": len(ratios),
                "num_threads": torch.get_num_threads(),
            }
        )
