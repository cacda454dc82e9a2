"""Several processes against one on the same cores, the cost of a save, and a model of many ranks.

Training: two processes with one thread each against one process with two threads, for DDP, DDP with
accumulation and FSDP2: ``insight fit`` with its defaults, global batch of 16 sequences of 256 tokens, fp32.
Saves: a step with a save against ordinary steps, and against writing the same bytes with a flush to the disk.
Every measurement is a separate run; they take turns in a rotated order; tables hold medians over the rounds.

``--simulate`` measures nothing: it writes the tables of docs/scaling.md from the model in scaling_model.py.
The overhead of the Trainer over a bare loop is measured by benchmarks.train_throughput (``--only overhead``).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.begin import add_results_option, begin, benchmark_parser, in_turns, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.own.text import write_throughput_text
from benchmarks.peers.decoder_shape import throughput_shape
from benchmarks.processes import ROOT, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section
from benchmarks.scaling_tables import write_scaling_page

OUTPUT = ROOT / "benchmarks" / "output" / "distributed"
_GLOBAL_BATCH = 16
_NUM_WARMUP_STEPS = 2
_PERIOD = 40
_CALLBACKS = "benchmarks.own.process_clock"


@dataclass(frozen=True)
class Training:
    """A way to train: processes share ``--threads`` threads, ``accumulation`` is batches per step."""

    name: str
    num_processes: int
    strategy: str
    accumulation: int

    def threads_of_each(self, arguments: argparse.Namespace) -> int:
        """Number of threads per process."""
        return max(1, int(arguments.threads) // self.num_processes)

    def options(self, arguments: argparse.Namespace) -> list[str]:
        """Options of ``insight fit``."""
        return [
            f"--data.batch_size={_GLOBAL_BATCH // self.num_processes // self.accumulation}",
            f"--trainer.accumulate_grad_batches={self.accumulation}",
            f"--trainer.devices={self.num_processes}",
            f"--trainer.strategy={self.strategy}",
            f"--trainer.max_steps={_NUM_WARMUP_STEPS + arguments.steps}",
            f"--trainer.callbacks+={_CALLBACKS}.MeasureOptimizerSteps",
            f"--trainer.callbacks.num_warmup_steps={_NUM_WARMUP_STEPS}",
        ]

    def told(self, result: Record) -> str:
        """One line about a measurement."""
        return f"{result['tokens_per_second']:,.0f} tokens/s"


@dataclass(frozen=True)
class Saving:
    """A way to save, by the option ``asynchronous`` of ``RunCheckpoint``."""

    name: str
    asynchronous: bool

    def threads_of_each(self, arguments: argparse.Namespace) -> int:
        """Number of threads of the process."""
        return int(arguments.threads)

    def options(self, arguments: argparse.Namespace) -> list[str]:
        """Options of ``insight fit`` for a short step and a large checkpoint."""
        return [
            "--data.batch_size=1",
            "--data.sequence_length=64",
            f"--trainer.max_steps={_PERIOD * (arguments.saves + 1) - 1}",
            "--trainer.callbacks+=RunCheckpoint",
            f"--trainer.callbacks.every_n_steps={_PERIOD}",
            f"--trainer.callbacks.asynchronous={str(self.asynchronous).lower()}",
            f"--trainer.callbacks+={_CALLBACKS}.MeasureSaves",
            f"--trainer.callbacks.period={_PERIOD}",
        ]

    def told(self, result: Record) -> str:
        """One line about a measurement."""
        return (
            f"stalled for {result['stall_seconds'] / result['write_seconds']:.2f} times the time of writing"
        )


_ONE, _TWO, _FOUR_TIMES = "1 process", "2 processes", "4 micro-batches"
TRAININGS = (
    Training(_ONE, 1, "auto", 1),
    Training(f"{_TWO}, DDP", 2, "ddp", 1),
    Training(f"{_TWO}, FSDP2", 2, "fsdp2", 1),
    Training(f"{_ONE}, {_FOUR_TIMES}", 1, "auto", 4),
    Training(f"{_TWO}, DDP, {_FOUR_TIMES}", 2, "ddp", 4),
)
SAVINGS = (Saving("save", asynchronous=False), Saving("save, asynchronous", asynchronous=True))


def main() -> None:
    """Run the missing measurements and print the tables."""
    arguments = _arguments()
    if arguments.simulate:
        write_scaling_page()
        return
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("contender", "round"), arguments.fresh)
    write_throughput_text(output, throughput_shape().vocabulary_size)
    chosen = [way for way in (*TRAININGS, *SAVINGS) if is_wanted(way.name, arguments.only)]
    deadline = Deadline(arguments.deadline)
    for number, way in in_turns(chosen, arguments.rounds):
        if records.has({"contender": way.name, "round": number}):
            continue
        if deadline.is_over():
            break
        _measure(records, way, number, output, arguments)
    body = _body(records)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.distributed --write-results"
        page = section(
            "Several processes, and saving", command, commit(), machine_line(machine), today(), body
        )
        write_section("distributed", page)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(
        __doc__, only="ways, e.g. ddp save", quick="one round of two steps and two saves", minutes=10.0
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps measured in each run")
    parser.add_argument("--saves", type=int, default=6, help="saves measured in each run")
    parser.add_argument("--threads", type=int, default=2, help="of all processes of a run together")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds that one run may take")
    parser.add_argument(
        "--simulate", action="store_true", help="write docs/scaling.md from the model, and end"
    )
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.steps, arguments.saves = 1, 2, 2
    return arguments


def _measure(
    records: Records, way: Training | Saving, number: int, output: Path, arguments: argparse.Namespace
) -> None:
    runs = output / "runs"
    shutil.rmtree(runs, ignore_errors=True)  # checkpoints of 200 MB
    threads = way.threads_of_each(arguments)
    options = [
        f"--config={ROOT / 'benchmarks' / 'throughput.yaml'}",
        f"--run.root={runs}",
        f"--run.num_threads={threads}",
        f"--data.cache_dir={output / 'cache'}",
        "--data.tokenizer=PretrainedTokenizerConfig",
        f"--data.tokenizer.path={output / 'tokenizer.json'}",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--model.compile=off",
        *way.options(arguments),
    ]
    outcome = run_process(
        module_command(sys.executable, "insight", "fit", *options),
        output / "logs" / f"{way.name.replace(', ', '-').replace(' ', '_')}-{number}.log",
        arguments.limit,
        {"OMP_NUM_THREADS": str(threads)},
    )
    if outcome.result is None:
        print(f"round {number + 1}, {way.name}: {outcome.problem()}", flush=True)
        return
    result = {**outcome.result, "process_peak_bytes": outcome.peak_bytes, "commit": commit()}
    records.add({"contender": way.name, "round": number, **result})
    print(f"round {number + 1}, {way.name}: {way.told(result)}", flush=True)


def _body(records: Records) -> str:
    header = ("", "tokens/s", "of one process", "sum of the gradients alone, ms", "peak GiB", "rounds")
    parts = [table(header, list(_training_rows(records)))]
    parts.append(
        "One process has two threads, two processes have one each, on the same two cores; 16 sequences of "
        "256 tokens a step for all. “Of one process” is the median of the ratios within a round. The sum is "
        "the all-reduce of as many float32 numbers as there are parameters, over gloo, with nothing beside."
    )
    rows = [_saving_row(way.name, found) for way in SAVINGS if (found := records.select(contender=way.name))]
    header = (
        "",
        "MB",
        "write and flush, ms",
        "stall, ms",
        "of writing",
        "lost in all, ms",
        "of writing",
        "rounds",
    )
    parts.append(table(header, rows))
    parts.append(
        "Stall: how much longer the step right after a save takes. Lost in all: with the steps that share "
        "the machine with an asynchronous write. The Trainer over a bare loop: section “Training throughput”."
    )
    return "\n\n".join(parts)


def _training_rows(records: Records) -> Iterator[list[str]]:
    for way in TRAININGS:
        found = records.select(contender=way.name)
        if not found:
            continue
        alone = next(
            one for one in TRAININGS if one.num_processes == 1 and one.accumulation == way.accumulation
        )
        ratios = [
            record["tokens_per_second"] / base["tokens_per_second"]
            for record in found
            for base in records.select(contender=alone.name, round=record["round"])
        ]
        is_alone = way is alone
        yield [
            way.name,
            f"{_median(found, 'tokens_per_second'):,.0f}",
            "–" if is_alone or not ratios else f"{statistics.median(ratios):.0%}",
            "–" if is_alone else f"{_median(found, 'sum_seconds') * 1e3:,.0f}",
            f"{_median(found, 'process_peak_bytes') / 2**30:.2f}",
            str(len(found)),
        ]


def _saving_row(name: str, found: list[Record]) -> list[str]:
    def share(field: str) -> str:
        return f"{statistics.median(record[field] / record['write_seconds'] for record in found):.2f}"

    return [
        name,
        f"{_median(found, 'num_bytes') / 1e6:,.0f}",
        f"{_median(found, 'write_seconds') * 1e3:,.0f}",
        f"{_median(found, 'stall_seconds') * 1e3:,.0f}",
        share("stall_seconds"),
        f"{_median(found, 'lost_seconds') * 1e3:,.0f}",
        share("lost_seconds"),
        str(len(found)),
    ]


def _median(found: list[Record], field: str) -> float:
    return statistics.median(record[field] for record in found)


if __name__ == "__main__":
    main()
