"""Whether a run fits the precision, memory and disk of the machine, by measurements of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from insight.api.check.batches import Batches, Processes
from insight.api.check.findings import Findings
from insight.api.estimate import estimate_network
from insight.callbacks import AveragedWeights, RunCheckpoint
from insight.checkpoints.reader import tokenizers_of
from insight.data.store.format import OFFSET_DTYPE, token_dtype
from insight.runtime.errors import ConfigError
from insight.runtime.files import ensure_writable
from insight.runtime.hardware import Hardware
from insight.runtime.resources import resident_bytes, usable_memory_bytes

if TYPE_CHECKING:
    from insight.api.configuration import InsightCLI


_MEASURED = "use --trainer.precision null to have it chosen by measurement"


def check_precision(precision: str, accelerator: str, hardware: Hardware, findings: Findings) -> None:
    """Refuse a precision that would silently become another, and warn of one that is slow or coarse here."""
    if accelerator == "cpu" and precision in ("16-mixed", "16"):
        remedy = "use --trainer.precision bf16-mixed or 32-true"
        problem = "there is no mixed float16 on a CPU"
        findings.refuse(problem, remedy, option="trainer.precision", value=precision)
    elif precision == "16-true":
        findings.warn(
            "trainer.precision=16-true: gradients below 6e-8 become zero without a scale for the loss",
            "use --trainer.precision bf16-true or 16-mixed",
        )
    if not precision.startswith("bf16") or hardware.accelerator != accelerator:
        return
    single, half = (hardware.matmul_flops.get(name) for name in ("float32", "bfloat16"))
    if half is None:
        problem = f"this {accelerator} device has no bfloat16 of its own"
        findings.warn(f"trainer.precision={precision}: {problem}", _MEASURED)
    elif single and half < single:
        speed = f"{half / single:.2g} times the rate of float32 ones on this machine"
        findings.warn(f"trainer.precision={precision}: bfloat16 products run at {speed}", _MEASURED)


_KNOWN_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true")
_PARTS = (
    *("num_parameters", "num_active_parameters", "weight_bytes", "gradient_bytes", "optimizer_bytes"),
    *("activation_bytes", "peak_activation_bytes", "logits_bytes"),
)
_REMEDY = (
    "lower data.batch_size (and raise trainer.accumulate_grad_batches), data.sequence_length or the "
    "network's size, or set model.network.activation_checkpointing"
)


def memory_of(
    cli: InsightCLI, processes: Processes, batches: Batches, copies_checkpoints: bool, findings: Findings
) -> dict[str, Any] | None:
    """Bytes of one process, by part as in ``insight model estimate``, and of all on one machine or device.

    With ``copies_checkpoints`` the first process copies weights and optimizer, to write them while it trains.
    The result is ``None`` if the estimate does not know the module, the precision or the network, or if the
    memory depends on the text; the latter is a warning.
    """
    config = getattr(cli.model, "network_config", None)
    optimizer = getattr(cli.model, "optimizer_config", None)
    precision = cli.choices.precision
    if config is None or optimizer is None or precision not in _KNOWN_PRECISIONS:
        return None
    try:
        sizes = [tokenizer.vocabulary_size for tokenizer in tokenizers_of(cli.datamodule)]
        shape = (sizes[0], batches.batch_size, batches.sequence_length)
        estimate = estimate_network(config, *shape, precision, optimizer, *sizes[1:])
    except ConfigError as error:
        findings.warn(error.problem, error.remedy)
        return None
    saved = estimate["weight_bytes"] + estimate["optimizer_bytes"]
    peak = estimate["peak_bytes"]
    if processes.shards_weights:
        peak -= saved - saved // processes.num_processes
    on_cpu = processes.accelerator == "cpu"
    # A device holds almost nothing beside training; main memory also holds Python and its libraries.
    program = resident_bytes() if on_cpu else 0
    copy = saved if copies_checkpoints and on_cpu else 0
    averages = [callback for callback in cli.callbacks if isinstance(callback, AveragedWeights)]
    # These are the average, and the training weights that are set aside while it is measured.
    average = 2 * estimate["weight_bytes"] * len(averages)
    return {
        **{name: estimate[name] for name in _PARTS},
        "average_bytes": average,
        "program_bytes": program,
        "process_bytes": peak + average + program,
        "copy_bytes": copy,
        "needed_bytes": (peak + average + program) * processes.num_sharing + copy,
        **_memory_there(processes.accelerator),
    }


def network_of(cli: InsightCLI, memory: dict[str, Any]) -> dict[str, Any]:
    """The class of the network, and its number of parameters."""
    name = type(cli.model.network_config).__name__.removesuffix("Config")
    return {"class": name, **{key: memory[key] for key in ("num_parameters", "num_active_parameters")}}


def check_memory(memory: dict[str, Any], processes: Processes, findings: Findings) -> None:
    """Refuse a run that does not fit into this machine, and warn if other programs hold too much of it."""
    needed, usable, free = (memory[f"{name}_bytes"] for name in ("needed", "usable", "free"))
    plural = f" for {processes.num_sharing} processes" if processes.num_sharing > 1 else ""
    problem = f"about {needed / 1e9:.1f} GB of memory needed{plural}"
    if usable is not None and needed > usable:
        findings.refuse(f"{problem}, {usable / 1e9:.1f} GB there", _REMEDY)
    elif free is not None and needed > free:
        remedy = f"end other programs, or {_REMEDY}"
        findings.warn(f"{problem}, {free / 1e9:.1f} GB free at this moment", remedy)


def _memory_there(accelerator: str) -> dict[str, int | None]:
    """Bytes that a run could use, and those that are free now; ``None`` if they are unknown."""
    if accelerator == "cuda":
        free, usable = torch.cuda.mem_get_info(0)
        return {"usable_bytes": usable, "free_bytes": free}
    if accelerator != "cpu":
        return {"usable_bytes": None, "free_bytes": None}
    # This process is part of the needed memory.
    free = int(psutil.virtual_memory().available) + resident_bytes()
    return {"usable_bytes": usable_memory_bytes(), "free_bytes": free}


# The configuration, metrics and report of a run.
_SMALL_FILES = 1 << 20


def checkpoint_writers(cli: InsightCLI) -> list[RunCheckpoint]:
    """The callbacks that write checkpoints in the run: the configured ones, else the default one."""
    if cli.config.trainer.enable_checkpointing is False:
        return []
    configured = [callback for callback in cli.callbacks if isinstance(callback, RunCheckpoint)]
    return configured or [RunCheckpoint()]


def disk_of(
    cli: InsightCLI, memory: dict[str, Any] | None, writers: list[RunCheckpoint], num_steps: int | None
) -> dict[str, Any]:
    """Bytes of a checkpoint, of all checkpoints at once, and of the token ids, which exist already.

    Numbers are ``None`` if they are unknown; ``num_steps`` is ``None`` if only time limits the run.
    """
    checkpoint = None
    if memory is not None:
        tokenizer = sum(len(one.to_json().encode("utf-8")) for one in set(tokenizers_of(cli.datamodule)))
        averages = memory["average_bytes"] // 2
        checkpoint = memory["weight_bytes"] + memory["optimizer_bytes"] + averages + tokenizer
    num_checkpoints = 0
    for writer in writers:  # each keeps the best ones, the last ones, and for a moment the new one
        kept = num_steps // writer.keep_every_n_steps if writer.keep_every_n_steps and num_steps else 0
        num_checkpoints += writer.keep_best + writer.keep_last + kept + 1
    root = Path(cli.run_config.root).absolute()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return {
        "checkpoint_bytes": checkpoint,
        "num_checkpoints": num_checkpoints,
        "needed_bytes": None if checkpoint is None else checkpoint * num_checkpoints,
        "free_bytes": shutil.disk_usage(existing).free,
        "token_store_bytes": _token_store_bytes(cli.datamodule),
    }


def check_disk(cli: InsightCLI, disk: dict[str, Any] | None) -> None:
    """Refuse a run folder that cannot be written to, or has less than the needed space (if known)."""
    needed = (disk or {}).get("needed_bytes") or 0
    ensure_writable(Path(cli.run_config.root) / cli.run_config.name, max(_SMALL_FILES, needed))


def _token_store_bytes(datamodule: Any) -> int:
    width = token_dtype(datamodule.vocabulary_size).itemsize
    splits = datamodule.summary()["splits"].values()
    return sum(split["tokens"] * width + (split["documents"] + 1) * OFFSET_DTYPE.itemsize for split in splits)
