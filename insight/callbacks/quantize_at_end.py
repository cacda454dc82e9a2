"""Compresses the best model of a run when its training is over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.trainer_parts import datamodule_of, run_folder_of
from insight.checkpoints.artifact import load_model
from insight.optimization import Calibration, QuantizationSearch, SearchResult
from insight.optimization.config import plan
from insight.optimization.measurement.text import MeasuredText
from insight.optimization.search import write_result
from insight.reporting import Metric, update_summary
from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.messages import say


class QuantizeAtEnd(Callback):
    """Measures ways to quantize the best checkpoint and keeps the best one in ``RUN/quantization/``.

    What ``insight quantize`` does: quality on validation text, speed on this machine, activation ranges from
    training text. Where the model is best left alone, the folder holds the report of the measurements only.
    A failure is said and does not fail the run.

    Args:
        method: ``bf16``, ``int8_weight_only``, ``int8_dynamic``, ``int8_static``, or ``auto`` for the best.
        compile: Whether the result runs through torch.compile: ``on``, ``off``, or ``auto`` to try both.
        max_quality_loss: Share of the bits per byte that may surely be lost.
        seconds: Time for measuring, compiling included.
    """

    def __init__(
        self,
        method: str = "auto",
        compile: Literal["auto", "on", "off"] = "auto",
        max_quality_loss: float = 0.005,
        seconds: float = 60.0,
    ) -> None:
        # The types are chosen by measuring the machine, which is not done before it is needed.
        plan(method, compile, dtype="float32")
        if not 0 <= max_quality_loss < 1:
            raise ConfigError(
                f"QuantizeAtEnd(max_quality_loss={max_quality_loss}): must be a share from 0 to below 1",
                "use 0.005",
            )
        if not 0 < seconds < float("inf"):
            raise ConfigError(f"QuantizeAtEnd(seconds={seconds}): must be above 0", "use 60")
        self.method = method
        self.compile = compile
        self.max_quality_loss = max_quality_loss
        self.seconds = seconds

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        run = run_folder_of(trainer)
        checkpoint = run.best_checkpoint or run.last_checkpoint
        if checkpoint is None:
            say("quantization: the run kept no checkpoint, so there is nothing to quantize")
            return
        try:
            result = self._search(trainer, checkpoint)
            folder = run.path / "quantization"
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was resumed: its model is another now
            write_result(result, folder, run.config_path)
        except InsightError as error:
            say(f"quantization: {error}")
            return
        say(f"quantization: {result.reason}")
        metrics = outcome(result)
        for logger in trainer.loggers:
            logger.log_metrics({name: metric.value for name, metric in metrics.items()}, trainer.global_step)
        update_summary(run.summary_path, metrics)

    def _search(self, trainer: Trainer, checkpoint: Path) -> SearchResult:
        data = datamodule_of(trainer)
        model = load_model(checkpoint)
        length = data.sequence_length
        configs = plan(self.method, self.compile)
        say(f"quantization: {len(configs)} candidates in about {self.seconds:.0f} s")
        search = QuantizationSearch(
            model,
            MeasuredText.of(data.store("validation"), model.tokenizer, length),
            Calibration.from_store(data.store("train"), length),
            self.max_quality_loss,
            self.seconds,
        )
        return search.run(configs, may_keep=self.method == "auto")


def outcome(result: SearchResult) -> dict[str, Metric]:
    """The chosen model's figures under the names of ``summary.json`` and TensorBoard."""
    original = result.candidates[0]
    chosen = next(one for one in result.candidates if one.name == result.chosen)
    assert chosen.bits_per_byte is not None
    assert chosen.disk_bytes is not None
    assert original.disk_bytes is not None
    assert chosen.tokens_per_second is not None
    assert original.tokens_per_second is not None
    num_bytes = result.text["bytes"]
    metrics = {
        "quantization/bits_per_byte": Metric(chosen.bits_per_byte, n=num_bytes, unit="bits per byte"),
        "quantization/weight_bytes": Metric(chosen.disk_bytes, unit="bytes"),
        "quantization/compression": Metric(original.disk_bytes / chosen.disk_bytes, unit="times smaller"),
        "quantization/tokens_per_second": Metric(chosen.tokens_per_second, unit="tokens/s"),
        "quantization/speedup": Metric(
            chosen.tokens_per_second / original.tokens_per_second, unit="times the original's decoding speed"
        ),
    }
    difference = chosen.quality_difference
    if difference is not None:
        metrics["quantization/bits_per_byte_difference"] = Metric(
            difference.value, (difference.low, difference.high), num_bytes, "bits per byte"
        )
    return metrics
