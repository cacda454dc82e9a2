"""The line that people watch while a network trains."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from insight.callbacks.throughput import StepTiming, ThroughputMonitor, seconds_left
from insight.callbacks.trainer_parts import callbacks_of, planned_steps, step_completed
from insight.runtime.errors import ConfigError
from insight.runtime.messages import say

_FEWEST_BAR_COLUMNS = 8
_MOST_BAR_COLUMNS = 30
_SEPARATOR = " · "


@dataclass(frozen=True)
class Style:
    """How a line may look.

    Args:
        unicode: Whether the terminal shows box characters.
        color: Whether it may be coloured.
    """

    unicode: bool = True
    color: bool = False


def progress_line(title: str, share: float, facts: list[str], width: int, style: Style) -> str:
    """``title``, a bar and as many facts as fit, the first ones first.

    Args:
        title: What is being done.
        share: Done part of it, 0 to 1.
        facts: The most important first; the first is always kept, then as many as leave room for a bar.
        width: Columns that may be used (escape sequences do not count).
        style: How it may look.
    """
    separator = _SEPARATOR if style.unicode else " - "
    kept: list[str] = []
    for fact in facts:
        room = width - len(title) - len(separator.join([*kept, fact])) - 2
        if kept and room < _FEWEST_BAR_COLUMNS:
            break
        kept.append(fact)
    text = separator.join(kept)
    columns = min(_MOST_BAR_COLUMNS, width - len(title) - len(text) - 2)
    if columns < 3:
        return f"{title} {text}"[:width]
    return f"{title} {_bar(share, columns, style)} {text}"


def measured(metrics: Mapping[str, float], stage: str) -> list[str]:
    """What a validation or test found, as far as it was logged."""
    forms = (
        ("bits_per_byte", "{:.4f} bits per byte"),
        ("loss", "loss {:.4f}"),
        ("perplexity", "perplexity {:,.2f}"),
    )
    return [form.format(metrics[f"{stage}/{name}"]) for name, form in forms if f"{stage}/{name}" in metrics]


def duration(seconds: float) -> str:
    """``0:42``, ``12:07``, ``3:20:00``; for people, so a second or two of error does not matter."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _bar(share: float, columns: int, style: Style) -> str:
    share = min(1.0, max(0.0, share))
    if not style.unicode:
        filled = round(share * columns)
        return "#" * filled + "-" * (columns - filled)
    halves = round(share * columns * 2)
    done = "━" * (halves // 2) + "╸" * (halves % 2)
    rest = "─" * (columns - len(done))
    return f"\x1b[36m{done}\x1b[0m\x1b[2m{rest}\x1b[0m" if style.color else done + rest


_ERASE_TO_END = "\x1b[K"


class TerminalLine:
    """Draws a line in place on ``stream``.

    Every update is a single write that erases only what is right of the new text, so nothing flickers.
    While it is open, ``sys.stdout`` and ``sys.stderr`` are wrapped where they are the same terminal: what
    anybody prints goes above the line instead of into it.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = ""
        # Somebody has printed half a line: drawing now would overwrite it.
        self._interrupted = False
        self._wrapped: dict[str, TextIO] = {}

    @property
    def width(self) -> int:
        """Columns that can be written without wrapping; asked every time, since windows are resized."""
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = 0
        return max(1, (columns or shutil.get_terminal_size().columns) - 1)

    def open(self) -> None:
        """Begin to guard what others print."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if name not in self._wrapped and not isinstance(stream, _Above) and stream.isatty():
                self._wrapped[name] = stream
                setattr(sys, name, _Above(stream, self))

    def draw(self, text: str) -> None:
        """Show ``text``, which must fit into :attr:`width`, in place of what was shown."""
        if text != self.text and not self._interrupted:
            self._write(text)
        self.text = text

    def close(self) -> None:
        """Erase the line and give the terminal back."""
        if self.text and not self._interrupted:
            self._write("")
        self.text, self._interrupted = "", False
        for name, stream in self._wrapped.items():
            if isinstance(getattr(sys, name), _Above):
                setattr(sys, name, stream)
        self._wrapped = {}

    def pass_through(self, stream: TextIO, text: str) -> None:
        """Write somebody else's ``text`` above the line."""
        if self.text and not self._interrupted:
            self._write("")
        stream.write(text)
        stream.flush()
        self._interrupted = not text.endswith("\n")
        if self.text and not self._interrupted:
            self._write(self.text)

    def _write(self, text: str) -> None:
        # The cursor rests at the first column: output of a library that kept the unwrapped stream begins
        # there, and not at the end of our text.
        with contextlib.suppress(OSError):  # a closed terminal must not end the training
            self.stream.write(f"\r{text}{_ERASE_TO_END}\r")
            self.stream.flush()


class _Above:
    """Stands in for ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, stream: TextIO, line: TerminalLine) -> None:
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        if text:
            self._line.pass_through(self._stream, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_terminal(stream: TextIO) -> bool:
    """Whether a line can be redrawn on ``stream``."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def style_of(stream: TextIO) -> Style:
    """What ``stream`` can show; no colour where ``NO_COLOR`` is set (no-color.org)."""
    try:
        "━╸─·".encode(stream.encoding or "ascii")
        unicode = True
    except (UnicodeEncodeError, LookupError):
        unicode = False
    return Style(unicode, color=not os.environ.get("NO_COLOR"))


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
