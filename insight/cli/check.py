"""``insight check``: all that can be checked without training, and a table of what the run would do."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from insight.cli.checks.findings import Findings
from insight.cli.commands import COMMANDS
from insight.runtime.messages import silence_libraries

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from insight.callbacks import RunCheckpoint
    from insight.cli.checks.batches import Batches
    from insight.cli.checks.processes import Processes
    from insight.cli.lightning import InsightCLI


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    silence_libraries()

    from insight.cli.checks.disk import check_disk
    from insight.cli.checks.text import lines
    from insight.cli.lightning import InsightCLI

    cli = InsightCLI(name, arguments, COMMANDS[name].summary)
    findings = Findings()
    numbers = _examine(cli, findings)
    findings.accepts(check_disk, cli, numbers.get("disk"))
    if cli.config.json:
        print(json.dumps({**numbers, **findings.as_json()}))
    else:
        print(lines(numbers))
        if not findings.mistakes:
            print("nothing speaks against it: run it with `insight fit` in place of `insight check`")
    return findings.say()


def _examine(cli: InsightCLI, findings: Findings) -> dict[str, Any]:
    """Look at everything; what needs something that is missing is left out.

    Returns:
        Plain JSON values, one mapping a part.
    """
    from insight.cli.checks.disk import checkpoint_writers
    from insight.cli.checks.precision import check_precision
    from insight.cli.checks.processes import check_processes, planned_trainer, processes_of
    from insight.cli.checks.trial import without_clocks_and_files
    from insight.cli.preflight import check_sequence_length

    fits = findings.accepts(check_sequence_length, cli)
    numbers: dict[str, Any] = {}
    if _set_up_data(cli, findings):
        numbers["data"] = _data_facts(cli)
    writers = checkpoint_writers(cli)
    cli.callbacks = without_clocks_and_files(cli.callbacks)
    trainer = findings.result(planned_trainer, cli)
    if trainer is None:
        return numbers
    processes = processes_of(trainer)
    check_precision(cli.choices.precision, processes.accelerator, cli.choices.hardware, findings)
    check_processes(processes, findings)
    numbers["machine"] = {"precision": cli.choices.precision, "notes": list(cli.choices.notes)}
    numbers["processes"] = dataclasses.asdict(processes) | {"num_processes": processes.num_processes}
    if "data" in numbers and fits:
        numbers |= _examine_training(cli, trainer, processes, writers, findings)
    return numbers


def _examine_training(
    cli: InsightCLI,
    trainer: Trainer,
    processes: Processes,
    writers: list[RunCheckpoint],
    findings: Findings,
) -> dict[str, Any]:
    """What can be said once there is text: batches, memory, disk, and how real steps go."""
    from insight.cli.batch_size import choose_batch_size
    from insight.cli.checks.batches import batches_of, check_batches
    from insight.cli.checks.disk import disk_of
    from insight.cli.checks.memory import check_memory, memory_of, network_of
    from insight.cli.checks.outlook import step_limit

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
    # What does not fit into memory must not be tried, and what cannot run has no time.
    if not findings.mistakes:
        numbers |= findings.result(_try, cli, trainer, processes, batches, findings) or {}
    return numbers


def _try(
    cli: InsightCLI, trainer: Trainer, processes: Processes, batches: Batches, findings: Findings
) -> dict[str, Any]:
    from insight.cli.checks.outlook import check_schedule, outlook_of
    from insight.cli.checks.trial import time_two_steps, try_two_sequences

    trial = try_two_sequences(cli, batches, findings)
    outlook = outlook_of(cli, trainer, processes, batches, time_two_steps(cli))
    if outlook["num_steps"] is not None:
        check_schedule(cli, batches, outlook["num_steps"], findings)
    return {"trial": trial, "outlook": outlook}


def _set_up_data(cli: InsightCLI, findings: Findings) -> bool:
    """Whether all text is there and encoded; where some is missing, the rest is looked for as well."""
    if findings.accepts(cli.datamodule.setup, "fit"):
        return True
    for stage, split in (("validate", "validation"), ("test", "test")):
        if cli.has_files(split):
            findings.accepts(cli.datamodule.setup, stage)
    return False


def _data_facts(cli: InsightCLI) -> dict[str, Any]:
    summary = cli.datamodule.summary()
    tokenizer = {**summary["tokenizer"], "encoder": cli.datamodule.tokenizer.encoder}
    return {"splits": summary["splits"], "tokenizer": tokenizer}
