"""A training run with a budget of seconds; the time of its evaluations is not counted."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.bits_per_byte import bits_per_byte
from benchmarks.peers.decoder_shape import DecoderShape
from benchmarks.peers.measured import peak_resident_bytes
from benchmarks.peers.protocol import print_result, started_at
from benchmarks.peers.windows import TrainingWindows, load_tokens

# Shares of the budget at which the validation text is measured, denser near the end, where the decay is.
POINTS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)


def parse_quality_arguments(description: str) -> argparse.Namespace:
    """Options of one run, as ``time_to_quality`` passes them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--shape", type=DecoderShape.from_json, required=True, help="JSON")
    parser.add_argument("--train-tokens", type=Path, required=True, help="token ids written by numpy.save")
    parser.add_argument("--validation-tokens", type=Path, required=True)
    parser.add_argument("--validation-bytes", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--budget", type=float, default=150.0, help="seconds since the process was launched")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--schedule", choices=("cosine", "wsd"), default="cosine")
    parser.add_argument("--warmup-steps", type=int, default=20)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--mode", choices=("eager", "compiled"), default="eager")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class QualityRun:
    """The clock, the schedule and the evaluations of one run.

    The learning rate follows the clock, not a number of steps, so the decay ends exactly with the budget at
    any speed, which is an advantage for the peers.

    Args:
        arguments: Arguments from :func:`parse_quality_arguments`.
        logits_function: ``(batch, sequence)`` ids → logits of the network in training.
        model: The network, which is in evaluation mode while it is measured.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        logits_function: Callable[[torch.Tensor], torch.Tensor],
        model: torch.nn.Module,
    ) -> None:
        self.arguments = arguments
        self.logits_function = logits_function
        self.model = model
        self.windows = TrainingWindows(
            load_tokens(arguments.train_tokens), arguments.shape.sequence_length, arguments.seed
        )
        self.validation = load_tokens(arguments.validation_tokens)
        self.curve: list[dict[str, float]] = []
        self.num_steps = 0
        self._started = started_at()
        self._budget = float(arguments.budget)
        self._not_counted = 0.0
        self._first_step_ended: float | None = None
        self._points = [share * self._budget for share in POINTS]

    def seconds(self) -> float:
        """Wall time since the process was launched, without the evaluations."""
        return time.time() - self._started - self._not_counted

    def multiplier(self) -> float:
        """Share of the peak learning rate for the next step: linear warm-up in steps, then decay in time.

        ``cosine``: half a cosine to zero over the budget that remains after the first step (and compiling).
        ``wsd``: constant, then linear to zero over the second half of the remaining budget.
        """
        warmup = min(1.0, (self.num_steps + 1) / float(self.arguments.warmup_steps))
        if self._first_step_ended is None:
            return warmup
        left = max(1e-6, self._budget - self._first_step_ended)
        progress = min(1.0, (self.seconds() - self._first_step_ended) / left)
        if self.arguments.schedule == "wsd":
            return warmup * min(1.0, 2 * (1 - progress))
        return warmup * 0.5 * (1 + math.cos(math.pi * progress))

    def step_ended(self) -> bool:
        """Count a step and evaluate if it is due; true once the budget is spent."""
        self.num_steps += 1
        seconds = self.seconds()
        if self._first_step_ended is None:
            self._first_step_ended = seconds
        done = seconds >= self._budget
        if done or (self._points and seconds >= self._points[0]):
            self._points = [point for point in self._points if point > seconds]
            self._evaluate(seconds)
        return done

    def report(self, **extra: Any) -> None:
        """Print the whole run."""
        num_tokens = self.num_steps * self.arguments.batch_size * self.arguments.shape.sequence_length
        print_result(
            {
                "curve": self.curve,
                "bits_per_byte": self.curve[-1]["bits_per_byte"],
                "seconds": self.curve[-1]["seconds"],
                "num_steps": self.num_steps,
                "tokens_per_second": num_tokens / self.seconds(),
                "first_step_ended": self._first_step_ended,
                "not_counted_seconds": self._not_counted,
                "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
                "peak_bytes": peak_resident_bytes(),
                "num_threads": torch.get_num_threads(),
                **extra,
            }
        )

    def _evaluate(self, seconds: float) -> None:
        begin = time.time()
        self.model.eval()
        value = bits_per_byte(
            self.logits_function,
            self.validation,
            self.arguments.validation_bytes,
            self.arguments.shape.sequence_length,
        )
        self.model.train()
        self.curve.append({"seconds": seconds, "step": self.num_steps, "bits_per_byte": value})
        print(f"{seconds:6.1f} s  step {self.num_steps}  {value:.4f} bits per byte", flush=True)
        self._not_counted += time.time() - begin
