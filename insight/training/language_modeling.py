"""The LightningModule of language modeling: loss, optimizer step, metrics, and what a checkpoint needs."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import STEP_OUTPUT

from insight.data.batches import IGNORED_TARGET, LanguageModelBatch
from insight.models import Decoder, DecoderConfig
from insight.runtime.errors import InsightError
from insight.runtime.seeding import capture_random_state, restore_random_state
from insight.training.metrics import TextLikelihood
from insight.training.optimizers import MuonAdamW, OptimizerConfig
from insight.training.schedules import ScheduleConfig, WarmupStableDecay

FORMAT_VERSION = 1


class LanguageModelingModule(pl.LightningModule):
    """Trains and measures a decoder on token windows.

    Args:
        network: The decoder.
        optimizer: What updates the weights.
        schedule: How the learning rates change over the run.
        compile: ``torch.compile`` the network: ``on``, ``off``, or ``auto`` when the run is long enough
            to repay it.
    """

    def __init__(
        self,
        network: DecoderConfig = DecoderConfig(),
        optimizer: OptimizerConfig = MuonAdamW(),
        schedule: ScheduleConfig = WarmupStableDecay(),
        compile: Literal["auto", "on", "off"] = "off",
    ) -> None:
        super().__init__()
        self.network_config = network
        self.optimizer_config = optimizer
        self.schedule = schedule
        self.compile_choice = compile
        self.network: Decoder
        self.num_planned_steps: int | None = None
        self.likelihood = TextLikelihood()
        self._random_state: dict[str, Any] | None = None

    def configure_model(self) -> None:
        if hasattr(self, "network"):
            return
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.network = self.network_config.build(datamodule.vocabulary_size)
        lengths = torch.from_numpy(datamodule.tokenizer.token_byte_lengths())
        self.register_buffer("token_byte_lengths", lengths, persistent=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_config.build(self.network)

    def on_train_start(self) -> None:
        if self.num_planned_steps is None:
            self.num_planned_steps = self._steps_from_trainer()

    def _steps_from_trainer(self) -> int:
        trainer = self.trainer
        if trainer.max_steps > 0:
            return trainer.max_steps
        batches = trainer.num_training_batches
        return math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)

    def on_train_batch_start(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        if self._random_state is not None:
            restore_random_state(self._random_state)
            self._random_state = None

    def training_step(self, batch: LanguageModelBatch, batch_idx: int) -> STEP_OUTPUT:
        nll, _ = self._nll(batch)
        num_tokens = (batch.targets != IGNORED_TARGET).sum()
        loss = nll / num_tokens
        if not torch.isfinite(loss):
            raise InsightError(
                f"the loss is {loss.item()} at step {self.trainer.global_step}",
                "lower the learning rate, or use precision 32-true",
            )
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.trainer.datamodule.advance(batch.input_ids.shape[0] * self.trainer.world_size)  # type: ignore[attr-defined]
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        assert self.num_planned_steps is not None
        factor = self.schedule.multiplier(self.trainer.global_step, self.num_planned_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])

    def _nll(self, batch: LanguageModelBatch) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.network(
            batch.input_ids, document_ids=batch.document_ids, position_ids=batch.position_ids
        )
        logits = self.network.logits(hidden).float()
        nll = F.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED_TARGET, reduction="sum"
        )
        return nll, logits

    def on_validation_epoch_start(self) -> None:
        self.likelihood.reset()

    def on_test_epoch_start(self) -> None:
        self.likelihood.reset()

    def validation_step(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        self._measure(batch)

    def test_step(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        self._measure(batch)

    def _measure(self, batch: LanguageModelBatch) -> None:
        nll, _ = self._nll(batch)
        targets = batch.targets[batch.targets != IGNORED_TARGET]
        lengths: torch.Tensor = self.token_byte_lengths  # type: ignore[assignment]
        self.likelihood.update(nll, torch.tensor(targets.numel()), lengths[targets].sum())

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"validation/{name}": value for name, value in self.likelihood.compute().items()})

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": value for name, value in self.likelihood.compute().items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["insight"] = {
            "format_version": FORMAT_VERSION,
            "network": self.network_config.to_dict(),
            "tokenizer": datamodule.tokenizer.to_json(),
            "vocabulary_size": self.network.vocabulary_size,
            "sequence_length": datamodule.sequence_length,
            "num_planned_steps": self.num_planned_steps,
            "random_state": capture_random_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["insight"]
        self.num_planned_steps = saved["num_planned_steps"]
        self._random_state = saved["random_state"]
