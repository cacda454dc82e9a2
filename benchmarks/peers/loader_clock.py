"""Rate of batches, time to the first batch, and memory of a loader. Needs torch and psutil."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

SEQUENCE_LENGTH, BATCH_SIZE = 1024, 16
_IGNORED = -100
_BETWEEN_LOOKS = 64


def measure(
    open_loader: Callable[[], Iterator[torch.Tensor]], seconds: float, num_tokens: int
) -> dict[str, Any]:
    """Time the first batch, then further batches for some seconds or tokens.

    Args:
        open_loader: Returns an endless iterator over the targets of batches; its setup is already done.
        seconds: How long to measure.
        num_tokens: Number of tokens after which it ends earlier.
    """
    before = _resident_bytes()
    begun = time.perf_counter()
    batches = open_loader()
    first = next(batches)
    first_seconds = time.perf_counter() - begun
    share = float((first != _IGNORED).double().mean())  # padding does not count as tokens
    growth = num_positions = num_batches = 0
    begun = now = time.perf_counter()
    while now - begun < seconds and num_positions * share < num_tokens:
        num_positions += next(batches).numel()
        num_batches += 1
        if num_batches % _BETWEEN_LOOKS == 0:
            growth = max(growth, _resident_bytes() - before)
        now = time.perf_counter()
    return {
        "first_batch_seconds": first_seconds,
        "tokens_per_second": num_positions * share / (now - begun),
        "growth_bytes": max(growth, _resident_bytes() - before),
        "num_tokens": round(num_positions * share),
        "is_epoch": num_positions * share >= num_tokens,
    }


def _resident_bytes() -> int:
    """Resident memory of this process and its children."""
    process = psutil.Process()
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
