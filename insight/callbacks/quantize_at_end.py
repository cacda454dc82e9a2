"""Compresses the best model of a run after training."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.start_and_end import AfterTraining
from insight.callbacks.trainer_parts import datamodule_of, run_folder_of
from insight.optimization import plan
from insight.optimization.config import check_search
from insight.reporting import Metric, update_summary
from insight.runtime.messages import say

if TYPE_CHECKING:
    from insight.optimization import SearchResult

# The default time for measuring.
_SHARE_OF_TRAINING, _FEWEST_SECONDS, _MOST_SECONDS = 0.4, 5.0, 60.0


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

    def what_follows(self) -> str:
        return f"compression ({self._allowed_seconds:.0f} s)"

    @property
    def _allowed_seconds(self) -> float:
        if self.seconds is not None:
            return self.seconds
        return min(_MOST_SECONDS, max(_FEWEST_SECONDS, _SHARE_OF_TRAINING * self._trained_seconds))

    def work_on(self, checkpoint: Path, trainer: Trainer, module: LightningModule) -> None:
        # torchao takes a second to import, so it is not imported before it is needed.
        from insight.checkpoints.artifact import load_model
        from insight.optimization.search import compress

        data, run = datamodule_of(trainer), run_folder_of(trainer)
        folder = run.path / "quantization"
        shutil.rmtree(folder, ignore_errors=True)  # left by this run before it was resumed
        result = compress(
            load_model(checkpoint),
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
