"""The machine as measured once for all callbacks of a process."""

from __future__ import annotations

import functools

from insight.runtime.hardware import Hardware, measure_hardware


@functools.cache
def this_machine() -> Hardware:
    """The machine, measured at the first call with the threads that training uses."""
    return measure_hardware()


def matmul_rate(precision: str) -> float | None:
    """The measured FLOP/s of the type that matmuls have under a Trainer precision, or ``None`` if unknown.

    Args:
        precision: Lightning's name, e.g. ``"bf16-mixed"`` or ``"32-true"``.
    """
    names = {"bf16": "bfloat16", "16": "float16", "32": "float32", "64": "float64"}
    name = names.get(str(precision).split("-")[0])
    return this_machine().matmul_flops.get(name) if name else None
