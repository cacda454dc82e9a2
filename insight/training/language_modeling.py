"""The LightningModule of language modeling: loss, optimizer step, metrics and checkpoint content."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch

from insight.checkpoints.format import CheckpointContent, use_training_weights
from insight.data.loaders import LanguageModelBatch
from insight.data.sampling import IGNORED_TARGET
from insight.models import Decoder, DecoderConfig
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.numbers import require_number
from insight.training.compilation import CompileChoice, compiled_or_eager
from insight.training.guards import Guard
from insight.training.lightning_internals import count_batches_anew, unscale_before_step
from insight.training.losses import linear_cross_entropy, token_losses
from insight.training.metrics import TextLikelihood
from insight.training.optimizers import (
    MuonAdamW,
    OptimizerConfig,
    OptimizerFactory,
    as_optimizer_config,
    prepare_for_resuming,
)
from insight.training.optimizers.parameter_groups import freeze_parameters
from insight.training.parallel import build_in_parts, is_sharded, num_replicas
from insight.training.schedules import ScheduleConfig, WarmupStableDecay, say_new_length
from insight.training.step import TrainingStep


class LanguageModelingModule(pl.LightningModule):
    """Trains and evaluates a decoder on token windows.

    The gradient of an optimizer step is that of the mean over all its valid tokens, however they are split
    into batches, accumulated or distributed over processes; only the balance loss of a mixture of experts is
    a mean over batches.

    Args:
        network: The decoder.
        optimizer: The optimizer: one of Insight's, or any optimizer class that can be imported,
            e.g. ``{class_path: torch.optim.RAdam, init_args: {lr: 0.001}}``.
        schedule: The schedule of the learning rates over the run.
        compile: Whether training runs the network through ``torch.compile``: ``on``, ``off``, or ``auto`` for
            runs that are long enough to repay the half minute of compiling.
        z_loss: Factor of the squared logarithm of the softmax's denominator, which keeps logits from
            drifting (PaLM, arXiv 2204.02311); 0 for none.
        label_smoothing: Share of each target that is spread evenly over the vocabulary; logged losses are
            without it.
        freeze: Names of parameters or modules that are not trained, ``*`` for any text, e.g.
            ``[embedding, "blocks.0.*"]``.
        guard: The reaction to a step whose loss or gradient is NaN or infinite, or whose loss is a spike.

    Attributes:
        num_planned_steps: Planned number of optimizer steps, for the schedule; a callback may change it.
        expected_seconds: Planned duration of the run, if a callback knows it.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(
        self,
        network: DecoderConfig = DecoderConfig(),
        optimizer: OptimizerConfig | OptimizerFactory = MuonAdamW(),
        schedule: ScheduleConfig = WarmupStableDecay(),
        compile: Literal["auto", "on", "off"] = "auto",
        z_loss: float = 0.0,
        label_smoothing: float = 0.0,
        freeze: tuple[str, ...] = (),
        guard: Guard = Guard(),
    ) -> None:
        super().__init__()
        require_number("z_loss", z_loss, "1e-4, or 0 for none", at_least=0, at_most=1000)
        require_number("label_smoothing", label_smoothing, "0.1, or 0 for none", at_least=0, below=1)
        self.network_config = network
        self.optimizer_config = as_optimizer_config(optimizer)
        self.schedule = schedule
        self.compile_choice = CompileChoice(compile)
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.freeze_patterns = tuple(freeze)
        self.step = TrainingStep(self, guard)
        self.network: Decoder
        self.num_planned_steps: int | None = None
        self.expected_seconds: float | None = None
        self.likelihood = TextLikelihood()
        self._training_network: Callable[..., torch.Tensor] | None = None

    # ------------------------------------------------------------------ building

    def configure_model(self) -> None:
        """Build the network for the vocabulary of the data module, once."""
        if hasattr(self, "network"):
            return
        longest, window = self.network_config.max_sequence_length, self._data.sequence_length
        if window > longest:
            raise ConfigError(
                f"the network holds max_sequence_length={longest}",
                f"use --data.sequence_length {longest} or --model.network.max_sequence_length {window}",
                option="data.sequence_length",
                value=window,
            )
        if self.device_mesh is None:
            self.network = self._build()
        else:
            self.compile_choice.check_network_in_parts()
            self.network = build_in_parts(self._build, self.device_mesh, self.trainer)
        lengths = torch.from_numpy(self._data.tokenizer.token_byte_lengths())
        self.register_buffer("token_byte_lengths", lengths, persistent=False)

    def _build(self) -> Decoder:
        network = self.network_config.build(self._data.vocabulary_size)
        freeze_parameters(network, self.freeze_patterns)
        return network

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer, whose learning rates the schedule sets at each step."""
        optimizer = prepare_for_resuming(self.optimizer_config.build(self.network))
        unscale_before_step(optimizer)
        return optimizer

    @property
    def _data(self) -> Any:
        return cast(Any, self.trainer).datamodule

    # ------------------------------------------------------------------ training

    def on_train_start(self) -> None:
        """Plan the number of steps and choose whether the network runs compiled."""
        self.step.begin_run()
        self.schedule = self.schedule.in_steps(self._tokens_per_step)
        limit = self._steps_of_trainer()
        if limit is not None:  # even on resuming, so that a run can be extended
            say_new_length(self.schedule, self.trainer.global_step, self.num_planned_steps, limit)
            self.num_planned_steps = limit
        elif self.num_planned_steps is None:
            self.num_planned_steps = self._steps_an_epoch
        choice = CompileChoice("off") if is_sharded(self.network) else self.compile_choice
        chosen = compiled_or_eager(self.network, choice, self.expected_seconds or self._estimated_seconds)
        # A function, since a module attribute would be registered and saved a second time.
        self._training_network = lambda *args, **kwargs: chosen(*args, **kwargs)

    def on_train_batch_start(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        """Restore the state of a checkpoint right before it is used."""
        self.step.begin_micro_batch()

    def training_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """The loss of a micro-batch, scaled so that the gradients of an accumulation window add up."""
        assert self._training_network is not None
        self._check_ids(batch, batch_idx)
        hidden = self._training_network(
            batch.input_ids,
            document_ids=batch.document_ids,
            position_ids=batch.position_ids,
            token_mask=batch.targets != IGNORED_TARGET,  # routers of experts do not count padding
        )
        summed = linear_cross_entropy(
            *self.network.head_product(hidden),
            batch.targets,
            soft_cap=self.network_config.logit_soft_cap,
            z_loss=self.z_loss,
            label_smoothing=self.label_smoothing,
        )
        return self.step.add(summed, batch)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Rescale, judge and clip the gradients and set the learning rates, before Lightning's update."""
        self.step.finish(optimizer, gradient_clip_val, by_value=gradient_clip_algorithm == "value")

    def _check_ids(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        """Refuse token ids out of range, which would end in an IndexError or kill a process on a GPU."""
        if batch_idx and batch.input_ids.device.type != "cpu":
            return  # reading the result makes an accelerator wait
        smallest, largest = (int(bound) for bound in batch.input_ids.aminmax())
        if smallest < 0 or largest >= self.network.vocabulary_size:
            raise DataError(
                f"the data holds token id {largest if smallest >= 0 else smallest}, "
                f"the network knows 0 to {self.network.vocabulary_size - 1}",
                "use the tokenizer that the network was built for",
            )

    @property
    def _steps_an_epoch(self) -> int:
        return math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    @property
    def _tokens_per_step(self) -> int:
        data, trainer = self._data, self.trainer
        tokens = data.batch_size * data.sequence_length * trainer.accumulate_grad_batches
        return int(tokens * num_replicas(trainer))

    def _steps_of_trainer(self) -> int | None:
        """The step at which the Trainer's limits end the run; ``None`` if it has none."""
        trainer = self.trainer
        limits = [trainer.max_steps] if trainer.max_steps > 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            limits.append(self._steps_an_epoch * trainer.max_epochs)
        return min(limits, default=None)

    def _estimated_seconds(self, flops_per_second: float) -> float:
        assert self.num_planned_steps is not None
        data, trainer = self._data, self.trainer
        tokens = data.batch_size * data.sequence_length * trainer.accumulate_grad_batches
        flops: int = self.network.flops_per_token(data.sequence_length) * tokens * self.num_planned_steps
        return flops / flops_per_second

    # ------------------------------------------------------------------ evaluation

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self.likelihood.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte of the whole text."""
        self._log_likelihood("validation")

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte of the whole text."""
        self._log_likelihood("test")

    def predict_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """Negative log-likelihood of every target in nats, 0 where ignored: ``(batch, sequence)``."""
        return token_losses(
            *self.network.head_product(self._hidden(batch, batch_idx)),
            batch.targets,
            soft_cap=self.network_config.logit_soft_cap,
        )

    def validation_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """Add the batch to the sums; return its hidden states ``(batch, sequence, hidden_size)``."""
        hidden = self._hidden(batch, batch_idx)
        summed = linear_cross_entropy(
            *self.network.head_product(hidden),
            batch.targets,
            soft_cap=self.network_config.logit_soft_cap,
        )
        lengths = cast(torch.Tensor, self.token_byte_lengths)
        valid = batch.targets != IGNORED_TARGET
        num_bytes = (lengths[batch.targets.where(valid, 0)] * valid).sum()
        self.likelihood.update(summed.negative_log_likelihood, summed.num_valid, num_bytes)
        return hidden

    test_step = validation_step

    def _hidden(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        self._check_ids(batch, batch_idx)
        # Never the compiled network, which other shapes and modes would compile again.
        hidden: torch.Tensor = self.network(
            batch.input_ids, document_ids=batch.document_ids, position_ids=batch.position_ids
        )
        return hidden

    def _log_likelihood(self, split: str) -> None:
        self.log_dict({f"{split}/{name}": value for name, value in self.likelihood.compute().items()})

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the :class:`CheckpointContent`."""
        data = self._data
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
        ).to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the plan and the state of the steps."""
        is_training = self.trainer.state.fn == "fit"
        if is_training:
            use_training_weights(checkpoint)
        saved = CheckpointContent.from_dict(checkpoint["insight"])
        self.num_planned_steps = saved.num_planned_steps
        self.step.load_state_dict(saved.random_states, saved.guard, saved.open_window)
        before, now = saved.global_batch_size, getattr(self._data, "global_batch_size", None)
        if is_training and before and now and before != now:
            count_batches_anew(checkpoint, before, now)
