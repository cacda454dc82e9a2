"""The LightningModule that every training shares: network, optimizer, steps, plan and checkpoint content."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import nn

from insight.checkpoints.format import CheckpointContent, use_training_weights
from insight.runtime.errors import ConfigError, nearest
from insight.runtime.hardware import compiler_path, measure_hardware
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.training.guards import Guard
from insight.training.lightning_internals import count_batches_anew, unscale_before_step
from insight.training.optimizers.adamw import OptimizerFactory, as_optimizer_config
from insight.training.optimizers.base import OptimizerConfig, freeze_parameters, prepare_for_resuming
from insight.training.parallel import build_in_parts, is_sharded, num_replicas
from insight.training.schedules import ScheduleConfig, say_new_length
from insight.training.step import TrainingStep

# Compiling takes 25 to 60 s on two cores and makes each step about a fifth faster, so it is repaid after
# three to five minutes; from ten minutes on it is clearly worth it.
_SECONDS_TO_REPAY = 600.0
# In eager mode small networks reach about this share of the measured matmul rate.
_TYPICAL_SHARE = 0.25


def compiled_or_eager(
    network: nn.Module, choice: str, expected_seconds: float | Callable[[float], float]
) -> Callable[..., torch.Tensor]:
    """The function that training calls: the network itself or its compiled form (same parameters).

    ``expected_seconds`` is the duration of the run, or a function of the matmul rate in FLOP/s.
    """
    if choice == "off":
        return network
    if choice == "auto":
        if callable(expected_seconds):
            rate = max(measure_hardware().matmul_flops.values(), default=0.0)
            expected_seconds = expected_seconds(_TYPICAL_SHARE * rate) if rate else 0.0
        if expected_seconds < _SECONDS_TO_REPAY:
            return network
    if next(network.parameters()).device.type == "cpu" and compiler_path() is None:
        say("compile: no C++ compiler found, or torch lies under a path with a space; training runs eager")
        return network
    say(f"compile: {choice}; the first step takes up to a minute longer")
    compiled: Callable[..., torch.Tensor] = torch.compile(network, dynamic=False)
    return compiled


def steps_of_limits(trainer: pl.Trainer) -> int | None:
    """The step at which ``max_steps`` or ``max_epochs`` ends training; ``None`` without a limit."""
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    if epochs is not None and epochs > 0 and math.isfinite(batches):
        limits.append(epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    return min(limits, default=None)


class TrainingModule(pl.LightningModule):
    """Trains a network in the steps of :class:`TrainingStep`.

    A subclass documents the options, and adds ``training_step``, which returns ``self.step.add(loss, batch)``
    of the loss that ``self.training_network`` gives, and the methods of the evaluation.
    """

    network: Any
    training_network: Callable[..., torch.Tensor]

    def __init__(
        self,
        network: Any,
        optimizer: OptimizerConfig | OptimizerFactory,
        schedule: ScheduleConfig,
        compile: str,
        z_loss: float,
        label_smoothing: float,
        freeze: tuple[str, ...],
        guard: Guard,
    ) -> None:
        super().__init__()
        require_number("z_loss", z_loss, "1e-4, or 0 for none", at_least=0, at_most=1000)
        require_number("label_smoothing", label_smoothing, "0.1, or 0 for none", at_least=0, below=1)
        self.network_config: Any = network
        self.optimizer_config = as_optimizer_config(optimizer)
        self.schedule = schedule
        choices = ("auto", "on", "off")
        if compile not in choices:
            remedy = f"use {nearest(compile, choices) or 'auto, on or off'}"
            raise ConfigError("unknown choice", remedy, option="compile", value=compile)
        self.compile_choice = compile
        self.z_loss, self.label_smoothing = z_loss, label_smoothing
        self.freeze_patterns = tuple(freeze)
        self.step = TrainingStep(self, guard)
        self.num_planned_steps: int | None = None  # for the schedule; a callback may change it
        self.expected_seconds: float | None = None  # of the run, if a callback knows it

    @property
    def data(self) -> Any:
        """The data module of the Trainer."""
        return cast(Any, self.trainer).datamodule

    def configure_model(self) -> None:
        """Build the network for the vocabulary of the data module, once."""
        if hasattr(self, "network"):
            return
        self.check_data(self.data)
        if self.device_mesh is None:
            self.network = self._build()
        else:
            if self.compile_choice == "on":
                problem = "a network that is cut over processes runs eager"
                remedy = "use --model.compile off, or --trainer.strategy ddp"
                raise ConfigError(problem, remedy, option="compile", value="on")
            self.network = build_in_parts(self._build, self.device_mesh, self.trainer)
        lengths = torch.from_numpy(self.data.tokenizer.token_byte_lengths())
        self.register_buffer("token_byte_lengths", lengths, persistent=False)

    def check_data(self, data: Any) -> None:
        """Refuse data that does not fit the network, before it is built."""

    def try_to_write(self) -> None:
        """Write a little with the network, which may be trained and not able to write."""

    @property
    def _vocabulary_sizes(self) -> tuple[int, ...]:
        """The vocabulary sizes that the network is built for."""
        return (self.data.vocabulary_size,)

    def _build(self) -> Any:
        network = self.network_config.build(*self._vocabulary_sizes)
        freeze_parameters(network, self.freeze_patterns)
        return network

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer, whose learning rates the schedule sets at each step."""
        optimizer = prepare_for_resuming(self.optimizer_config.build(self.network))
        unscale_before_step(optimizer)
        return optimizer

    def on_train_start(self) -> None:
        """Plan the number of steps and choose whether the network runs compiled."""
        self.step.begin_run()
        self.schedule = self.schedule.in_steps(self._tokens_per_step * num_replicas(self.trainer))
        trainer, limit = self.trainer, steps_of_limits(self.trainer)
        if limit is not None:  # even on resuming, so that a run can be extended
            say_new_length(self.schedule, trainer.global_step, self.num_planned_steps, limit)
            self.num_planned_steps = limit
        elif self.num_planned_steps is None:
            batches = trainer.num_training_batches / trainer.accumulate_grad_batches
            self.num_planned_steps = math.ceil(batches)
        choice = "off" if is_sharded(self.network) else self.compile_choice
        chosen = compiled_or_eager(self.network, choice, self.expected_seconds or self._estimated_seconds)
        # A function, since a module attribute would be registered and saved a second time.
        self.training_network = lambda *args, **kwargs: chosen(*args, **kwargs)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Restore the state of a checkpoint right before it is used."""
        self.step.begin_micro_batch()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Rescale, judge and clip the gradients and set the learning rates, before Lightning's update."""
        self.step.finish(optimizer, gradient_clip_val, by_value=gradient_clip_algorithm == "value")

    def expected_translation_seconds(self) -> float:
        """Seconds that a validation takes beside its batches, for a model that then translates."""
        return 0.0

    def flops_per_token(self, batch: Any) -> int | None:
        """Matrix-product FLOPs of a training step for each token of a batch, forward and backward.

        ``None`` for a network that does not count them.
        """
        count = getattr(self.network, "flops_per_token", None)
        return int(count(batch.targets.shape[-1])) if callable(count) else None

    def use_of(self, folder: Path, prompt: str) -> str:
        """The command that lets the trained model of a run write more."""
        return shlex.join(["insight", "generate", "--checkpoint", str(folder), prompt])

    def joined(self, prompt: str, text: str) -> str:
        """A prompt and the text that the network wrote for it, for people to read."""
        return prompt + text

    @property
    def _tokens_per_step(self) -> int:
        """Tokens that one replica reads for an optimizer step."""
        return int(self.data.batch_size * self.data.sequence_length * self.trainer.accumulate_grad_batches)

    def _estimated_seconds(self, flops_per_second: float) -> float:
        assert self.num_planned_steps is not None
        flops_per_token: int = self.network.flops_per_token(self.data.sequence_length)
        return flops_per_token * self._tokens_per_step * self.num_planned_steps / flops_per_second

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the :class:`CheckpointContent`."""
        data = self.data
        canaries = getattr(data, "canaries", None)
        checkpoint["insight"] = CheckpointContent(
            network=self.network_config.to_dict(),
            tokenizer=data.tokenizer.to_json(),
            vocabulary_size=self.network.vocabulary_size,
            sequence_length=data.sequence_length,
            global_batch_size=getattr(data, "global_batch_size", None),
            num_planned_steps=self.num_planned_steps,
            # A later measurement of memorisation needs this record.
            canaries=None if canaries is None else canaries.record(),
            **self.step.state_dict(),
            **self.checkpoint_content(),
        ).to_dict()

    def checkpoint_content(self) -> dict[str, Any]:
        """Entries that only the checkpoints of this kind of model have."""
        return {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the plan and the state of the steps."""
        is_training = self.trainer.state.fn == "fit"
        if is_training:
            use_training_weights(checkpoint)
        saved = CheckpointContent.from_dict(checkpoint["insight"])
        self.num_planned_steps = saved.num_planned_steps
        self.step.load_content(saved)
        before, now = saved.global_batch_size, getattr(self.data, "global_batch_size", None)
        if is_training and before and now and before != now:
            count_batches_anew(checkpoint, before, now)
