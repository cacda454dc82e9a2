"""``insight check``: all checks that need no training, and a table of what the run would do."""

from __future__ import annotations

from typing import Any

from insight.cli.arguments import take_flag
from insight.cli.commands import COMMANDS
from insight.cli.config_help import config_help, wants_help
from insight.runtime.formats import format_bytes, format_count, format_duration, format_latency
from insight.runtime.json_files import print_json
from insight.runtime.messages import plain_line


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    if wants_help(arguments):
        print(config_help(name, COMMANDS[name].summary), end="")
        return 0
    arguments, as_json = take_flag(arguments, "--json")

    from insight.api.check import examine_arguments

    examination = examine_arguments(arguments)
    numbers, findings = examination.numbers, examination.findings
    if as_json:
        print_json({**numbers, **findings.as_json()})
    else:
        print(lines(numbers))
        if not findings.mistakes:
            print("nothing speaks against it: run it with `insight fit` in place of `insight check`")
    return findings.say()


def lines(numbers: dict[str, Any]) -> str:
    """The output of ``insight check --json`` as two columns, in the order of a run; parts may be missing."""
    rows: list[tuple[str, str]] = []
    for part, rows_of in _PARTS.items():
        if numbers.get(part) is not None:
            rows += rows_of(numbers[part])
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:{width}}  {plain_line(value)}" for name, value in rows)


def _data(data: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for split, about in data["splits"].items():
        files = len(about["files"])
        note = f", {about['division']}" if about["division"] else ""
        text = (
            f"{files} file{'s' if files > 1 else ''}, {about['documents']:,} documents, "
            f"{about['bytes'] / 1e6:.2f} MB, {about['tokens']:,} tokens{note}"
        )
        rows.append((split, text))
    tokenizer = data["tokenizer"]
    about = f"{tokenizer['kind']}, {tokenizer['vocabulary_size']:,} tokens, encoded by {tokenizer['encoder']}"
    return [*rows, ("tokenizer", about)]


def _processes(processes: dict[str, Any]) -> list[tuple[str, str]]:
    count = processes["num_processes"]
    where = f" on each of {processes['num_nodes']} machines" if processes["num_nodes"] > 1 else ""
    several = f"{processes['num_devices']}{where}, {processes['strategy']}" if count > 1 else "1"
    return [("processes", f"{several}, on {processes['accelerator']}")]


def _machine(machine: dict[str, Any]) -> list[tuple[str, str]]:
    return [("machine", "; ".join(machine["notes"]))]


def _batches(batches: dict[str, Any]) -> list[tuple[str, str]]:
    factors = [f"{batches['batch_size']:,} sequences", f"{batches['sequence_length']:,} tokens"]
    if batches["num_readers"] > 1:
        factors.append(f"{batches['num_readers']} processes")
    if batches["accumulation"] > 1:
        factors.append(f"{batches['accumulation']} batches accumulated")
    return [
        ("one step", f"{' x '.join(factors)} = {batches['tokens_per_step']:,} tokens"),
        ("one epoch", f"{batches['steps_per_epoch']:,} steps"),
    ]


def _network(network: dict[str, Any]) -> list[tuple[str, str]]:
    total, active = network["num_parameters"], network["num_active_parameters"]
    some = f", of which a token uses {active:,}" if active != total else ""
    return [("network", f"{network['class']}, {total:,} parameters{some}")]


def _memory(memory: dict[str, Any]) -> list[tuple[str, str]]:
    def size(name: str) -> str:
        return format_bytes(memory[f"{name}_bytes"])

    usable = f" of {size('usable')}" if memory["usable_bytes"] is not None else ""
    more = [("  average", size("average"))] if memory["average_bytes"] else []
    more += [("  copy to save", size("copy"))] if memory["copy_bytes"] else []
    return [
        ("memory", f"about {size('needed')} needed{usable}"),
        ("  weights", size("weight")),
        ("  gradients", size("gradient")),
        ("  optimizer", size("optimizer")),
        ("  activations", f"{size('activation')} kept, {size('peak_activation')} at most"),
        ("  logits", f"{size('logits')}, a part at a time"),
        ("  the program", size("program")),
        *more,
    ]


def _disk(disk: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if disk["checkpoint_bytes"] is not None:
        needed = (
            f"{format_bytes(disk['needed_bytes'])} needed for {disk['num_checkpoints']} checkpoints of "
            f"{format_bytes(disk['checkpoint_bytes'])}, {format_bytes(disk['free_bytes'])} free"
        )
        rows.append(("disk", needed))
    return [*rows, ("token ids", f"{format_bytes(disk['token_store_bytes'])}, in the cache now")]


def _trial(trial: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            "trial",
            f"forward and backward ran on {trial['num_sequences']} sequences, loss {trial['loss']:.3f}; "
            "nothing of it is kept",
        )
    ]


def _outlook(outlook: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (
            "speed",
            f"{format_latency(outlook['seconds_per_step'])} a step, "
            f"{outlook['tokens_per_second']:,.0f} tokens/s in two steps",
        )
    ]
    if outlook["num_steps"] is None:
        return [*rows, ("training ends", "by a callback")]
    budget = outlook["seconds_allowed"]
    within = f", about as many as fit into {format_duration(budget)}" if _ends_by_time(outlook) else ""
    validations = outlook["num_validations"]
    validating = (
        f", with {validations:,} validations of {format_latency(outlook['seconds_per_validation'])}"
        if validations
        else ""
    )
    return [
        *rows,
        (
            "training ends",
            f"after {outlook['num_steps']:,} steps{within}: {format_count(outlook['num_tokens'])} tokens, "
            f"{outlook['num_epochs']:.3g} epochs",
        ),
        ("expected time", f"about {format_duration(outlook['seconds'])}{validating}"),
    ]


def _ends_by_time(outlook: dict[str, Any]) -> bool:
    budget = outlook["seconds_allowed"]
    more = outlook["seconds"] + outlook["seconds_per_step"]
    return budget is not None and more >= budget


_PARTS = {
    "data": _data,
    "network": _network,
    "processes": _processes,
    "machine": _machine,
    "batches": _batches,
    "memory": _memory,
    "disk": _disk,
    "trial": _trial,
    "outlook": _outlook,
}
