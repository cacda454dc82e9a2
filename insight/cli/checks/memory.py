"""What training would hold in memory, against what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
import torch

from insight.callbacks import AveragedWeights
from insight.cli.checks.batches import Batches
from insight.cli.checks.findings import Findings
from insight.cli.checks.processes import Processes
from insight.cli.model_estimate import estimate_network
from insight.runtime.errors import ConfigError
from insight.runtime.limits import usable_memory_bytes
from insight.runtime.memory import resident_bytes

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI

_KNOWN_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true")
_PARTS = (
    "num_parameters",
    "num_active_parameters",
    "weight_bytes",
    "gradient_bytes",
    "optimizer_bytes",
    "activation_bytes",
    "peak_activation_bytes",
    "logits_bytes",
)
_REMEDY = (
    "lower data.batch_size (and raise trainer.accumulate_grad_batches), data.sequence_length or the "
    "network's size, or set model.network.activation_checkpointing"
)


def memory_of(
    cli: InsightCLI, processes: Processes, batches: Batches, copies_checkpoints: bool, findings: Findings
) -> dict[str, Any] | None:
    """Bytes of one process, part by part, and of all that share this machine or device.

    The parts are those of ``insight model estimate``.

    Args:
        cli: What was configured; its data is set up.
        processes: Of the run.
        batches: Of the run.
        copies_checkpoints: Whether the first process copies weights and optimizer to write them meanwhile.
        findings: Where to say that the memory depends on the text, and cannot be told before.

    Returns:
        Plain numbers; ``None`` where the estimate does not know the module, the precision or the network.
    """
    config = getattr(cli.model, "network_config", None)
    optimizer = getattr(cli.model, "optimizer_config", None)
    precision = cli.choices.precision
    if config is None or optimizer is None or precision not in _KNOWN_PRECISIONS:
        return None
    try:
        estimate = estimate_network(
            config,
            cli.datamodule.vocabulary_size,
            batches.batch_size,
            batches.sequence_length,
            precision,
            optimizer,
        )
    except ConfigError as error:
        findings.warn(error.problem, error.remedy)
        return None
    saved = estimate["weight_bytes"] + estimate["optimizer_bytes"]
    peak = estimate["peak_bytes"]
    if processes.shards_weights:
        peak -= saved - saved // processes.num_processes
    on_cpu = processes.accelerator == "cpu"
    # On a device there is almost nothing beside training; in main memory there are Python and its libraries.
    program = resident_bytes() if on_cpu else 0
    copy = saved if copies_checkpoints and on_cpu else 0
    averages = [callback for callback in cli.callbacks if isinstance(callback, AveragedWeights)]
    # The average, and the training weights set aside while it is measured.
    average = 2 * estimate["weight_bytes"] * len(averages)
    return {
        **{name: estimate[name] for name in _PARTS},
        "average_bytes": average,
        "program_bytes": program,
        "process_bytes": peak + average + program,
        "copy_bytes": copy,
        "needed_bytes": (peak + average + program) * processes.num_sharing + copy,
        "usable_bytes": _usable_bytes(processes.accelerator),
        "free_bytes": _free_bytes(processes.accelerator),
    }


def network_of(cli: InsightCLI, memory: dict[str, Any]) -> dict[str, Any]:
    """What the network is, and how large."""
    name = type(cli.model.network_config).__name__.removesuffix("Config")
    return {"class": name, **{key: memory[key] for key in ("num_parameters", "num_active_parameters")}}


def check_memory(memory: dict[str, Any], processes: Processes, findings: Findings) -> None:
    """Refuse what does not fit into this machine, warn where others hold too much of it."""
    needed, usable, free = (memory[f"{name}_bytes"] for name in ("needed", "usable", "free"))
    plural = f" for {processes.num_sharing} processes" if processes.num_sharing > 1 else ""
    if usable is not None and needed > usable:
        findings.refuse(
            ConfigError(
                f"about {needed / 1e9:.1f} GB of memory needed{plural}, {usable / 1e9:.1f} GB there", _REMEDY
            )
        )
    elif free is not None and needed > free:
        findings.warn(
            f"about {needed / 1e9:.1f} GB of memory needed{plural}, {free / 1e9:.1f} GB free at this moment",
            f"end other programs, or {_REMEDY}",
        )


def _usable_bytes(accelerator: str) -> int | None:
    if accelerator == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    return usable_memory_bytes() if accelerator == "cpu" else None


def _free_bytes(accelerator: str) -> int | None:
    if accelerator == "cuda":
        return int(torch.cuda.mem_get_info(0)[0])
    # This process is counted among what is needed.
    return int(psutil.virtual_memory().available) + resident_bytes() if accelerator == "cpu" else None
