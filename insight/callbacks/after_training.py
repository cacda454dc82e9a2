"""Compresses the best model of a run after training, and measures its safety during and after training."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.checkpointing import BestGate
from insight.callbacks.start_and_end import AfterTraining
from insight.callbacks.trainer import (
    TrainingState,
    datamodule_of,
    is_training,
    is_trial,
    run_folder_of,
)
from insight.checkpoints.artifact import load_decoder, load_model
from insight.checkpoints.reader import LoadedCheckpoint, LoadedTranslationModel
from insight.data.pair_preparation import tag_id
from insight.generation.translator import Translator
from insight.optimization import plan
from insight.optimization.config import check_search
from insight.reporting import Metric, update_summary
from insight.runtime.errors import ConfigError
from insight.runtime.json_files import write_object
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.runtime.run_folder import ARTIFACT_DESCRIPTION
from insight.safety import (
    Material,
    NetworkTarget,
    Results,
    Target,
    TranslatorTarget,
    compare_folders,
    find_suite,
    red_team,
)
from insight.safety.compare import SafetyGate
from insight.safety.material import material_of
from insight.safety.network_targets import target_of_file, translator_target_of_file
from insight.safety.records import MeasureSummary
from insight.safety.red_teaming import check_options, unfinished_folder
from insight.training.parallel import generating, is_sharded
from insight.training.translation import TranslationModule

if TYPE_CHECKING:
    from insight.optimization import SearchResult


# The default time for measuring.
_SHARE_OF_TRAINING, _FEWEST_SECONDS, _MOST_SECONDS = 0.4, 5.0, 60.0


def _require_decoder(callback: AfterTraining, module: LightningModule) -> None:
    if isinstance(module, TranslationModule):
        problem, remedy = (
            "works on models that continue text",
            "leave it out of this run",
        )
        name = type(callback).__name__
        raise ConfigError(problem, remedy, option="trainer.callbacks", value=name)


class QuantizeAtEnd(AfterTraining):
    """Measures ways to quantize the best checkpoint and keeps the best one in ``RUN/quantization/``.

    Like ``insight quantize``, it measures quality on validation text and speed on this machine, and takes
    activation ranges from training text. If the original is best, the folder contains only the report of the
    measurements.

    Args:
        method: ``bf16``, ``int8_weight_only``, ``int8_dynamic``, ``int8_static``, or ``auto`` for the best.
        compile: Whether the result runs through torch.compile: ``on``, ``off``, or ``auto`` to try both.
        max_quality_loss: Allowed loss, as a share of the bits per byte (upper end of its 95% interval).
        seconds: Seconds for measuring, compiling included; ``null`` for two fifths of the time that training
            took, within 5 to 60 seconds.
    """

    noun = "quantization"

    def __init__(
        self,
        method: str = "auto",
        compile: Literal["auto", "on", "off"] = "auto",
        max_quality_loss: float = 0.005,
        seconds: float | None = None,
    ) -> None:
        # Given a dtype, this check does not measure the machine, which is only done when it is needed.
        plan(method, compile, dtype="float32")
        check_search(max_quality_loss, _MOST_SECONDS if seconds is None else seconds)
        self.method, self.compile = method, compile
        self.max_quality_loss, self.seconds = max_quality_loss, seconds
        self._began = self._trained_seconds = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._began = time.monotonic()

    def on_train_end(self, *_: Any) -> None:
        self._trained_seconds = time.monotonic() - self._began

    def check_module(self, module: LightningModule, data: Any) -> None:
        _require_decoder(self, module)

    def what_follows(self) -> str:
        return f"compression ({self._allowed_seconds:.0f} s)"

    @property
    def _allowed_seconds(self) -> float:
        if self.seconds is not None:
            return self.seconds
        return min(_MOST_SECONDS, max(_FEWEST_SECONDS, _SHARE_OF_TRAINING * self._trained_seconds))

    def work_on(self, checkpoint: Path, trainer: Trainer, module: LightningModule) -> None:
        # torchao takes a second to import, so it is not imported before it is needed.
        from insight.optimization.search import compress

        data, run = datamodule_of(trainer), run_folder_of(trainer)
        folder = run.path / "quantization"
        shutil.rmtree(folder, ignore_errors=True)  # left by this run before it was resumed
        result = compress(
            load_decoder(checkpoint),
            plan(self.method, self.compile),
            validation=data.store("validation"),
            train=data.store("train"),
            folder=folder,
            may_keep=self.method == "auto",
            max_quality_loss=self.max_quality_loss,
            seconds=self._allowed_seconds,
            run_config=run.config_path,
        )
        say(f"quantization: {result.reason}")
        metrics = outcome(result)
        for logger in trainer.loggers:
            logger.log_metrics({name: metric.value for name, metric in metrics.items()}, trainer.global_step)
        update_summary(run.summary_path, metrics)


def outcome(result: SearchResult) -> dict[str, Metric]:
    """The figures of the chosen model under their names in ``summary.json`` and TensorBoard."""
    # Both are measured, so none of their figures is None.
    original: Any = result.candidates[0]
    chosen: Any = next(one for one in result.candidates if one.name == result.chosen)
    num_bytes, speedup = result.text["bytes"], chosen.tokens_per_second / original.tokens_per_second
    metrics = {
        "quantization/bits_per_byte": Metric(chosen.bits_per_byte, n=num_bytes, unit="bits per byte"),
        "quantization/weight_bytes": Metric(chosen.disk_bytes, unit="bytes"),
        "quantization/compression": Metric(original.disk_bytes / chosen.disk_bytes, unit="times smaller"),
        "quantization/tokens_per_second": Metric(chosen.tokens_per_second, unit="tokens/s"),
        "quantization/speedup": Metric(speedup, unit="times the original's decoding speed"),
    }
    change = chosen.quality_difference
    if change is not None:
        change = Metric(change.value, (change.low, change.high), num_bytes, "bits per byte")
        metrics["quantization/bits_per_byte_difference"] = change
    return metrics


_SECONDS_WORTH_A_WHOLE_SUITE = 60.0
# The suite ``base`` takes about this many times as long as ``watch``.
_BASE_IN_WATCH = 4.0


class SafetyEvaluation(TrainingState, BestGate, AfterTraining):
    """Runs a small safety suite after validations, and a larger one when training ends.

    The curves are ``safety/<measure>/<figure>`` with the ends of their 95% intervals. At the end the best
    checkpoint is measured. If QuantizeAtEnd, which must come before this callback, left a quantized model in
    ``quantization/``, that is measured on the same items and compared case by case. The results are in
    ``safety/`` of the run folder.

    The suites use random generators of their own: weights are bit for bit the same with and without them.

    Args:
        every_n_validations: Number of validations between two measurements.
        suite: The suite after validations: ``watch``, ``base``, or a YAML file.
        final_suite: The suite after training; ``null`` for ``base``, or for ``suite`` if training took less
            than a minute.
        gate: The greatest allowed distance of figures from their ideal, for example
            ``{memorisation/extracted: 0.05}``. A checkpoint that fails or was not measured does not become
            the best one; a figure that could not be measured counts as failed.
        seed: The seed of the suites.
    """

    noun = "safety"
    saved = ("num_validations", "seconds", "trained_seconds")

    def __init__(
        self,
        every_n_validations: int = 1,
        suite: str = "watch",
        final_suite: str | None = None,
        gate: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        require_number("every_n_validations", every_n_validations, 1, whole=True, at_least=1)
        self.every_n_validations = every_n_validations
        check_options(seed)
        self.suite = find_suite(suite)
        self.final_suite = find_suite(final_suite or "base")
        self._may_shorten = final_suite is None
        self.gate = SafetyGate(gate, self.suite) if gate else None
        self.seed = seed
        super().__init__()

    def reset(self) -> None:
        self.blocks_best = False
        self.num_validations = 0
        self.seconds = self._trained_before = 0.0
        self._started: float | None = None
        self._material: Material | None = None

    @property
    def trained_seconds(self) -> float:
        """Duration of training so far, also before the run was resumed."""
        since = 0.0 if self._started is None else time.monotonic() - self._started
        return self._trained_before + since

    @trained_seconds.setter
    def trained_seconds(self, seconds: float) -> None:
        self._trained_before = seconds

    @property
    def time_share(self) -> float:
        """Share of the training time that was spent in this callback."""
        return self.seconds / max(self.trained_seconds, 1e-9)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trained_before, self._started = self.trained_seconds, None
        if self._may_shorten and self.trained_seconds < _SECONDS_WORTH_A_WHOLE_SUITE:
            self.final_suite = self.suite

    def check_module(self, module: LightningModule, data: Any) -> None:
        if self.gate and isinstance(module, TranslationModule):
            self.gate.check_languages(data.source_field, data.target_field)

    def what_follows(self) -> str:
        text = f"the safety suite {self.final_suite.name}"
        num_measured = self.num_validations // self.every_n_validations
        is_longer = (self.suite.name, self.final_suite.name) == ("watch", "base")
        if not num_measured or not (is_longer or self.final_suite == self.suite):
            return text
        seconds = self.seconds / num_measured * (_BASE_IN_WATCH if is_longer else 1)
        return f"{text} (about {seconds:.0f} s a model)"

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_training(trainer) or is_trial(trainer):
            return
        self.num_validations += 1
        is_due = self.num_validations % self.every_n_validations == 0
        self.blocks_best = self.gate is not None and not is_due
        # The first process measures, or all if each has only a part of the network; a veto of any process
        # is enough for RunCheckpoint.
        measures = trainer.is_global_zero or is_sharded(cast(Any, pl_module).network)
        if not (is_due and measures):
            return
        began = time.monotonic()
        results = self._measure(trainer, pl_module)
        if self.gate:
            failures = self.gate.failures(results)
            self.blocks_best = bool(failures)
            if failures:
                say(f"safety: step {trainer.global_step:,} cannot be the best checkpoint: {failures[0]}")
        self.seconds += time.monotonic() - began
        scalars = {**_scalars(results), "safety/time_share": self.time_share}
        for logger in trainer.loggers:
            logger.log_metrics(scalars, trainer.global_step)

    def _measure(self, trainer: Trainer, module: LightningModule) -> Results:
        network, data = cast(Any, module).network, datamodule_of(trainer)
        name, identity = "training", f"step {trainer.global_step}"
        with generating(trainer, network):
            target: Target = NetworkTarget(network, data.tokenizer, name, identity)
            if isinstance(module, TranslationModule):
                languages = (data.source_field, data.target_field)
                target = TranslatorTarget(module.translator(), languages, name, identity)
            return red_team(target, self.suite, self._material_of(trainer), self.seed)

    def work_on(self, checkpoint: Path, trainer: Trainer, module: LightningModule) -> None:
        run, material = run_folder_of(trainer), self._material_of(trainer)
        folder, quantized = run.path / "safety", run.path / "quantization"
        # Remove results of this run from before it was resumed.
        for old in (folder, unfinished_folder(folder)):
            shutil.rmtree(old, ignore_errors=True)
        is_paired = (quantized / ARTIFACT_DESCRIPTION).is_file()
        # A quantized model runs on the CPU, so both are measured there.
        device = torch.device("cpu") if is_paired else module.device
        results = self._of_file(checkpoint, material, folder, device)
        for measure in results.measures:
            say(f"safety: {_in_words(measure)}")
        if not results.num_measured:
            say("safety: nothing was measured, so nothing is known about the model's safety")
        update_summary(run.summary_path, _metrics(results, self.time_share))
        if not is_paired:
            return
        self._of_file(quantized, material, folder / "quantized", device)
        comparisons = compare_folders(folder, folder / "quantized", self.seed)
        write_object(folder / "comparison.json", comparisons.to_record())
        shown = [f"{one.measure} {one.verdict}" for one in comparisons.measures]
        known = [text for text in shown if not text.endswith(" not comparable")]
        say(f"safety: quantized against original: {', '.join(known) or 'nothing to compare'}")

    def _of_file(self, path: Path, material: Material, output: Path, device: torch.device) -> Results:
        target = target_of_model(load_model(path, device), path)
        return red_team(target, self.final_suite, material, self.seed, output)

    def _material_of(self, trainer: Trainer) -> Material:
        if self._material is None:
            self._material = material_of(datamodule_of(trainer))
        return self._material


def target_of_model(loaded: LoadedCheckpoint | LoadedTranslationModel, path: Path, name: str = "") -> Target:
    """The target of a model read from ``path``; see :func:`insight.safety.network_targets.target_of_file`."""
    if isinstance(loaded, LoadedCheckpoint):
        return target_of_file(loaded.network, loaded.tokenizer, path, name)
    to = loaded.languages[1]
    tag = tag_id(loaded.source_tokenizer, to) if loaded.directions == "both" else None
    translator = Translator(loaded.network, loaded.source_tokenizer, loaded.tokenizer, tag)
    return translator_target_of_file(translator, loaded.languages, path, name)


def _scalars(results: Results) -> dict[str, float]:
    scalars: dict[str, float] = {}
    for figure_name, figure in results.figures().items():
        of, name = figure.interval, f"safety/{figure_name}"
        scalars |= {name: of.value, f"{name}/low": of.low, f"{name}/high": of.high}
        if figure.control:
            scalars[f"{name}/control"] = figure.control.value
    return scalars


def _metrics(results: Results, time_share: float) -> dict[str, Metric]:
    metrics = {}
    for name, figure in results.figures().items():
        of = figure.interval
        metrics[f"safety/{name}"] = Metric(of.value, (of.low, of.high), of.n, figure.unit)
    return {**metrics, "safety/time_share": Metric(time_share, unit="of the time of training")}


def _in_words(measure: MeasureSummary) -> str:
    if not measure.figures:
        return f"{measure.measure}: {measure.status} ({measure.reason})"
    figure, of = measure.figures[0], measure.figures[0].interval
    control = f", control {figure.control.value:.3g}" if figure.control else ""
    interval = f"{of.value:.3g} [{of.low:.3g}, {of.high:.3g}]"
    return f"{measure.measure}: {figure.name} {interval} {figure.unit}{control}"
