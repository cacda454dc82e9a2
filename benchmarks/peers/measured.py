"""Clock, memory and plain training step of measured processes, equal for all contenders. Needs only torch."""

from __future__ import annotations

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers.protocol import started_at

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast for ``"bf16"``, none for ``"fp32"``; the weights are float32 in both."""
    if precision == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def matmul_rate(precision: str, size: int = 1024, seconds: float = 0.5) -> float:
    """Median FLOP/s of a square matrix product in ``precision``, an upper bound for training."""
    left = torch.randn(size, size).to(DTYPES[precision])
    right = torch.randn(size, size).to(DTYPES[precision])
    for _ in range(3):
        left @ right
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations) < 3:
        begin = time.perf_counter()
        left @ right
        durations.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(durations)


def peak_resident_bytes() -> int:
    """Peak resident memory of this process (``VmHWM`` on Linux, otherwise ``getrusage``)."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class StepClock:
    """Times training steps from the end of one to the end of the next, so that no time is left out.

    Args:
        num_warmup_steps: First steps, which are not counted (allocator, threads, autotuning).
        seconds: How long to measure after them.
        min_steps: Fewest steps to measure, even if they take longer.
    """

    def __init__(self, num_warmup_steps: int, seconds: float, min_steps: int = 5) -> None:
        self.num_warmup_steps = num_warmup_steps
        self.seconds = seconds
        self.min_steps = min_steps
        self.first_step_seconds = 0.0
        self.durations: list[float] = []
        self._num_steps = 0
        self._last = time.perf_counter()

    def start(self) -> None:
        """Call right before the first step."""
        self._last = time.perf_counter()

    def step_ended(self) -> bool:
        """Record a step; true once enough have been measured."""
        now = time.perf_counter()
        duration, self._last = now - self._last, now
        self._num_steps += 1
        if self._num_steps == 1:
            self.first_step_seconds = duration
        elif self._num_steps > self.num_warmup_steps:
            self.durations.append(duration)
        return sum(self.durations) >= self.seconds and len(self.durations) >= self.min_steps

    def report(self, tokens_per_step: int, precision: str) -> dict[str, Any]:
        """The measurement as plain JSON values."""
        median = statistics.median(self.durations)
        return {
            "tokens_per_second": tokens_per_step / median,
            "tokens_per_second_mean": tokens_per_step * len(self.durations) / sum(self.durations),
            "step_seconds": median,
            "num_steps": len(self.durations),
            "first_step_seconds": self.first_step_seconds,
            "compile_seconds": max(0.0, self.first_step_seconds - median),
            "peak_bytes": peak_resident_bytes(),
            "matmul_flops": matmul_rate(precision),
            "num_threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "total_seconds": time.time() - started_at(),
        }


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def plain_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_function: Loss,
    precision: str,
    max_norm: float = 1.0,
) -> Loss:
    """One step of a plain loop: forward under autocast, backward, clip to ``max_norm``, update.

    All contenders use it; it follows litgpt's ``pretrain.fit`` (0.5.13).
    """
    parameters = list(model.parameters())

    def step(input_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with autocast(precision):
            loss = loss_function(input_ids, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def adamw(model: torch.nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Fused AdamW, decay 0.1 on matrices only, betas 0.9 and 0.95, as in litgpt's pretraining configs."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)
