"""Samples texts from the network during training, without any effect on the training itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.trainer import TrainingState, datamodule_of, is_training, run_folder_of
from insight.data import TranslationDataModule
from insight.generation import GenerationSettings, generate
from insight.reporting.loggers import RunTensorBoard
from insight.reporting.run_files import Sample, append_sample, read_samples
from insight.runtime.errors import CheckpointError, ConfigError, DataError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.training.parallel import generating, is_sharded
from insight.training.translation import TranslationModule

_NUM_WORDS, _NUM_TOKENS = 4, 64


class SampleText(TrainingState):
    """Continues some prompts, or translates them, after validations and when training ends.

    The texts are written to ``samples.jsonl``, TensorBoard and the report. The sampler has its own random
    generator, so training is bit for bit the same with and without samples.

    Args:
        prompts: Prompts to continue, or sentences to translate; if empty, the beginning of the validation
            text.
        every_n_validations: Number of validations between two samples.
        settings: Length, temperature and the other options of the sampler.
    """

    saved = ("num_validations",)

    def __init__(
        self,
        prompts: Sequence[str] = (),
        every_n_validations: int = 1,
        settings: GenerationSettings = GenerationSettings(max_new_tokens=100),
    ) -> None:
        if isinstance(prompts, str):
            raise ConfigError("must be a list", f"use [{prompts!r}]", option="prompts", value=prompts)
        require_number("every_n_validations", every_n_validations, 1, whole=True, at_least=1)
        self.prompts = tuple(prompts)
        self.every_n_validations = every_n_validations
        self.settings = settings
        super().__init__()

    def reset(self) -> None:
        self.num_validations, self._sampled_step = 0, -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sampled_step = trainer.global_step
        if trainer.is_global_zero:
            # A resumed run takes the samples of later steps again.
            path = run_folder_of(trainer).samples_path
            samples = read_samples(path)
            kept = [sample for sample in samples if sample.step <= trainer.global_step]
            if len(kept) < len(samples):
                path.unlink()
                for sample in kept:
                    append_sample(path, sample)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_training(trainer):
            self.num_validations += 1
            if self.num_validations % self.every_n_validations == 0:
                self._sample(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._sampled_step != trainer.global_step:
            self._sample(trainer, pl_module)

    def _sample(self, trainer: Trainer, module: LightningModule) -> None:
        self._sampled_step = trainer.global_step
        network, tokenizer = cast(Any, module).network, datamodule_of(trainer).tokenizer
        if not (trainer.is_global_zero or is_sharded(network)):  # a sharded network needs all processes
            return
        with generating(trainer, network):
            for prompt in self.prompts or [_beginning(datamodule_of(trainer))]:
                try:
                    if isinstance(module, TranslationModule):
                        text = module.translator().translate([prompt], module.translation)[0].text
                    else:
                        text = generate(network, tokenizer, prompt, self.settings).text
                except CheckpointError as error:  # the network has diverged, which a guard has to judge
                    say(f"sample: {error.problem}")
                    return
                if not trainer.is_global_zero:
                    continue
                sample = Sample(trainer.global_step, prompt, text)
                append_sample(run_folder_of(trainer).samples_path, sample)
                for logger in trainer.loggers:
                    if isinstance(logger, RunTensorBoard):
                        logger.log_sample(sample)


def _beginning(data: Any) -> str:
    """The first words or source sentence of the validation text, or of the training text without one."""
    if isinstance(data, TranslationDataModule):
        return data.first_sentence("validation" if data.has("validation") else "train")
    try:
        store = data.store("validation")
    except DataError:
        store = data.store("train")
    ids = store.tokens(0, min(_NUM_TOKENS, store.num_tokens))
    text: str = data.tokenizer.decode([int(token) for token in ids])
    return " ".join(text.split()[:_NUM_WORDS]) or text
