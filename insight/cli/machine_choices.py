"""Threads and precision of a run, chosen from what short measurements show on this machine, and said."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.callbacks.throughput import this_machine
from insight.runtime.denormals import flush_denormals
from insight.runtime.hardware import Hardware, choose_num_threads, choose_precision, describe
from insight.runtime.messages import say
from insight.runtime.processes import shared_cores

_CONFIGURED = "as configured"


@dataclass(frozen=True)
class MachineChoices:
    """What a run uses.

    Args:
        hardware: The machine as measured.
        num_threads: CPU threads of torch.
        precision: Lightning's name, e.g. ``"bf16-mixed"``.
        notes: One line a choice, for run.json.
    """

    hardware: Hardware
    num_threads: int
    precision: str
    notes: tuple[str, ...]


def choose_for_this_machine(
    num_threads: int | None, precision: str | int | None, num_processes: int = 1
) -> MachineChoices:
    """Set torch up, measure the machine and choose what the user has left open.

    Args:
        num_threads: The user's choice; ``None`` tries out which number multiplies fastest.
        precision: The user's choice; ``None`` takes bfloat16 where its matmuls were measured to be faster.
        num_processes: Processes of the run that share the cores of this machine.
    """
    flush_denormals()
    threads = num_threads or choose_num_threads(max(1, shared_cores(num_processes) // num_processes))
    torch.set_num_threads(threads)
    hardware = this_machine()
    chosen = str(precision) if precision is not None else choose_precision(hardware)
    plural = "s" if threads > 1 else ""
    each = " for each of the processes" if num_processes > 1 else ""
    notes = (
        f"{threads} thread{plural}{each}, {_CONFIGURED if num_threads else 'fastest when tried'}",
        f"precision {chosen}, {_CONFIGURED if precision is not None else _reason(hardware)}",
    )
    say(f"machine: {describe(hardware)}")
    say(f"chosen: {'; '.join(notes)} (--run.num_threads, --trainer.precision override)")
    return MachineChoices(hardware, threads, chosen, notes)


def _reason(hardware: Hardware) -> str:
    single, half = (hardware.matmul_flops.get(name) for name in ("float32", "bfloat16"))
    if not single or not half:
        return "the only one measured"
    return f"since bfloat16 matmuls run at {half / single:.1f} times the rate of float32 ones"
