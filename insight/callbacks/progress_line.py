"""The progress line of a run on the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.text import Text

from insight.callbacks.throughput import StepTiming, ThroughputMonitor, seconds_left
from insight.callbacks.trainer import callbacks_of, planned_steps
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.training.lightning_internals import step_completed

_SECONDS_BETWEEN_DRAWINGS = 0.1
_FEWEST_BAR_COLUMNS = 8
_MOST_BAR_COLUMNS = 30


class ProgressLine(StepTiming, ProgressBar):
    """Shows the progress of training, the quality of the network and the time left.

    A terminal shows one line, redrawn in place and fitted to the width, without colours if ``NO_COLOR`` is
    set. Elsewhere (a file, a pipe, ``TERM=dumb``) plain lines are printed at intervals. Every validation
    prints a line in both cases.

    Args:
        seconds_between_lines: Seconds between plain lines if stderr is not a terminal.
    """

    clock_window = 50

    def __init__(self, seconds_between_lines: float = 10.0) -> None:
        require_number("seconds_between_lines", seconds_between_lines, 10, at_least=0)
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._enabled, self._is_open = True, False
        self._live: Live | None = None
        self._next_time = self._began = 0.0
        self._first_step = 0
        self._bits_per_byte: float | None = None
        self._chrf: float | None = None  # of a model that translates in validation

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._close()
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line above the progress line (Lightning's interface)."""
        say(kwargs.get("sep", " ").join(str(argument) for argument in args))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open()
        self._bits_per_byte = self._chrf = None
        self._first_step = trainer.global_step
        self._show("train", trainer.global_step, planned_steps(trainer, pl_module), ["first step"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
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
        if self._chrf is not None:
            facts.append(f"chrF++ {self._chrf:.1f}")
        if self._enabled:
            say(", ".join(facts))

    def teardown(self, *_: Any, **__: Any) -> None:
        self._close()

    on_exception = on_predict_end = teardown

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._open()

    def on_test_start(self, *_: Any, **__: Any) -> None:
        self._open()

    on_predict_start = on_test_start

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.sanity_checking:
            self._show_batches("check", args, trainer.num_sanity_val_batches)
        else:
            self._show_batches("validate", args, trainer.num_val_batches)

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

    def _facts(self, trainer: Trainer, module: LightningModule) -> list[str]:
        loss, left = trainer.callback_metrics.get("train/loss"), seconds_left(trainer, module, self.clock)
        shares = [monitor.matmul_share for monitor in callbacks_of(trainer, ThroughputMonitor)]
        facts = (
            (loss, "loss {:.3f}"),
            (None if left is None else duration(left), "{} left"),
            (self._bits_per_byte, "{:.3f} bits/byte"),
            (self._chrf, "chrF++ {:.1f}"),
            (self.clock.tokens_per_second, "{:,.0f} tokens/s"),
            *((share, "{:.0%} of the machine") for share in shares),
        )
        return [form.format(value) for value, form in facts if value is not None]

    def _report(self, trainer: Trainer, stage: str) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if stage == "validation":
            self._bits_per_byte = metrics.get("validation/bits_per_byte")
            self._chrf = metrics.get("validation/chrf")
        facts = measured(metrics, stage)
        where = f"step {trainer.global_step:,}: " if trainer.state.fn == "fit" else ""
        if facts and self._enabled:
            say(f"{where}{stage} {', '.join(facts)}")

    def _show_batches(self, title: str, args: tuple[Any, ...], batches: Any) -> None:
        """Show the progress of an evaluation loop; ``args`` are the hook's outputs, batch and indices."""
        batch_index, loader_index = args[2], args[3] if len(args) > 3 else 0
        counts = batches if isinstance(batches, list) else [batches]
        done, total = sum(counts[:loader_index]) + batch_index + 1, sum(counts)
        if self._is_time(done == total):
            self._show(title, done, int(total) if total != float("inf") else None, [])

    def _is_time(self, is_last: bool) -> bool:
        now = time.monotonic()
        if now < self._next_time and not (is_last and self._live):
            return False
        self._next_time = now + (_SECONDS_BETWEEN_DRAWINGS if self._live else self.seconds_between_lines)
        return self._enabled

    def _show(self, title: str, done: int, total: int | None, facts: list[str]) -> None:
        if not self._enabled:
            return
        count = f"{done:,}/{total:,}" if total else f"{done:,}"
        if self._live:
            line = FittedLine(title, done / total if total else 0.0, [count, *facts])
            self._live.update(line, refresh=True)
        elif done:
            say(f"{title} {', '.join([count, *facts])}")

    def _open(self) -> None:
        """Start the display once, as a live line if stderr is a terminal."""
        if self._is_open or not self._enabled:
            return
        self._is_open, self._began = True, time.monotonic()
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._next_time = 0.0
            # Other output appears above the line, unwrapped and unchanged.
            console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        else:
            self._next_time = self._began + self.seconds_between_lines

    def _close(self) -> None:
        self._is_open = False
        live, self._live = self._live, None
        if live:
            live.stop()


@dataclass
class FittedLine:
    """A title, a bar and as many facts as fit into the width of the console, for :mod:`rich` to draw."""

    title: str
    share: float  # of the activity that is done, 0 to 1
    facts: Sequence[str]  # the first is always shown, the others if a bar still fits

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        separator = " - " if options.ascii_only else " · "
        width, kept = max(1, options.max_width - 1), list(self.facts[:1])
        for fact in self.facts[1:]:
            if width - len(self.title) - len(separator.join([*kept, fact])) - 2 < _FEWEST_BAR_COLUMNS:
                break
            kept.append(fact)
        text = separator.join(kept)
        columns = min(_MOST_BAR_COLUMNS, width - len(self.title) - len(text) - 2)
        if columns < 3:
            yield Text(f"{self.title} {text}"[:width], end="")
            return
        yield Text(f"{self.title} ", end="")
        share = min(1.0, max(0.0, self.share))
        yield Bar(1.0, share, columns, style="dim", complete_style="cyan", finished_style="cyan")
        yield Text(f" {text}", end="")


def measured(metrics: Mapping[str, float], stage: str) -> list[str]:
    """The metrics of a validation or test as text, if they were logged."""
    forms = {"bits_per_byte": "{:.4f} bits per byte", "loss": "loss {:.4f}"}
    forms |= {"perplexity": "perplexity {:,.2f}", "chrf": "chrF++ {:.1f}", "bleu": "BLEU {:.1f}"}
    values = {form: metrics.get(f"{stage}/{name}") for name, form in forms.items()}
    return [form.format(value) for form, value in values.items() if value is not None]


def duration(seconds: float) -> str:
    """A time as text, rounded to seconds: ``0:42``, ``12:07``, ``3:20:00``."""
    whole = max(0, round(seconds))
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
