"""What is checked before a run folder is made: the data, the network, and that a checkpoint fits them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from insight.checkpoints import differing_tensors, load_checkpoint
from insight.checkpoints.reader import read_checkpoint
from insight.cli.checks.batches import Batches, batches_of, check_batches
from insight.cli.checks.findings import Findings
from insight.cli.checks.precision import check_precision
from insight.cli.checks.processes import check_processes, processes_of
from insight.data import LanguageModelingDataModule
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.run_folder import find_checkpoint

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from insight.cli.lightning import InsightCLI

_NUM_SHOWN, _NUM_NUMBERS = 3, 12


def check_data_and_network(cli: InsightCLI, checkpoint: Path | None, is_first: bool = True) -> None:
    """Prepare the data, and check that network and checkpoint go with it.

    Args:
        cli: What was configured.
        checkpoint: What to resume from, if anything.
        is_first: Whether this process looks into checkpoints, whole networks that fill its memory; another
            one is here when the first has found them to be right.

    Raises:
        InsightError: Something does not fit; nothing but the cache has been written.
    """
    check_sequence_length(cli)
    cli.datamodule.setup("fit")
    if is_first:
        _check_checkpoints(cli, checkpoint)
    findings = Findings()
    check_precision(cli.choices.precision, cli.placement.accelerator, cli.choices.hardware, findings)
    _heed(findings)


def _check_checkpoints(cli: InsightCLI, resumed: Path | None) -> None:
    if resumed is not None:
        check_checkpoint(cli, resumed, "--resume")
        if isinstance(cli.datamodule, LanguageModelingDataModule):
            position = read_checkpoint(resumed).get(type(cli.datamodule).__qualname__, {})
            cli.datamodule.check_position(position)
    if cli.config.get("init_from"):
        check_checkpoint(cli, find_checkpoint(cli.config.init_from, cli.run_config.root), "--init_from")


def check_trainer(cli: InsightCLI, trainer: Trainer, checkpoint: Path | None) -> None:
    """Check that processes and batches go together; what is only odd is said.

    Args:
        cli: What was configured; its data is set up.
        trainer: Made from it.
        checkpoint: What to resume from, if anything.

    Raises:
        InsightError: They do not.
    """
    processes, findings = processes_of(trainer), Findings()
    check_processes(processes, findings)
    if isinstance(cli.datamodule, LanguageModelingDataModule):
        batches = batches_of(cli.datamodule, trainer, processes)
        check_batches(batches, trainer, findings)
        if checkpoint is not None:
            check_global_batch(checkpoint, batches)
    _heed(findings)


def check_global_batch(checkpoint: Path, batches: Batches) -> None:
    """Check that the processes share the samples of a step in which the position of a resumed run counts.

    Raises:
        CheckpointError: They cannot, or not with this batch size and accumulation.
    """
    position = read_checkpoint(checkpoint).get(LanguageModelingDataModule.__qualname__, {})
    saved, each = position.get("global_batch_size"), batches.batch_size * batches.accumulation
    num_processes = batches.num_readers
    if not isinstance(saved, int) or saved in (each * num_processes, batches.batch_size * num_processes):
        return
    if saved % num_processes:
        numbers = [str(number) for number in range(1, saved + 1) if saved % number == 0]
        raise CheckpointError(
            f"--resume={checkpoint}: its steps of {saved} sequences cannot be shared by {num_processes} "
            "processes",
            f"use {', '.join(numbers[:_NUM_NUMBERS])} processes",
        )
    raise CheckpointError(
        f"--resume={checkpoint}: its steps take {saved} sequences, and data.batch_size={batches.batch_size} "
        f"times accumulation {batches.accumulation} times {num_processes} processes is "
        f"{each * num_processes}",
        f"use --data.batch_size {saved // num_processes} and --trainer.accumulate_grad_batches 1, or another "
        f"product of {saved // num_processes}",
    )


def check_sequence_length(cli: InsightCLI) -> None:
    """Check that the network can take the sequences of the data.

    Raises:
        ConfigError: They are longer than its context.
    """
    longest = getattr(getattr(cli.model, "network_config", None), "max_sequence_length", None)
    length = getattr(cli.datamodule, "sequence_length", None)
    if longest is not None and length is not None and length > longest:
        raise ConfigError(
            f"data.sequence_length={length} exceeds model.network.max_sequence_length={longest}",
            f"use --model.network.max_sequence_length {length}",
        )


def check_checkpoint(cli: InsightCLI, checkpoint: Path, option: str) -> None:
    """Check that a checkpoint is whole and has this network and this tokenizer.

    Raises:
        CheckpointError: It is no checkpoint, damaged, holds code, or is of another network or tokenizer.
    """
    if checkpoint.is_dir():
        raise CheckpointError(
            f"{option}={checkpoint}: is a quantized model, which cannot be trained",
            "name the checkpoint that it was made from",
        )
    loaded = load_checkpoint(checkpoint)
    tokenizer, configured = cli.datamodule.tokenizer, cli.model.network_config
    with torch.device("meta"):
        present = configured.build(tokenizer.vocabulary_size)
    tensors = differing_tensors(loaded.network.state_dict(), present.state_dict())
    shown = "".join(f"; {difference}" for difference in tensors[:_NUM_SHOWN])
    if len(tensors) > _NUM_SHOWN:
        shown += f"; {len(tensors) - _NUM_SHOWN} more"
    if loaded.tokenizer.fingerprint() != tokenizer.fingerprint():
        raise CheckpointError(
            f"{option}={checkpoint}: was trained with another tokenizer ("
            f"{loaded.tokenizer.vocabulary_size} tokens, this one has {tokenizer.vocabulary_size}){shown}",
            "use the data and tokenizer settings of its run",
        )
    if loaded.network_config != configured:
        before, now = loaded.network_config.to_dict()["init_args"], configured.to_dict()["init_args"]
        different = [key for key in now if before.get(key) != now[key]]
        raise CheckpointError(
            f"{option}={checkpoint}: has another network ({', '.join(different) or 'another class'} differ)"
            f"{shown}",
            "use the model settings of its run",
        )


def _heed(findings: Findings) -> None:
    for mistake in findings.mistakes:
        raise mistake
    findings.say()
