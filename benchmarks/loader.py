"""Batches from a store of 1 GB: Insight, nanoGPT's recipe, torch's DataLoader, datasets, litgpt's litdata.

The store holds random tokens in documents of 400 on average. Every measurement is a separate process with one
thread; the loaders take turns in a rotated order; the table holds medians over the rounds. The time to the
first batch and the growth of memory (with workers and mapped pages of files) count from the end of the setup.
Insight's memory is measured over a whole epoch. Batches are 16 samples of 1,024 tokens; packed batches also
have document ids and positions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.begin import add_results_option, begin, benchmark_parser, in_turns, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.processes import ROOT, find_python, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section

OUTPUT = ROOT / "benchmarks" / "output" / "loader"
_OF_PEERS = ("datasets", "litdata")
_EPOCH_SECONDS = 120.0
_MAKING_LIMIT = 600.0


@dataclass(frozen=True)
class Contender:
    """One loader; ``kind`` is its name in the measuring modules, ``is_own`` whether it is Insight's."""

    name: str
    kind: str
    num_workers: int
    is_own: bool


def _contenders() -> Iterator[Contender]:
    for kind, workers in (("windows", (0, 1, 2)), ("packed", (0, 1, 2)), ("mixture", (0,))):
        for num_workers in workers:
            yield Contender(_name(f"Insight {kind}", num_workers), kind, num_workers, is_own=True)
    for title, kind, workers in (
        ("nanoGPT get_batch", "nanogpt", (0,)),
        ("torch DataLoader", "dataloader", (0, 2)),
        ("datasets", "datasets", (0, 2)),
        ("litgpt (litdata)", "litdata", (0, 2)),
    ):
        for num_workers in workers:
            yield Contender(_name(title, num_workers), kind, num_workers, is_own=False)


def _name(title: str, num_workers: int) -> str:
    return title if not num_workers else f"{title}, {num_workers} worker{'s' if num_workers > 1 else ''}"


def main() -> None:
    """Run the missing measurements and print the table."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("contender", "round"), arguments.fresh)
    chosen = [contender for contender in _contenders() if is_wanted(contender.name, arguments.only)]
    made = _make(output, arguments)
    deadline, failures = Deadline(arguments.deadline), {}
    for number, contender in in_turns(chosen, arguments.rounds):
        if records.has({"contender": contender.name, "round": number}) or contender.name in failures:
            continue
        if deadline.is_over():
            break
        problem = _measure(records, contender, number, output, arguments)
        if problem:
            failures[contender.name] = problem
            print(f"{contender.name}: {problem}", flush=True)
    body = _body(records, [contender.name for contender in chosen], failures, made)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.loader --write-results"
        page = section("Loading batches", command, commit(), machine_line(machine), today(), body)
        write_section("loader", page)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(
        __doc__, only="contenders, e.g. insight nanogpt", quick="20 MB and one round", minutes=20.0
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring in each process")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the store")
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--limit", type=float, default=180.0, help="seconds that one process may take")
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.gigabytes = 1, 0.3, 0.02
    return arguments


def _make(output: Path, arguments: argparse.Namespace) -> Record:
    """Make the store and the flat file once; returns their facts."""
    facts = Records(output / "store.jsonl", ("gigabytes",))
    key = {"gigabytes": arguments.gigabytes}
    if not (facts.has(key) and (output / "tokens.bin").exists()):
        options = ["--folder", str(output), "--gigabytes", str(arguments.gigabytes)]
        command = module_command(sys.executable, "benchmarks.own.loader", "make", *options)
        outcome = run_process(command, output / "logs" / "make.log", _MAKING_LIMIT)
        if outcome.result is None:
            raise SystemExit(f"the store: {outcome.problem()}")
        facts.add({**key, **outcome.result})
    (found,) = facts.select(**key)
    return found


def _measure(
    records: Records, contender: Contender, number: int, output: Path, arguments: argparse.Namespace
) -> str:
    """Measure and record; returns the problem."""
    # The first round covers a whole epoch for the memory, but not with workers, which share its pages.
    whole = contender.is_own and not contender.num_workers and number == 0 and not arguments.quick
    seconds = _EPOCH_SECONDS if whole else arguments.seconds
    options = ["--folder", str(output), "--num-workers", str(contender.num_workers)]
    options += ["--seconds", str(seconds)]
    module, python = "benchmarks.own.loader", Path(sys.executable)
    if not contender.is_own:
        module = "benchmarks.peers.loader_recipes"
        options += ["--tokens", str(output / "tokens.bin")]
    if contender.kind in _OF_PEERS:
        try:
            python = find_python(arguments.peers_python)
        except SystemExit as missing:
            return str(missing)
    outcome = run_process(
        module_command(python, module, contender.kind, *options),
        output / "logs" / f"{contender.kind}-{contender.num_workers}-{number}.log",
        arguments.limit,
        {"OMP_NUM_THREADS": "1"},
    )
    if outcome.result is None:
        return outcome.problem()
    records.add({"contender": contender.name, "round": number, **outcome.result, "commit": commit()})
    rate = outcome.result["tokens_per_second"]
    print(f"round {number + 1}, {contender.name}: {rate / 1e6:,.1f} million tokens/s", flush=True)
    return ""


def _body(records: Records, names: list[str], failures: dict[str, str], made: Record) -> str:
    found = {name: records.select(contender=name) for name in names}
    rows = [_row(name, found[name]) for name in names if found[name]]
    header = ("", "million tokens/s", "first batch ms", "memory growth MB", "setup s", "waste")
    parts = [table(header, rows)]
    size = f"{made['num_tokens'] * 2 / 1e9:.2f} GB"
    parts.append(
        f"{made['num_tokens']:,} tokens in {made['num_documents']:,} documents, {size} on disk and in the"
        " system's cache. Medians over rounds, one thread a process; memory growth is the largest of"
        " all rounds, for Insight without workers over a whole epoch. Windows of nanoGPT overlap and repeat;"
        " all others give every token once an epoch."
    )
    parts += [f"Did not run: {name}: {problem}" for name, problem in failures.items()]
    return "\n\n".join(parts)


def _row(name: str, found: list[Record]) -> list[str]:
    def median(field: str) -> float:
        return statistics.median(record[field] for record in found)

    is_own = "setup_seconds" in found[0]
    return [
        name,
        f"{median('tokens_per_second') / 1e6:,.1f}",
        f"{median('first_batch_seconds') * 1e3:,.1f}",
        f"{max(record['growth_bytes'] for record in found) / 1e6:,.0f}",
        f"{median('setup_seconds'):.2f}" if is_own else "–",
        f"{median('waste'):.2%}" if is_own else "–",
    ]


if __name__ == "__main__":
    main()
