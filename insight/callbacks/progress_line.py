"""The line that people watch while a network trains."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from insight.callbacks.progress_text import Style, duration, measured, progress_line
from insight.callbacks.step_timing import StepTiming
from insight.callbacks.steps import planned_steps, seconds_left, step_completed
from insight.callbacks.terminal_line import TerminalLine, is_terminal, style_of
from insight.callbacks.throughput import ThroughputMonitor
from insight.callbacks.trainer_parts import callbacks_of
from insight.runtime.errors import ConfigError
from insight.runtime.messages import say

_SECONDS_BETWEEN_DRAWINGS = 0.1


class ProgressLine(StepTiming, ProgressBar):
    """Shows how far training is, how good the network is and how long it will take.

    On a terminal it is one line, redrawn in place and fitted to the width; colours are left out where
    ``NO_COLOR`` is set. Elsewhere (a file, a pipe, ``TERM=dumb``) plain lines come at intervals. Either
    way every validation leaves a line.

    Args:
        seconds_between_lines: Time between plain lines where stderr is no terminal.
    """

    clock_window = 50

    def __init__(self, seconds_between_lines: float = 10.0) -> None:
        if seconds_between_lines < 0:
            raise ConfigError(
                f"ProgressLine(seconds_between_lines={seconds_between_lines}): cannot be negative", "use 10"
            )
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._enabled = True
        self._line: TerminalLine | None = None
        self._is_open = False
        self._style = Style()
        self._next_time = 0.0
        self._began = 0.0
        self._first_step = 0
        self._bits_per_byte: float | None = None

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._close()
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's way to print beside a progress bar."""
        say(kwargs.get("sep", " ").join(str(argument) for argument in args))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._open()
        self._bits_per_byte, self._first_step = None, trainer.global_step
        self._show("train", trainer.global_step, planned_steps(trainer, pl_module), ["first step"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        total = planned_steps(trainer, pl_module)
        if self._is_time(trainer.global_step == total) and step_completed(trainer):
            self._show("train", trainer.global_step, total, self._facts(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        steps = trainer.global_step - self._first_step
        more = " more" if self._first_step else ""
        facts = [f"trained {steps:,}{more} steps in {duration(time.monotonic() - self._began)}"]
        if self.clock.tokens_per_second:
            facts.append(f"{self.clock.tokens_per_second:,.0f} tokens/s")
        if self._bits_per_byte is not None:
            facts.append(f"{self._bits_per_byte:.3f} bits per byte")
        self._say(", ".join(facts))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._open()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._show_batches("check" if trainer.sanity_checking else "validate", args, batches)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._show_batches("test", args, trainer.num_test_batches)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._show_batches("predict", args, trainer.num_predict_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._report(trainer, "validation")
        if trainer.state.fn != "fit":
            self._close()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        self._report(trainer, "test")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def _facts(self, trainer: Trainer, module: LightningModule) -> list[str]:
        """What to say about training, most important first."""
        facts = []
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None:
            facts.append(f"loss {float(loss):.3f}")
        left = seconds_left(trainer, module, self.clock)
        if left is not None:
            facts.append(f"{duration(left)} left")
        if self._bits_per_byte is not None:
            facts.append(f"{self._bits_per_byte:.3f} bits/byte")
        if self.clock.tokens_per_second is not None:
            facts.append(f"{self.clock.tokens_per_second:,.0f} tokens/s")
        for monitor in callbacks_of(trainer, ThroughputMonitor):
            if monitor.matmul_share is not None:
                facts.append(f"{monitor.matmul_share:.0%} of the machine")
        return facts

    def _report(self, trainer: Trainer, stage: str) -> None:
        """A line that stays: what a validation or test found."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if stage == "validation":
            self._bits_per_byte = metrics.get("validation/bits_per_byte")
        facts = measured(metrics, stage)
        where = f"step {trainer.global_step:,}: " if trainer.state.fn == "fit" else ""
        if facts:
            self._say(f"{where}{stage} {', '.join(facts)}")

    def _show_batches(self, title: str, args: tuple[Any, ...], batches: Any) -> None:
        """Progress of a measuring loop; ``args`` are the hook's outputs, batch and indices."""
        batch_index, loader_index = args[2], args[3] if len(args) > 3 else 0
        counts = batches if isinstance(batches, list) else [batches]
        done, total = sum(counts[:loader_index]) + batch_index + 1, sum(counts)
        if self._is_time(done == total):
            self._show(title, done, int(total) if total != float("inf") else None, [])

    def _is_time(self, is_last: bool) -> bool:
        now = time.monotonic()
        if now < self._next_time and not (is_last and self._line):
            return False
        self._next_time = now + (_SECONDS_BETWEEN_DRAWINGS if self._line else self.seconds_between_lines)
        return self._enabled

    def _show(self, title: str, done: int, total: int | None, facts: list[str]) -> None:
        if not self._enabled:
            return
        count = f"{done:,}/{total:,}" if total else f"{done:,}"
        if self._line:
            share = done / total if total else 0.0
            self._line.draw(progress_line(title, share, [count, *facts], self._line.width, self._style))
        elif done:
            say(f"{title} {', '.join([count, *facts])}")

    def _say(self, text: str) -> None:
        if self._enabled:
            say(text)

    def _open(self) -> None:
        """Look where stderr leads; a validation inside a fit finds everything open."""
        if self._is_open or not self._enabled:
            return
        self._is_open, self._began = True, time.monotonic()
        if is_terminal(sys.stderr):
            self._next_time = 0.0
            self._style = style_of(sys.stderr)
            self._line = TerminalLine(sys.stderr)
            self._line.open()
        else:
            self._next_time = self._began + self.seconds_between_lines

    def _close(self) -> None:
        self._is_open = False
        if self._line:
            self._line.close()
            self._line = None
