"""``insight check``: all checks that need no training, and a table of what the run would do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from insight.cli.arguments import take_flag
from insight.cli.config_help import print_help
from insight.runtime.formats import format_bytes, format_count, format_duration, format_latency
from insight.runtime.json_files import print_json
from insight.runtime.messages import plain_line

Rows = Iterator[tuple[str, str]]


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    if print_help(name, arguments):
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
    rows = [row for part, rows_of in _PARTS.items() if numbers.get(part) for row in rows_of(numbers[part])]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:{width}}  {plain_line(value)}" for name, value in rows)


def _data(data: dict[str, Any]) -> Rows:
    for split, about in data["splits"].items():
        files = len(about["files"])
        note = f", {about['division']}" if about["division"] else ""
        text = f"{files} file{'s' if files > 1 else ''}, {about['documents']:,} documents"
        yield split, f"{text}, {about['bytes'] / 1e6:.2f} MB, {about['tokens']:,} tokens{note}"
    kind, size, encoder = (data["tokenizer"][key] for key in ("kind", "vocabulary_size", "encoder"))
    yield "tokenizer", f"{kind}, {size:,} tokens, encoded by {encoder}"


def _network(network: dict[str, Any]) -> Rows:
    total, active = network["num_parameters"], network["num_active_parameters"]
    some = f", of which a token uses {active:,}" if active != total else ""
    yield "network", f"{network['class']}, {total:,} parameters{some}"


def _processes(processes: dict[str, Any]) -> Rows:
    where = f" on each of {processes['num_nodes']} machines" if processes["num_nodes"] > 1 else ""
    several = f"{processes['num_devices']}{where}, {processes['strategy']}"
    count = several if processes["num_processes"] > 1 else "1"
    yield "processes", f"{count}, on {processes['accelerator']}"


def _machine(machine: dict[str, Any]) -> Rows:
    yield "machine", "; ".join(machine["notes"])


def _batches(batches: dict[str, Any]) -> Rows:
    factors = [f"{batches['batch_size']:,} sequences", f"{batches['sequence_length']:,} tokens"]
    if batches["token_budget"]:
        factors = [f"at most {batches['token_budget']:,} tokens of both sides"]
    if batches["num_readers"] > 1:
        factors.append(f"{batches['num_readers']} processes")
    if batches["accumulation"] > 1:
        factors.append(f"{batches['accumulation']} batches accumulated")
    yield "one step", f"{' x '.join(factors)} = {batches['tokens_per_step']:,} tokens"
    yield "one epoch", f"{batches['steps_per_epoch']:,} steps"


def _memory(memory: dict[str, Any]) -> Rows:
    size = {
        name.removesuffix("_bytes"): format_bytes(value)
        for name, value in memory.items()
        if name.endswith("_bytes") and value is not None
    }
    yield "memory", f"about {size['needed']} needed" + (f" of {size['usable']}" if "usable" in size else "")
    yield "  weights", size["weight"]
    yield "  gradients", size["gradient"]
    yield "  optimizer", size["optimizer"]
    yield "  activations", f"{size['activation']} kept, {size['peak_activation']} at most"
    yield "  logits", f"{size['logits']}, a part at a time"
    yield "  the program", size["program"]
    for name, part in (("average", "average"), ("copy to save", "copy")):
        if memory[f"{part}_bytes"]:
            yield f"  {name}", size[part]


def _disk(disk: dict[str, Any]) -> Rows:
    if disk["checkpoint_bytes"] is not None:
        names = ("needed_bytes", "checkpoint_bytes", "free_bytes")
        needed, each, free = (format_bytes(disk[name]) for name in names)
        yield "disk", f"{needed} needed for {disk['num_checkpoints']} checkpoints of {each}, {free} free"
    yield "token ids", f"{format_bytes(disk['token_store_bytes'])}, in the cache now"


def _trial(trial: dict[str, Any]) -> Rows:
    ran = f"forward and backward ran on {trial['num_sequences']} sequences, loss {trial['loss']:.3f}"
    yield "trial", f"{ran}; nothing of it is kept"


def _outlook(outlook: dict[str, Any]) -> Rows:
    step, speed = outlook["seconds_per_step"], outlook["tokens_per_second"]
    yield "speed", f"{format_latency(step)} a step, {speed:,.0f} tokens/s in two steps"
    if outlook["num_steps"] is None:
        yield "training ends", "by a callback"
        return
    budget, seconds = outlook["seconds_allowed"], outlook["seconds"]
    ends_by_time = budget is not None and seconds + step >= budget
    within = f", about as many as fit into {format_duration(budget)}" if ends_by_time else ""
    tokens, epochs = format_count(outlook["num_tokens"]), f"{outlook['num_epochs']:.3g} epochs"
    yield "training ends", f"after {outlook['num_steps']:,} steps{within}: {tokens} tokens, {epochs}"
    time = f"about {format_duration(seconds)}"
    if validations := outlook["num_validations"]:
        each = format_latency(outlook["seconds_per_validation"])
        time += f", with {validations:,} validations of {each}"
    yield "expected time", time


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
