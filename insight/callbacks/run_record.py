"""Records the facts and results of a run: run.json, summary.json and report.html."""

from __future__ import annotations

import contextlib
import functools
import platform
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.early_stopping import EarlyStopping
from insight.callbacks.interruption import TrainingInterrupted
from insight.callbacks.throughput import TimeBudget
from insight.callbacks.trainer import callbacks_of, datamodule_of, run_folder_of
from insight.checkpoints.reader import read_checkpoint
from insight.models import AttentionModule
from insight.reporting import (
    Metric,
    RunTensorBoard,
    read_run_info,
    read_summary,
    update_run_info,
    update_summary,
)
from insight.reporting.loggers import MetricsFile, StepLabels
from insight.reporting.run_files import unit_of
from insight.runtime.component import Component
from insight.runtime.errors import OutputError
from insight.runtime.hardware import this_machine
from insight.runtime.messages import say
from insight.runtime.version import __version__
from insight.training.translation import TranslationModule
from insight.training.translation_evaluation import TranslationEvaluation

_SPEEDS = ("throughput/tokens_per_second", "throughput/matmul_share")
_LOGGED_TRANSLATIONS = 10
_KEPT = ("validation/", "test/", *_SPEEDS, "memory/peak_bytes")


class RunRecord(Callback):
    """Keeps the record of a run in its folder.

    ``run.json`` is written when training starts (command, versions, machine, data, network, precision,
    threads, attention kernels); interruptions and resumes become notes in it. ``summary.json`` and
    ``report.html`` are written when training or testing ends, even if it was interrupted, and
    ``translations/`` when a translation model was tested. The options, the final metrics and the first
    translations are logged to TensorBoard.

    Args:
        report: Whether to write ``report.html``, which takes about a second.
    """

    def __init__(self, report: bool = True) -> None:
        self.report = report

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, StepLabels):
                logger.count_steps = functools.partial(_step_of_weights, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, StepLabels):
                logger.begin_training(trainer.global_step)
        if not trainer.is_global_zero:
            return
        path, step = run_folder_of(trainer).info_path, trainer.global_step
        if step and "started" in read_run_info(path):
            note = f"resumed at step {step:,} ({_now()})"
            update_run_info(path, notes=(note,), finished=None, stop_reason=None)
            return
        notes = (f"went on from step {step:,} of {trainer.ckpt_path}",) if step else ()
        facts = run_facts(trainer, pl_module)
        if facts["kernels"]:
            say(f"attention: {'; '.join(facts['kernels'])}")
        update_run_info(path, notes=notes, **facts)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and run_folder_of(trainer).info_path.is_file():
            _record_time(trainer, "training_seconds")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, _stop_reason(trainer))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # `insight test` on a checkpoint outside a run folder has no record to add to.
        if run_folder_of(trainer).info_path.is_file():
            if trainer.is_global_zero and (evaluation := _evaluation(pl_module)):
                _keep_translations(trainer, evaluation)
            self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        path = run_folder_of(trainer).info_path
        if not trainer.is_global_zero or trainer.state.fn != "fit" or not path.is_file():
            return
        reason, is_interrupted = str(exception), isinstance(exception, TrainingInterrupted)
        if not is_interrupted:
            reason = f"ended at step {trainer.global_step:,} by {type(exception).__name__}: {reason}"
        # A failure to write this note must not hide the error that ends the run (a full disk causes both).
        with contextlib.suppress(OutputError):
            update_run_info(path, notes=(f"{reason} ({_now()})",))
            if is_interrupted and not getattr(exception, "aborted", False):
                self._finish(trainer, reason)

    def _finish(self, trainer: Trainer, stop_reason: str | None = None) -> None:
        if not trainer.is_global_zero:
            return
        run = run_folder_of(trainer)
        if stop_reason:
            steps = int(trainer.global_step)
            update_run_info(run.info_path, finished=_now(), stop_reason=stop_reason, steps=steps)
        update_summary(run.summary_path, _final_metrics(trainer))
        _record_time(trainer, "seconds")
        for logger in trainer.loggers:
            if isinstance(logger, RunTensorBoard):
                config = run.config_path
                options = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else {}
                outcome = {name: metric.value for name, metric in read_summary(run.path).items()}
                logger.log_outcome(options or {}, outcome, _step_of_weights(trainer))
        if self.report:
            # The charts' library takes long to import, and most commands and processes write no page.
            from insight.reporting import write_report

            write_report(run)


def _evaluation(module: LightningModule) -> TranslationEvaluation | None:
    """The newest evaluation of translations, of a model that translates."""
    return module.evaluation if isinstance(module, TranslationModule) else None


def _keep_translations(trainer: Trainer, evaluation: TranslationEvaluation) -> None:
    """Write all translations to the run folder, and the first ones to TensorBoard."""
    evaluation.write(run_folder_of(trainer).translations)
    text = "\n\n".join(
        f"{sentence.source}\n{sentence.translation}\n({sentence.reference})"
        for sentence in evaluation.sentences[:_LOGGED_TRANSLATIONS]
    )
    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.log_text(f"translations/{evaluation.split}", text, _step_of_weights(trainer))


def run_facts(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The facts about a run that are known before its first step, by their keys in ``run.json``."""
    import lightning

    data, precision = datamodule_of(trainer), str(trainer.precision)
    network = getattr(module, "network", module)
    config = getattr(network, "config", None)
    length = getattr(data, "sequence_length", 0)
    return {
        "command": list(sys.argv),
        "started": _now(),
        "insight_version": __version__,
        "torch_version": torch.__version__,
        "lightning_version": lightning.__version__,
        "python_version": platform.python_version(),
        "hardware": this_machine(),
        "data": data.summary() if hasattr(data, "summary") else {},
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "network": config.to_dict() if isinstance(config, Component) else {},
        "network_sizes": _sizes(network),
        "precision": precision,
        "num_threads": torch.get_num_threads(),
        "kernels": kernels_of(network, module.device.type, precision, length),
    }


def kernels_of(network: torch.nn.Module, device: str, precision: str, num_tokens: int) -> list[str]:
    """One entry for each attention kernel of the network, with the reason and the number of layers."""
    half = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    dtype = half if precision.startswith(("bf16", "16")) else torch.float32
    found: Counter[str] = Counter()
    for module in network.modules():
        if isinstance(module, AttentionModule):
            description = module.describe_kernel(device, dtype, num_tokens)
            found.update([description] if description else [])
    return [f"{text} ({count} layer{'s' if count > 1 else ''})" for text, count in found.items()]


def _record_time(trainer: Trainer, name: str) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile):
            now: dict[str, Any] = {name: logger.seconds}
            update_run_info(run_folder_of(trainer).info_path, **now)


def _step_of_weights(trainer: Trainer) -> int:
    """Number of optimizer steps that the weights were trained for, even if they come from a file."""
    if trainer.state.fn == "fit" or not trainer.ckpt_path:
        return int(trainer.global_step)
    return int(read_checkpoint(Path(trainer.ckpt_path)).get("global_step", 0))


def _sizes(network: Any) -> dict[str, int]:
    """The actual sizes that a configuration may leave open, by the names of its fields."""
    sizes: dict[str, int] = {}
    for module in network.modules():
        if isinstance(module, torch.nn.Embedding):
            sizes.setdefault("vocabulary_size", module.num_embeddings)
        if isinstance(found := getattr(module, "head_dim", None), int):
            sizes.setdefault("head_dim", found)
        if isinstance(found := getattr(getattr(module, "down", None), "in_features", None), int):
            sizes.setdefault("intermediate_size", found)
    return sizes


def _final_metrics(trainer: Trainer) -> dict[str, Metric]:
    metrics = trainer.callback_metrics.items()
    evaluation = _evaluation(trainer.lightning_module)
    intervals = evaluation.intervals if evaluation else {}
    values = {name: float(value) for name, value in metrics if name.startswith(_KEPT)}
    found = {}
    for name, value in values.items():
        interval, n = intervals.get(name, (None, None))
        found[name] = Metric(value, interval, n, unit_of(name))
    for checkpoint in callbacks_of(trainer, RunCheckpoint):
        monitor, best = checkpoint.monitor, checkpoint.best_model_score
        if best is not None and trainer.state.fn == "fit":
            found[f"best/{monitor}"] = Metric(best, unit=unit_of(monitor))
    return found


def _stop_reason(trainer: Trainer) -> str:
    for early in callbacks_of(trainer, EarlyStopping):
        if early.stopping_reason_message:
            return f"stopped early at step {trainer.global_step:,}: {early.stopping_reason_message}"
    for budget in callbacks_of(trainer, TimeBudget):
        return f"{trainer.global_step:,} steps within the time budget of {budget.seconds:g} s"
    return f"all {trainer.global_step:,} steps done"


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")
