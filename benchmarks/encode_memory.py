"""Memory of encoding a text of 2 GB: in one line, in lines of one word, as ten million records.

Every measurement is a process that opens a tokenizer, encodes the file into a published store and ends. Its
peak is its most resident memory (VmHWM), including libraries and mapped files; the sum over several processes
is sampled. The same text at half the size shows that the peak does not depend on the size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.begin import add_results_option, begin, benchmark_parser, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.processes import ROOT, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section

OUTPUT = ROOT / "benchmarks" / "output" / "encode_memory"
_RECORDS = 10_000_000


@dataclass(frozen=True)
class Case:
    """One text and how it is encoded.

    Args:
        kind: Kind of the text, as named in ``benchmarks.own.encode_memory``.
        gigabytes: Upper bound of the file's size.
        encoder: ``fastest`` available, or ``tokenizers``.
        fraction: Share of the text that is set aside for validation.
        num_workers: Number of encoding processes; 0 encodes in the main process.
    """

    kind: str
    gigabytes: float
    encoder: str
    fraction: float
    num_workers: int = 0

    @property
    def name(self) -> str:
        """Name in the table, without the size."""
        parts = [self.kind, *(["with a validation part"] if self.fraction else [])]
        parts += ["without fastokens"] * (self.encoder == "tokenizers")
        return ", ".join([*parts, *([f"{self.num_workers} workers"] if self.num_workers else [])])


def _cases(gigabytes: float) -> Iterator[Case]:
    for size in (gigabytes / 2, gigabytes):
        yield Case("one line", size, "fastest", 0.0)
        yield Case("one line", size, "fastest", 0.05)
        yield Case("one line", size, "tokenizers", 0.0)
        yield Case("one word a line", size, "fastest", 0.0)
        yield Case("one line", size, "fastest", 0.0, num_workers=2)
    yield Case("one word a record", gigabytes, "fastest", 0.0)
    yield Case("one word a record", gigabytes, "fastest", 0.05)


def main() -> None:
    """Run the missing measurements and print the table."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("name", "gigabytes"), arguments.fresh)
    cases = [case for case in _cases(arguments.gigabytes) if is_wanted(case.name, arguments.only)]
    deadline, failures = Deadline(arguments.deadline), []
    made: tuple[str, float] | None = None
    for case in sorted(cases, key=lambda case: (case.gigabytes, case.kind)):
        if records.has({"name": case.name, "gigabytes": case.gigabytes}) or deadline.is_over():
            continue
        # Only one text is kept at a time, since all of them would fill a small disk.
        if made != (case.kind, case.gigabytes):
            _make(case, output, arguments)
            made = (case.kind, case.gigabytes)
        problem = _measure(case, records, output, arguments)
        if problem:
            failures.append(problem)
            print(problem, flush=True)
    body = _body(records, cases, failures)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.encode_memory --write-results"
        page = section("Memory of encoding", command, commit(), machine_line(machine), today(), body)
        write_section("encode_memory", page)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, only="cases, e.g. 'one line'", quick="20 MB", minutes=40.0)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the larger text")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds that one process may take")
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.gigabytes = 0.02
    return arguments


def _make(case: Case, output: Path, arguments: argparse.Namespace) -> None:
    options = ["--folder", str(output / "text"), "--kind", case.kind]
    options += ["--bytes", str(int(case.gigabytes * 1e9))]
    options += ["--words", str(_RECORDS)] if case.kind == "one word a record" else []
    for old in (output / "text").glob("*.[tj]*"):
        if old.name != "tokenizer.json":
            old.unlink()
    command = module_command(sys.executable, "benchmarks.own.encode_memory", "make", *options)
    outcome = run_process(command, output / "logs" / "make.log", arguments.limit)
    if outcome.result is None:
        raise SystemExit(f"the text: {outcome.problem()}")


def _measure(case: Case, records: Records, output: Path, arguments: argparse.Namespace) -> str:
    """Measure and record; returns the problem."""
    options = ["--folder", str(output / "text"), "--kind", case.kind]
    options += ["--encoder", case.encoder, "--fraction", str(case.fraction)]
    options += ["--num-workers", str(case.num_workers)]
    command = module_command(sys.executable, "benchmarks.own.encode_memory", "encode", *options)
    outcome = run_process(command, output / "logs" / f"{len(records.select())}.log", arguments.limit)
    if outcome.result is None:
        return f"{case.name}, {case.gigabytes:g} GB: {outcome.problem()}"
    found = {**outcome.result, "total_peak_bytes": max(outcome.peak_bytes, outcome.result["peak_bytes"])}
    records.add({"name": case.name, "gigabytes": case.gigabytes, **found, "commit": commit()})
    peak = outcome.result["peak_bytes"] / 1e6
    print(f"{case.name}, {case.gigabytes:g} GB: {peak:,.0f} MB in {outcome.seconds:.0f} s", flush=True)
    return ""


def _body(records: Records, cases: list[Case], failures: list[str]) -> str:
    found = [record for case in cases for record in records.select(name=case.name, gigabytes=case.gigabytes)]
    header = ("text", "file GB", "documents", "peak MB", "at the start", "all processes", "MB/s", "encoder")
    body = table(header, [_row(record) for record in found])
    return "\n\n".join([body, *(f"Did not run: {problem}" for problem in failures)])


def _row(record: Record) -> list[str]:
    return [
        record["name"],
        f"{record['file_bytes'] / 1e9:.2f}",
        f"{record['num_documents']:,}",
        f"{record['peak_bytes'] / 1e6:,.0f}",
        f"{record['bytes_at_start'] / 1e6:,.0f}",
        f"{record['total_peak_bytes'] / 1e6:,.0f}",
        f"{record['text_bytes'] / record['seconds'] / 1e6:,.1f}",
        record["encoder"],
    ]


if __name__ == "__main__":
    main()
