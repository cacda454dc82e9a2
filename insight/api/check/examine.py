"""The checks that `fit` makes before it makes a run folder, and the additional ones of `check`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.api.batch_size import choose_batch_size
from insight.api.check.batches import (
    Processes,
    batches_of,
    check_batches,
    check_processes,
    planned_trainer,
    processes_of,
)
from insight.api.check.findings import Findings
from insight.api.check.resources import (
    check_disk,
    check_memory,
    check_precision,
    checkpoint_writers,
    disk_of,
    memory_of,
    network_of,
)
from insight.api.check.trial import (
    check_schedule,
    outlook_of,
    step_limit,
    time_two_steps,
    try_two_sequences,
    without_clocks_and_files,
)
from insight.callbacks import RunCheckpoint
from insight.callbacks.start_and_end import AfterTraining
from insight.checkpoints.reader import is_resumable, read_checkpoint, tokenizers_of
from insight.checkpoints.resume import check_fits
from insight.data.text_data_module import TextDataModule
from insight.interchange.sources import is_foreign
from insight.runtime.errors import CheckpointError
from insight.runtime.run_folder import find_checkpoint
from insight.training.module import TrainingModule

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from insight.api.configuration import InsightCLI


def check_data_and_network(cli: InsightCLI, checkpoint: Path | None, is_first: bool = True) -> dict[str, Any]:
    """Prepare the data, and refuse a network or a checkpoint to resume from that does not fit it.

    Only the first process reads checkpoints, for all: they are whole networks that fill its memory.

    Returns:
        The position in the data from which the run resumes; empty if there is none, or it was not read.
    """
    check_parts(cli)
    cli.datamodule.setup("fit")
    position = _check_checkpoints(cli, checkpoint) if is_first else {}
    findings = Findings()
    check_precision(cli.choices.precision, cli.placement.accelerator, cli.choices.hardware, findings)
    _heed(findings)
    return position


def _check_checkpoints(cli: InsightCLI, resumed: Path | None) -> dict[str, Any]:
    position: dict[str, Any] = {}
    if resumed is not None:
        contents = check_checkpoint(cli, resumed, "--resume")
        if not is_resumable(contents):
            problem, remedy = "holds the weights of a model alone", "begin a new run with --init_from"
            raise CheckpointError(problem, remedy, option="--resume", value=resumed)
        if isinstance(cli.datamodule, TextDataModule):
            # The position is saved under the name of the data module's class.
            position = contents.get(type(cli.datamodule).__qualname__, {})
            cli.datamodule.check_position(position)
    source = cli.config.get("init_from")
    if is_foreign(source):
        from insight.interchange.formats import check_foreign, open_foreign

        model = open_foreign(source)
        check_foreign(model, cli.model.network_config, tokenizers_of(cli.datamodule), "--init_from", source)
    elif source:
        check_checkpoint(cli, find_checkpoint(source, cli.run_config.root), "--init_from")
    return position


def check_trainer(
    cli: InsightCLI, trainer: Trainer, checkpoint: Path | None, position: dict[str, Any]
) -> None:
    """Refuse processes and batches that do not fit together, and print warnings about odd settings.

    ``position`` is that of the checkpoint to resume from, as :func:`check_data_and_network` returns it.
    """
    processes, findings = processes_of(trainer), Findings()
    check_processes(processes, findings)
    if isinstance(cli.datamodule, TextDataModule):
        batches = batches_of(cli.datamodule, trainer, processes)
        check_batches(batches, trainer, findings)
        if checkpoint is not None:
            try:  # samples of a step, by which a resumed run counts, that these processes cannot share
                cli.datamodule.check_processes(position, processes.num_readers, batches.accumulation)
            except CheckpointError as error:
                raise CheckpointError(
                    error.problem, error.remedy, option="--resume", value=checkpoint
                ) from error
    _heed(findings)


def check_parts(cli: InsightCLI) -> None:
    """Refuse sequences longer than the context of the network, and callbacks that cannot work on its kind."""
    if isinstance(cli.model, TrainingModule):
        cli.model.check_data(cli.datamodule)
    for callback in cli.callbacks:
        if isinstance(callback, AfterTraining):
            callback.check_module(cli.model, cli.datamodule)


def check_checkpoint(cli: InsightCLI, checkpoint: Path, option: str) -> dict[str, Any]:
    """The content of a checkpoint, if it is complete, holds no code, and has this network and tokenizer."""
    if checkpoint.is_dir():
        problem = f"{option}={checkpoint}: is a quantized model, which cannot be trained"
        raise CheckpointError(problem, "name the checkpoint that it was made from")
    contents = read_checkpoint(checkpoint)
    check_fits(contents, checkpoint, cli.model.network_config, tokenizers_of(cli.datamodule), option)
    return contents


def _heed(findings: Findings) -> None:
    for mistake in findings.mistakes:
        raise mistake
    findings.say()


def examine_rest(cli: InsightCLI, findings: Findings) -> None:
    """Look for further mistakes when defaults stand in for refused values of the configuration."""
    more = Findings()
    more.accepts(check_parts, cli)
    _set_up_data(cli, more)
    more.accepts(check_disk, cli, None)
    for mistake in more.mistakes:
        if cli.is_about_given(mistake):
            findings.keep(mistake)


def examine(cli: InsightCLI, findings: Findings) -> dict[str, Any]:
    """Examine everything that a run would need and do; ``findings`` receives mistakes and warnings.

    Returns:
        Plain JSON values, one mapping per part; parts that could not be determined are missing.
    """
    fits = findings.accepts(check_parts, cli)
    numbers: dict[str, Any] = {}
    if _set_up_data(cli, findings):
        tokenizer = {**cli.datamodule.summary()["tokenizer"], "encoder": cli.datamodule.tokenizer.encoder}
        numbers["data"] = {"splits": cli.datamodule.summary()["splits"], "tokenizer": tokenizer}
    writers = checkpoint_writers(cli)
    cli.callbacks = without_clocks_and_files(cli.callbacks)
    trainer = findings.result(planned_trainer, cli)
    if trainer is not None:
        processes = processes_of(trainer)
        check_precision(cli.choices.precision, processes.accelerator, cli.choices.hardware, findings)
        check_processes(processes, findings)
        numbers["machine"] = {"precision": cli.choices.precision, "notes": list(cli.choices.notes)}
        numbers["processes"] = dataclasses.asdict(processes) | {"num_processes": processes.num_processes}
        if "data" in numbers and fits:
            numbers |= _examine_training(cli, trainer, processes, writers, findings)
    findings.accepts(check_disk, cli, numbers.get("disk"))
    return numbers


def _examine_training(
    cli: InsightCLI, trainer: Trainer, processes: Processes, writers: list[RunCheckpoint], findings: Findings
) -> dict[str, Any]:
    """The facts that need text: batches, memory, disk, and the speed of real steps."""
    if not findings.accepts(choose_batch_size, cli):
        return {}
    batches = findings.result(batches_of, cli.datamodule, trainer, processes)
    if batches is None:
        return {}
    check_batches(batches, trainer, findings)
    numbers: dict[str, Any] = {"batches": batches.as_json()}
    copies = any(writer.asynchronous for writer in writers)
    memory = memory_of(cli, processes, batches, copies, findings)
    if memory is not None:
        numbers |= {"network": network_of(cli, memory), "memory": memory}
        check_memory(memory, processes, findings)
    numbers["disk"] = disk_of(cli, memory, writers, step_limit(trainer, batches))
    # Do not try a network that does not fit into memory. One that cannot run needs no timing.
    trial = None if findings.mistakes else findings.result(try_two_sequences, cli, batches, findings)
    times = None if trial is None else findings.result(time_two_steps, cli)
    if times is None:
        return numbers
    outlook = outlook_of(cli, trainer, processes, batches, times)
    if outlook["num_steps"] is not None:
        check_schedule(cli, batches, outlook["num_steps"], findings)
    return numbers | {"trial": trial, "outlook": outlook}


def _set_up_data(cli: InsightCLI, findings: Findings) -> bool:
    """Whether all text exists and is encoded; if some is missing, the rest is still checked."""
    if findings.accepts(cli.datamodule.setup, "fit"):
        return True
    for stage, split in (("validate", "validation"), ("test", "test")):
        if cli.has_files(split):
            findings.accepts(cli.datamodule.setup, stage)
    return False
