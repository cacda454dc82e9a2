"""The LightningModule of language modeling: loss and metrics of token windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch

from insight.data.loaders import LanguageModelBatch
from insight.data.sampling import IGNORED_TARGET
from insight.generation import GenerationSettings, generate
from insight.models import Decoder, DecoderConfig
from insight.runtime.errors import ConfigError, DataError
from insight.training.guards import Guard
from insight.training.losses import LinearCrossEntropy, TextLikelihood, linear_cross_entropy, token_losses
from insight.training.module import TrainingModule
from insight.training.optimizers import MuonAdamW, OptimizerConfig, OptimizerFactory
from insight.training.schedules import ScheduleConfig, WarmupStableDecay


class LanguageModelingModule(TrainingModule):
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
    """

    network: Decoder

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
        super().__init__(network, optimizer, schedule, compile, z_loss, label_smoothing, freeze, guard)
        self.likelihood = TextLikelihood()

    def check_data(self, data: Any) -> None:
        longest = getattr(self.network_config, "max_sequence_length", None)  # of a network of your own
        window = getattr(data, "sequence_length", None)
        if longest is not None and window is not None and window > longest:
            problem = f"exceeds model.network.max_sequence_length={longest}"
            remedy = f"use --data.sequence_length {longest} or --model.network.max_sequence_length {window}"
            raise ConfigError(problem, remedy, option="data.sequence_length", value=window)

    def try_to_write(self) -> None:
        """Continue training text by one token."""
        if not (isinstance(self.network, Decoder) and hasattr(self.data, "store")):
            return  # these are the user's own parts
        store = self.data.store("train")
        length = min(self.data.sequence_length, store.num_tokens)
        prompt = self.data.tokenizer.decode(store.tokens(0, length).tolist())
        generate(self.network, self.data.tokenizer, prompt, GenerationSettings(max_new_tokens=1))

    def training_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """The loss of a micro-batch, scaled so that the gradients of an accumulation window add up."""
        # Routers of experts do not count padding.
        counted = {"token_mask": batch.targets != IGNORED_TARGET}
        hidden = self._hidden(self.training_network, batch, batch_idx, **counted)
        summed = self._loss(hidden, batch, self.z_loss, self.label_smoothing)
        return self.step.add(summed, batch)

    def predict_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """Negative log-likelihood of every target in nats, 0 where ignored: ``(batch, sequence)``."""
        head, soft_cap = self.network.head_product, self.network_config.logit_soft_cap
        hidden = self._hidden(self.network, batch, batch_idx)
        return token_losses(*head(hidden), batch.targets, soft_cap=soft_cap)

    def validation_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        """Add the batch to the sums; return its hidden states ``(batch, sequence, hidden_size)``."""
        # Never the compiled network, which other shapes and modes would compile again.
        hidden = self._hidden(self.network, batch, batch_idx)
        summed = self._loss(hidden, batch)
        lengths = cast(torch.Tensor, self.token_byte_lengths)
        valid = batch.targets != IGNORED_TARGET
        num_bytes = (lengths[batch.targets.where(valid, 0)] * valid).sum()
        self.likelihood.update(summed.negative_log_likelihood, summed.num_valid, num_bytes)
        return hidden

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self.likelihood.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte of the whole text."""
        split = "test" if self.trainer.testing else "validation"
        self.log_dict({f"{split}/{name}": value for name, value in self.likelihood.compute().items()})

    on_test_epoch_end = on_validation_epoch_end

    def _hidden(
        self, network: Callable[..., torch.Tensor], batch: LanguageModelBatch, batch_idx: int, **more: Any
    ) -> torch.Tensor:
        # Ids out of range would end in an IndexError, or kill the process on a GPU, which is made to wait for
        # this check only once an epoch.
        if not batch_idx or batch.input_ids.device.type == "cpu":
            smallest, largest = (int(bound) for bound in batch.input_ids.aminmax())
            if smallest < 0 or largest >= self.network.vocabulary_size:
                problem = (
                    f"the data holds token id {largest if smallest >= 0 else smallest}, the network knows"
                )
                remedy = "use the tokenizer that the network was built for"
                raise DataError(f"{problem} 0 to {self.network.vocabulary_size - 1}", remedy)
        places = {"document_ids": batch.document_ids, "position_ids": batch.position_ids}
        return network(batch.input_ids, **places, **more)

    def _loss(
        self, hidden: torch.Tensor, batch: LanguageModelBatch, z_loss: float = 0.0, smoothing: float = 0.0
    ) -> LinearCrossEntropy:
        head, soft_cap = self.network.head_product, self.network_config.logit_soft_cap
        penalties: Any = {"soft_cap": soft_cap, "z_loss": z_loss, "label_smoothing": smoothing}
        return linear_cross_entropy(*head(hidden), batch.targets, **penalties)
