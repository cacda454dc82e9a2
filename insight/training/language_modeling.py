"""The LightningModule of language modeling: loss, optimizer step, metrics, and what a checkpoint needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch

from insight.checkpoints.format import use_training_weights
from insight.data.loaders import LanguageModelBatch
from insight.data.sampling import IGNORED_TARGET
from insight.models import Decoder, DecoderConfig
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.seeding import begin_stream_of_process, restore_random_states
from insight.training.accumulation import AccumulationWindow
from insight.training.checkpoint_content import checkpoint_content
from insight.training.compilation import CompileChoice, compiled_or_eager
from insight.training.expert_load import ExpertLoad
from insight.training.gradient_clipping import (
    clip_to_norm,
    clip_to_value,
    drop_gradients,
    gradient_norm,
    scale_gradients,
)
from insight.training.guards import Guard, StepGuard
from insight.training.loop_progress import count_batches_anew
from insight.training.losses import linear_cross_entropy, token_losses
from insight.training.metrics import TextLikelihood
from insight.training.optimizers import (
    MuonAdamW,
    OptimizerConfig,
    OptimizerFactory,
    as_optimizer_config,
    refuse_other_state,
)
from insight.training.optimizers.parameter_groups import freeze_parameters
from insight.training.parallel import build_in_parts, is_sharded, num_replicas, replica_rank
from insight.training.schedules import ScheduleConfig, WarmupStableDecay, say_new_length


class LanguageModelingModule(pl.LightningModule):
    """Trains and measures a decoder on token windows.

    The gradient of an optimizer step is that of the mean over all its valid tokens, whatever batches,
    accumulation or processes they came in; only the balance loss of a mixture of experts is a mean over
    batches.

    Args:
        network: The decoder.
        optimizer: What updates the weights: one of Insight's, or any optimizer class that can be imported,
            e.g. ``{class_path: torch.optim.RAdam, init_args: {lr: 0.001}}``.
        schedule: How the learning rates change over the run.
        compile: ``torch.compile`` the training step's network: ``on``, ``off``, or ``auto`` when the run is
            long enough to repay the half minute that it takes.
        z_loss: Factor of the squared logarithm of the softmax's denominator, which keeps logits from
            drifting (PaLM, arXiv 2204.02311); 0 for none.
        label_smoothing: Share of each target that is spread evenly over the vocabulary; the losses that are
            logged are without it.
        freeze: Names of parameters or modules that are left as they are, ``*`` for any text, e.g.
            ``[embedding, "blocks.0.*"]``.
        guard: What happens at a step whose loss or gradient is no number, or whose loss is far off.

    Attributes:
        num_planned_steps: Optimizer steps that the schedule counts on; a callback may renew it.
        expected_seconds: How long the run is meant to take, where a callback knows it.

    Raises:
        ConfigError: A value cannot work.
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
        if z_loss < 0:
            raise ConfigError(f"z_loss={z_loss}: must be at least 0", "use 1e-4, or 0 for none")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"label_smoothing={label_smoothing}: must be at least 0 and below 1", "use 0.1, or 0 for none"
            )
        self.network_config = network
        self.optimizer_config = as_optimizer_config(optimizer)
        self.schedule = schedule
        self.compile_choice = CompileChoice(compile)
        self.z_loss = z_loss
        self.label_smoothing = label_smoothing
        self.freeze_patterns = tuple(freeze)
        self.guard = StepGuard(guard)
        self.network: Decoder
        self.num_planned_steps: int | None = None
        self.expected_seconds: float | None = None
        self.likelihood = TextLikelihood()
        self._training_network: Callable[..., torch.Tensor] | None = None
        self._random_states: list[dict[str, Any]] | None = None
        self._window: AccumulationWindow | None = None
        self._expert_load: ExpertLoad
        # Loss and expert counts of the step that is about to be judged.
        self._finished: tuple[torch.Tensor, torch.Tensor | None]
        self._restored_window: dict[str, Any] | None = None

    # ------------------------------------------------------------------ building

    def configure_model(self) -> None:
        """Build the network for the vocabulary that the data module reports; once."""
        if hasattr(self, "network"):
            return
        longest, window = self.network_config.max_sequence_length, self._data.sequence_length
        if window > longest:
            raise ConfigError(
                f"data.sequence_length={window}: the network holds max_sequence_length={longest}",
                f"use --data.sequence_length {longest} or --model.network.max_sequence_length {window}",
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
        """The optimizer; its rates are set at each step by the schedule."""
        optimizer = refuse_other_state(self.optimizer_config.build(self.network))
        # Gradients are judged and clipped before the step: the step is too late to take the loss scale out.
        cast(Any, optimizer)._step_supports_amp_scaling = False
        return optimizer

    @property
    def _data(self) -> Any:
        return cast(Any, self.trainer).datamodule

    # ------------------------------------------------------------------ training

    def on_train_start(self) -> None:
        """Plan the number of steps and choose how the network runs."""
        self._window = None  # of an interrupted run of the same module
        self.guard.forget()
        if self._random_states is None:
            begin_stream_of_process(replica_rank(self.trainer))
        self._expert_load = ExpertLoad(self.network)
        self.schedule = self.schedule.in_steps(self._tokens_per_step)
        limit = self._steps_of_trainer()
        if limit is not None:  # also on resuming, so that a run can be extended
            say_new_length(self.schedule, self.trainer.global_step, self.num_planned_steps, limit)
            self.num_planned_steps = limit
        elif self.num_planned_steps is None:
            self.num_planned_steps = self._steps_an_epoch
        choice = CompileChoice("off") if is_sharded(self.network) else self.compile_choice
        chosen = compiled_or_eager(self.network, choice, self.expected_seconds or self._estimated_seconds)
        # Behind a function, since a module would be registered and saved a second time.
        self._training_network = lambda *args, **kwargs: chosen(*args, **kwargs)

    def on_train_batch_start(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        """Put a checkpoint's random states and open window back, right before they are used."""
        self.guard.roll_back_if_due(self.trainer)
        if self._random_states is not None:
            restore_random_states(
                self._random_states,
                self.trainer.global_rank,
                self.trainer.world_size,
                replica_rank(self.trainer),
            )
            self._random_states = None
        if self._restored_window is not None:
            self._window = AccumulationWindow.restore(self._restored_window, self.network, self.trainer)
            self._restored_window = None

    def training_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """The loss of a micro-batch, scaled so that the gradients of a window add up."""
        assert self._training_network is not None
        self._check_ids(batch, batch_idx)
        if self._window is None:
            self._window = AccumulationWindow(batch.targets.numel(), batch.targets.device)
        hidden = self._training_network(
            batch.input_ids, document_ids=batch.document_ids, position_ids=batch.position_ids
        )
        summed = linear_cross_entropy(
            hidden,
            self.network.head_weight,
            batch.targets,
            soft_cap=self.network_config.logit_soft_cap,
            z_loss=self.z_loss,
            label_smoothing=self.label_smoothing,
        )
        routed = self._expert_load.collect()
        if routed is not None:
            penalty, counts = routed
            self._window.count_experts(counts)
            summed = summed._replace(loss=summed.loss + penalty * summed.num_valid)
        self.guard.remember(batch)
        # Before any callback can save: the checkpoint's position is behind this batch.
        num_samples = batch.num_samples or batch.input_ids.shape[0]
        self._data.advance(num_samples * num_replicas(self.trainer))
        return self._window.add(summed)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradient that of the mean over all valid tokens, and set the learning rates."""
        assert self._window is not None
        assert self.num_planned_steps is not None
        trainer, window = self.trainer, self._window
        self._window = None
        nll, num_valid = window.totals(trainer)
        if num_valid.device.type == "cpu" and not num_valid:
            raise DataError(
                f"no token of step {trainer.global_step} has a target that counts",
                "look at what the training text holds",
            )
        factor = window.gradient_factor(num_valid, trainer)
        if factor.device.type != "cpu" or factor != 1:
            scale_gradients(self.network.parameters(), factor)
        multiplier = self.schedule.multiplier(trainer.global_step, self.num_planned_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * multiplier
        loss = nll / num_valid
        self._finished = loss, window.expert_totals(trainer)
        if self.guard.is_worth_logging(loss):
            self.log("train/loss", loss, prog_bar=True)
        if self._logs_this_step:
            groups = optimizer.param_groups
            main = next((group for group in groups if group.get("role") == "hidden"), groups[0])
            self.log("train/learning_rate", main["lr"])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as configured; the norm before clipping is computed once, for guard, clipping and log."""
        parameters, logs = list(self.network.parameters()), self._logs_this_step
        by_value = gradient_clip_algorithm == "value"
        limit = gradient_clip_val or math.inf
        norm: torch.Tensor | None = None
        if logs or (limit < math.inf and not by_value) or self.guard.config.judges_every_step:
            norm = gradient_norm(parameters)
        loss, expert_counts = self._finished
        if not self.guard.admits(loss, norm, self, logs):
            drop_gradients(parameters)
            return
        if norm is not None:
            if logs:
                self.log("train/gradient_norm", norm)
            if not by_value:
                clip_to_norm(parameters, limit, norm)
        if by_value and limit < math.inf:
            clip_to_value(parameters, limit)
        load = {} if expert_counts is None else self._expert_load.finish_step(expert_counts)
        if logs:
            self.log_dict({f"train/{name}": value for name, value in load.items()})

    def _check_ids(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        """A token id out of range would end in an IndexError, or on an accelerator in a dead process."""
        if batch_idx and batch.input_ids.device.type != "cpu":
            return  # reading the answer makes an accelerator wait
        smallest, largest = (int(bound) for bound in batch.input_ids.aminmax())
        if smallest < 0 or largest >= self.network.vocabulary_size:
            raise DataError(
                f"the data holds token id {largest if smallest >= 0 else smallest}, "
                f"the network knows 0 to {self.network.vocabulary_size - 1}",
                "use the tokenizer that the network was built for",
            )

    @property
    def _logs_this_step(self) -> bool:
        """Whether Lightning hands what is logged at this step to the loggers."""
        interval = int(cast(Any, self.trainer).log_every_n_steps)
        return interval > 0 and (self.trainer.global_step + 1) % interval == 0

    @property
    def _steps_an_epoch(self) -> int:
        return math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    @property
    def _tokens_per_step(self) -> int:
        data, trainer = self._data, self.trainer
        tokens = data.batch_size * data.sequence_length * trainer.accumulate_grad_batches
        return int(tokens * num_replicas(trainer))

    def _steps_of_trainer(self) -> int | None:
        """Where the Trainer's own limits end the run; ``None`` if it has none."""
        trainer = self.trainer
        limits = [trainer.max_steps] if trainer.max_steps > 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            limits.append(self._steps_an_epoch * trainer.max_epochs)
        return min(limits, default=None)

    def _estimated_seconds(self, flops_per_second: float) -> float:
        """How long the run takes when its matrix products run at a rate."""
        assert self.num_planned_steps is not None
        data, trainer = self._data, self.trainer
        tokens = data.batch_size * data.sequence_length * trainer.accumulate_grad_batches
        flops: int = self.network.flops_per_token(data.sequence_length) * tokens * self.num_planned_steps
        return flops / flops_per_second

    # ------------------------------------------------------------------ measuring

    def on_validation_epoch_start(self) -> None:
        """Begin a new sum."""
        self.likelihood.reset()

    def on_test_epoch_start(self) -> None:
        """Begin a new sum."""
        self.likelihood.reset()

    def validation_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """Add the batch to the sums; callbacks get its hidden states ``(batch, sequence, hidden_size)``."""
        return self._measure(batch, batch_idx)

    def test_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """As :meth:`validation_step`."""
        return self._measure(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte of the whole text."""
        self._log_likelihood("validation")

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte of the whole text."""
        self._log_likelihood("test")

    def predict_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """Negative log-likelihood of every target in nats, 0 where ignored: ``(batch, sequence)``."""
        return token_losses(
            self._hidden(batch, batch_idx),
            self.network.head_weight,
            batch.targets,
            soft_cap=self.network_config.logit_soft_cap,
        )

    def _measure(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        hidden = self._hidden(batch, batch_idx)
        summed = linear_cross_entropy(
            hidden,
            self.network.head_weight,
            batch.targets,
            soft_cap=self.network_config.logit_soft_cap,
        )
        lengths = cast(torch.Tensor, self.token_byte_lengths)
        valid = batch.targets != IGNORED_TARGET
        num_bytes = (lengths[batch.targets.where(valid, 0)] * valid).sum()
        self.likelihood.update(summed.negative_log_likelihood, summed.num_valid, num_bytes)
        return hidden

    def _hidden(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        self._check_ids(batch, batch_idx)
        # Never the compiled network: other shapes and modes would compile it again and again.
        hidden: torch.Tensor = self.network(
            batch.input_ids, document_ids=batch.document_ids, position_ids=batch.position_ids
        )
        return hidden

    def _log_likelihood(self, split: str) -> None:
        self.log_dict({f"{split}/{name}": value for name, value in self.likelihood.compute().items()})

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a checkpoint needs to be understood and continued: primitives and tensors only."""
        checkpoint["insight"] = checkpoint_content(self, self._data, self._window)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the plan; random states and open window wait for the first training batch."""
        if self.trainer.state.fn == "fit":
            use_training_weights(checkpoint)
        saved = checkpoint["insight"]
        self.num_planned_steps = saved["num_planned_steps"]
        # Checkpoints of before have the state of the first process only.
        self._random_states = saved.get("random_states") or [saved["random_state"]]
        self._restored_window = saved.get("open_window")
        before, now = saved.get("global_batch_size"), getattr(self._data, "global_batch_size", None)
        if before and now and before != now and self.trainer.state.fn == "fit":
            count_batches_anew(checkpoint, before, now)
        if "guard" in saved:  # checkpoints of before have none
            self.guard.load_state_dict(saved["guard"])
