"""Command line, clock and curve that the peers of the translation benchmark share."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.measured import peak_resident_bytes
from benchmarks.peers.protocol import print_result, started_at


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Options of one training, as ``translation_training`` passes them; the sizes become options as well."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=Path, required=True, help="ids written by numpy.savez")
    parser.add_argument("--network", type=json.loads, required=True, help="sizes as JSON")
    parser.add_argument("--batch-tokens", type=int, required=True, help="source and target together")
    parser.add_argument("--budget", type=float, required=True, help="seconds since the process was launched")
    parser.add_argument("--points", type=float, nargs="*", default=[], help="shares of it to translate after")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    vars(arguments).update(arguments.network)
    return arguments


class Curve:
    """The clock of a run, its learning rate, and its translations of the test, which are not counted.

    The rate follows the clock, so its decay ends exactly with the budget.

    Args:
        arguments: The command line.
        translate: Returns the ids of the translation of each test sentence.
    """

    def __init__(self, arguments: argparse.Namespace, translate: Callable[[], list[list[int]]]) -> None:
        self.arguments, self.translate = arguments, translate
        self.num_steps = 0
        self._begin, self._not_counted = started_at(), 0.0
        self._shares = [*sorted(arguments.points), 1.0]
        self._points: list[dict[str, Any]] = []

    def multiplier(self) -> float:
        """Share of the peak learning rate: linear warm-up in steps, then half a cosine over the budget."""
        warm = min(1.0, (self.num_steps + 1) / self.arguments.warmup_steps)
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self._seconds() / self.arguments.budget)))

    def step(self) -> bool:
        """Count a step, translate if a point is reached, and say whether the budget has been spent."""
        self.num_steps += 1
        seconds = self._seconds()
        due = [share for share in self._shares if seconds >= share * self.arguments.budget]
        if due:
            self._shares = self._shares[len(due) :]
            begin = time.time()
            point = {"seconds": seconds, "step": self.num_steps, "translations": self.translate()}
            self._points += [point] * len(due)  # a step may be longer than the way to the next point
            self._not_counted += time.time() - begin
        return not self._shares

    def print(self, num_parameters: int) -> None:
        """Pass the curve to the process that launched this one."""
        sizes = {"parameters": num_parameters, "peak_bytes": peak_resident_bytes()}
        print_result({"curve": self._points, "num_steps": self.num_steps, **sizes})

    def _seconds(self) -> float:
        return time.time() - self._begin - self._not_counted
