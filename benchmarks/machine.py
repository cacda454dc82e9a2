"""Description of the machine of a benchmark."""

from __future__ import annotations

import datetime
import platform
import subprocess
from typing import Any

from benchmarks.processes import ROOT


def describe_machine() -> dict[str, Any]:
    """Processor, vector extension, cores, memory and measured matrix-product rates, as plain JSON values.

    The rates are the better of two readings, since other processes may slow down one.
    """
    import torch

    from insight.runtime.hardware import choose_num_threads, describe, measure_hardware

    num_threads, threads_before = choose_num_threads(), torch.get_num_threads()
    torch.set_num_threads(num_threads)
    first, second = measure_hardware(), measure_hardware()
    torch.set_num_threads(threads_before)
    rates = {name: max(rate, second.matmul_flops.get(name, 0.0)) for name, rate in first.matmul_flops.items()}
    return {
        "line": describe(first),
        "processor": first.accelerator_name,
        "capability": first.cpu_capability,
        "num_cores": first.num_cores,
        "num_threads": num_threads,
        "memory_gib": round(first.memory_bytes / 2**30, 1),
        "matmul_gflops": {name: round(rate / 1e9) for name, rate in rates.items()},
        "has_compiler": first.has_compiler,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line of Markdown."""
    rates = ", ".join(f"{rate:,} {name}" for name, rate in machine["matmul_gflops"].items())
    return (
        f"{machine['num_cores']} cores of {machine['processor']} ({machine['capability']}), "
        f"{machine['memory_gib']} GiB; matmul GFLOP/s: {rates}; "
        f"torch {machine['torch']}, Python {machine['python']}"
    )


def machine_identity(machine: dict[str, Any]) -> str:
    """Facts that must be equal for measurements to share a table."""
    return f"{machine['num_cores']} cores of {machine['processor']} ({machine['capability']})"


def commit() -> str:
    """The measured commit, with ``+`` if tracked files differ from it."""
    revision = _git("rev-parse", "--short=10", "HEAD")
    if not revision:
        return "unknown"
    return revision + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def today() -> str:
    """The date in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    print(machine_line(describe_machine()))
