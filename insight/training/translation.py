"""The LightningModule of translation: batches of pairs, their loss, validation by loss and by translating."""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import distributed

from insight.data.pairs import TranslationBatch
from insight.data.sampling import IGNORED_TARGET
from insight.generation.translator import Translation, TranslationSettings, Translator
from insight.models import EncoderDecoder, EncoderDecoderConfig
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.messages import say
from insight.training.guards import Guard
from insight.training.losses import TextLikelihood, linear_cross_entropy, token_losses
from insight.training.module import TrainingModule
from insight.training.optimizers import MuonAdamW, OptimizerConfig, OptimizerFactory
from insight.training.parallel import generating
from insight.training.schedules import ScheduleConfig, WarmupStableDecay
from insight.training.translation_evaluation import TranslationEvaluation, evaluate_translations
from insight.training.translation_metrics import score_translations

_MOST_COUNTED_PAIRS = 1_000_000
_TIMED_SENTENCES, _TIMED_TOKENS = 16, 6
_TRIED_SENTENCES = 2  # in a trial of a few batches


class TranslationModule(TrainingModule):
    """Trains and measures an encoder-decoder on pairs of sentences.

    The gradient of an optimizer step is that of the mean over all its valid target tokens, whatever batches,
    accumulation or processes they came in.

    Args:
        network: The encoder-decoder.
        optimizer: The optimizer: one of Insight's, or any optimizer class that can be imported.
        schedule: How the learning rates change over the run.
        compile: ``torch.compile`` the training step's network: ``on``, ``off`` or ``auto``.
        z_loss: Factor of the squared logarithm of the softmax's denominator; 0 for none.
        label_smoothing: Share of each target that is spread evenly over the vocabulary; the losses that are
            logged are without it.
        r_drop: Factor of the symmetric divergence between two passes with different dropout (R-Drop, Wu et
            al. 2021, arXiv 2106.14448); 0 for one pass.
        freeze: Names of parameters or modules that are left as they are.
        guard: The reaction to a step whose loss or gradient is not finite, or whose loss is far off.
        translation: How sentences are translated in validation and test.
        translate_in_validation: Most validation sentences that are translated at each validation; 0 validates
            by the loss alone, ``null`` translates all.

    Raises:
        ConfigError: A value cannot work.
    """

    network: EncoderDecoder

    def __init__(
        self,
        network: EncoderDecoderConfig = EncoderDecoderConfig(),
        optimizer: OptimizerConfig | OptimizerFactory = MuonAdamW(),
        schedule: ScheduleConfig = WarmupStableDecay(),
        compile: Literal["auto", "on", "off"] = "off",
        z_loss: float = 0.0,
        label_smoothing: float = 0.1,
        r_drop: float = 0.0,
        freeze: tuple[str, ...] = (),
        guard: Guard = Guard(),
        translation: TranslationSettings = TranslationSettings(),
        translate_in_validation: int | None = None,
    ) -> None:
        super().__init__(network, optimizer, schedule, compile, z_loss, label_smoothing, freeze, guard)
        self.likelihood = TextLikelihood()
        if not 0 <= r_drop < 1e6:
            raise ConfigError("must be at least 0", "use 1, or 0 for one pass", option="r_drop", value=r_drop)
        if translate_in_validation is not None and translate_in_validation < 0:
            raise ConfigError(
                "must be at least 0",
                "use null for all sentences",
                option="translate_in_validation",
                value=translate_in_validation,
            )
        if network.logit_bias:
            raise ConfigError(
                "the fused loss has no bias of the scores",
                "use logit_bias: false",
                option="network.logit_bias",
                value=True,
            )
        self.r_drop = r_drop
        self.translation = translation
        self.translate_in_validation = translate_in_validation
        self.translations: dict[str, list[str]] = {}
        """The newest translations of each split, in the order of its sentences; on every rank."""
        self.evaluation: TranslationEvaluation | None = None
        """The newest evaluation of the test text; on every rank."""

    # ------------------------------------------------------------------ building

    def check_data(self, data: Any) -> None:
        """Refuse sentences that are longer than the network can hold."""
        for side, config in (
            ("source", self.network_config.encoder),
            ("target", self.network_config.decoder),
        ):
            length, longest = getattr(data, f"max_{side}_length"), config.max_sequence_length
            if length > longest:
                part = "encoder" if side == "source" else "decoder"
                raise ConfigError(
                    f"the {part} holds max_sequence_length={longest}",
                    f"use --data.max_{side}_length {longest} or "
                    f"--model.network.{part}.max_sequence_length {length}",
                    option=f"data.max_{side}_length",
                    value=length,
                )

    @property
    def _vocabulary_sizes(self) -> tuple[int, ...]:
        return self.data.vocabulary_size, self.data.source_vocabulary_size

    @property
    def _tokens_per_step(self) -> int:
        return int(self.data.batch_tokens * self.trainer.accumulate_grad_batches)

    def _estimated_seconds(self, flops_per_second: float) -> float:
        assert self.num_planned_steps is not None
        lengths = self.data.max_source_length // 4, self.data.max_target_length // 4  # of a usual sentence
        flops_per_token = self.network.flops_per_pair(*lengths) / sum(lengths)
        return float(flops_per_token * self._tokens_per_step * self.num_planned_steps / flops_per_second)

    def flops_per_token(self, batch: TranslationBatch) -> int:
        """Matrix-product FLOPs of a training step, its padding included, for each token of both sides."""
        rows, target_length = batch.targets.shape
        flops: int = self.network.flops_per_pair(batch.source_ids.shape[1], target_length) * rows
        return (2 if self.r_drop else 1) * flops // batch.num_tokens

    def use_of(self, folder: Path, prompt: str) -> str:
        """The command that translates with the trained model of a run."""
        return f"echo {shlex.quote(prompt)} | insight translate --checkpoint {shlex.quote(str(folder))} -"

    def joined(self, prompt: str, text: str) -> str:
        """A sentence and, below, its translation."""
        return f"{prompt}\n{text}"

    def checkpoint_content(self) -> dict[str, Any]:
        """Fields that only a checkpoint of a translation model has."""
        data = self.data
        separate = data.source_tokenizer is not data.tokenizer
        return {
            "source_tokenizer": data.source_tokenizer.to_json() if separate else None,
            "languages": [data.source_field, data.target_field, data.directions],
        }

    def try_to_write(self) -> None:
        """Translate a training sentence."""
        with generating(self.trainer, self.network):
            self.translator().translate([self.data.first_sentence("train")], self.translation)

    # ------------------------------------------------------------------ training

    def training_step(self, batch: TranslationBatch, batch_idx: int) -> torch.Tensor:
        """The loss of a micro-batch, scaled so that the gradients of a window add up."""
        self._check_ids(batch)
        source_ids, source_mask, target_ids, targets = (
            batch.source_ids,
            batch.source_mask,
            batch.target_ids,
            batch.targets,
        )
        if self.r_drop:
            twice = [
                value if value is None else torch.cat([value, value])
                for value in (source_ids, source_mask, target_ids, targets)
            ]
            source_ids, source_mask, target_ids, targets = twice  # type: ignore[assignment]
        valid = targets != IGNORED_TARGET
        # Routers of experts do not count padding.
        hidden = self.training_network(source_ids, target_ids, source_mask=source_mask, target_mask=valid)
        # Padding is left out before the projection to the vocabulary, the largest product of all.
        summed = linear_cross_entropy(
            *self.network.head_product(hidden[valid]),
            targets[valid],
            soft_cap=self.network_config.decoder.logit_soft_cap,
            z_loss=self.z_loss,
            label_smoothing=self.label_smoothing,
        )
        if self.r_drop:
            divergence = self._divergence(hidden, valid)
            summed = summed._replace(
                loss=(summed.loss + self.r_drop * divergence) / 2,
                negative_log_likelihood=summed.negative_log_likelihood / 2,
                num_valid=summed.num_valid // 2,
            )
        return self.step.add(summed, batch)

    def _divergence(self, hidden: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Mean of the two Kullback-Leibler divergences between the passes, summed over the tokens."""
        first, second = hidden.chunk(2)
        kept = valid[: len(first)]
        scores = [
            self.network.decoder.logits(states[kept]).float().log_softmax(-1) for states in (first, second)
        ]
        forward = F.kl_div(scores[0], scores[1], log_target=True, reduction="sum")
        backward = F.kl_div(scores[1], scores[0], log_target=True, reduction="sum")
        return (forward + backward) / 2

    # ------------------------------------------------------------------ measuring

    def validation_step(self, batch: TranslationBatch, batch_idx: int) -> torch.Tensor:
        """Add the batch to the sums; return its hidden states ``(batch, target, hidden_size)``."""
        hidden = self._hidden(batch)
        head, soft_cap = self.network.head_product, self.network_config.decoder.logit_soft_cap
        summed = linear_cross_entropy(*head(hidden), batch.targets, soft_cap=soft_cap)
        valid = batch.targets != IGNORED_TARGET
        lengths = cast(torch.Tensor, self.token_byte_lengths)
        num_bytes = (lengths[batch.targets.where(valid, 0)] * valid).sum()
        self.likelihood.update(summed.negative_log_likelihood, summed.num_valid, num_bytes)
        return hidden

    test_step = validation_step

    def predict_step(self, batch: TranslationBatch, batch_idx: int) -> torch.Tensor:
        """Negative log-likelihood of every target in nats, 0 where ignored: ``(batch, target)``."""
        head, soft_cap = self.network.head_product, self.network_config.decoder.logit_soft_cap
        return token_losses(*head(self._hidden(batch)), batch.targets, soft_cap=soft_cap)

    def on_validation_epoch_start(self) -> None:
        """Reset the sums."""
        self.likelihood.reset()

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and bits per byte of the targets, and BLEU, chrF++ and TER."""
        split = "test" if self.trainer.testing else "validation"
        self.log_dict({f"{split}/{name}": value for name, value in self.likelihood.compute().items()})
        if split == "test":
            self._translate("test")
        elif self.translate_in_validation != 0 and not self.trainer.sanity_checking:
            self._translate("validation", self.translate_in_validation)

    on_test_epoch_end = on_validation_epoch_end

    def translator(self) -> Translator:
        """A translator with the present weights, from the source language into the target language."""
        data = self.data
        tag = data.preparation.tag_id(data.target_field) if data.directions == "both" else None
        return Translator(self.network, data.source_tokenizer, data.tokenizer, tag)

    def expected_translation_seconds(self) -> float:
        """Seconds of a validation for translating, by a short measurement; every rank must call this.

        A few sentences are translated as far as some tokens, and the time is scaled to the sentences and to
        the tokens of their references.
        """
        if self.translate_in_validation == 0 or not self.data.has("validation"):
            return 0.0
        sources = self.data.preparation.sentences("validation")[0][: self.translate_in_validation]
        lengths = self.data.pair_stores("validation").lengths[: self.translate_in_validation, 1]
        sample = sources[:: max(1, len(sources) // _TIMED_SENTENCES)][:_TIMED_SENTENCES]
        short = replace(self.translation, max_length_factor=0.0, max_length_offset=_TIMED_TOKENS)
        with generating(self.trainer, self.network):
            self.translator().translate(sample, short)  # the first call takes many times as long as others
            began = time.monotonic()
            self.translator().translate(sample, short)
            seconds = (time.monotonic() - began) / (len(sample) * _TIMED_TOKENS)
        return float(seconds * len(sources) * lengths.mean() / self.trainer.world_size)

    def _translate(self, split: str, limit: int | None = None) -> None:
        """Translate a split, every rank a part of it, and log the scores of the whole."""
        if getattr(self.trainer, "fast_dev_run", False):
            limit = _TRIED_SENTENCES
        sources, references = (texts[:limit] for texts in self.data.preparation.sentences(split))
        with generating(self.trainer, self.network):
            translations = self._translated(sources)
        texts = [translation.text for translation in translations]
        self.translations[split] = texts
        if split == "test":
            # Sharded weights are gathered for the alignments too, so that every rank does this.
            with generating(self.trainer, self.network):
                self.evaluation = evaluate_translations(
                    split,
                    self.translator(),
                    self.translation.signature,
                    sources,
                    references,
                    translations,
                    self._training_sources(),
                )
            scores = self.evaluation.scores
            for line in self.evaluation.table():
                say(line)
        else:
            scores = score_translations(texts, references, num_resamples=1)
        self.log_dict({f"{split}/{name}": score.value for name, score in scores.items()})

    def _translated(self, sources: list[str]) -> list[Translation]:
        """The translations of all sentences, on every rank."""
        trainer = self.trainer
        if trainer.world_size == 1:
            return self.translator().translate(sources, self.translation)
        rank, world_size = trainer.global_rank, trainer.world_size
        own = self.translator().translate(sources[rank::world_size], self.translation)
        # Whole sentences are gathered: a mean of scores would not be the score of the whole.
        parts: list[list[Translation]] = [[] for _ in range(world_size)]
        distributed.all_gather_object(parts, own)
        return [parts[number % world_size][number // world_size] for number in range(len(sources))]

    def _training_sources(self) -> Iterator[str]:
        """The source sentences of the training text, or of its beginning."""
        pairs = itertools.islice(self.data.preparation.pairs("train"), _MOST_COUNTED_PAIRS)
        return (source for source, _ in pairs)

    def _hidden(self, batch: TranslationBatch) -> torch.Tensor:
        self._check_ids(batch)
        hidden: torch.Tensor = self.network(batch.source_ids, batch.target_ids, source_mask=batch.source_mask)
        return hidden

    def _check_ids(self, batch: TranslationBatch) -> None:
        """Refuse ids that the network does not know, which would end in an IndexError."""
        for ids, known in (
            (batch.source_ids, self.network.source_vocabulary_size),
            (batch.target_ids, self.network.vocabulary_size),
        ):
            largest = int(ids.max()) if ids.device.type == "cpu" else 0
            if largest >= known:
                problem = f"the data holds token id {largest}, the network knows 0 to {known - 1}"
                raise DataError(problem, "use the tokenizer that the network was built for")
