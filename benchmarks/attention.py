"""Variants of attention against plain multi-head attention: time, memory, and the cost of a decoded token.

Time: forward and backward pass of one layer (hidden 256, 4 heads) on 4,096 tokens in float32. Variant and
base alternate in one process, and the ratio is the median over their pairs, so a slow minute affects both.
Memory: peak growth of a separate process, on 16,384 tokens. Decoding: steps of a network of 4 layers at
positions 10 and 1,000, alternating. Tables hold medians over the rounds. An interrupted benchmark continues
with the missing measurements; use --fresh to start over after a change of the code.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.begin import add_results_option, begin, benchmark_parser, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.processes import ROOT, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section

OUTPUT = ROOT / "benchmarks" / "output" / "attention"
_MEMORY_LENGTH, _QUICK_LENGTH = 16384, 512


@dataclass(frozen=True)
class Case:
    """One measurement of a variant against a base, named as in ``benchmarks.own.attention_layers``.

    Args:
        task: ``layer``, ``attention`` (a layer without its projections), ``memory`` or ``decode``.
        variant: The measured variant.
        target: Upper bound of its ratio; ``None`` without one.
        base: The variant to compare with.
    """

    task: str
    variant: str
    target: float | None = None
    base: str = "multi-head"


CASES = (
    Case("layer", "grouped-query", 1.05),
    Case("layer", "multi-query", 1.05),
    Case("layer", "sliding window", 0.35),
    Case("layer", "packed documents", 0.35, base="dense documents"),
    Case("layer", "differential", 2.2),
    Case("layer", "ALiBi", 1.3),
    Case("layer", "sinks"),
    Case("layer", "gate and query-key norm"),
    Case("layer", "latent"),
    Case("layer", "soft cap"),
    Case("layer", "relative bias"),
    Case("layer", "gated delta net"),
    Case("layer", "gated linear"),
    Case("layer", "retention"),
    Case("attention", "grouped-query"),
    Case("attention", "sliding window", 0.35),
    Case("attention", "packed documents", 0.35, base="dense documents"),
    Case("attention", "differential"),
    Case("attention", "ALiBi"),
    Case("memory", "multi-head"),
    Case("memory", "sliding window"),
    Case("memory", "dense documents"),
    Case("memory", "packed documents"),
    Case("decode", "multi-head"),
    Case("decode", "sliding window", 1.2),
    Case("decode", "latent", 1.2),
    Case("decode", "gated delta net", 1.2),
    Case("decode", "gated linear", 1.2),
    Case("decode", "retention", 1.2),
)


def main() -> None:
    """Run the missing measurements and print the tables."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("task", "variant", "round"), arguments.fresh)
    chosen = [case for case in CASES if is_wanted(f"{case.task} {case.variant}", arguments.only)]
    deadline = Deadline(arguments.deadline)
    failures: dict[Case, str] = {}
    for number, case in _turns(chosen, arguments.rounds):
        key = {"task": case.task, "variant": case.variant, "round": number}
        if records.has(key) or case in failures:
            continue
        if deadline.is_over():
            break
        command = [case.task, "--variant", case.variant, "--base", case.base]
        command += ["--seconds", str(arguments.seconds), "--length", str(_length(case, arguments.quick))]
        outcome = run_process(
            module_command(sys.executable, "benchmarks.own.attention_layers", *command),
            output / "logs" / f"{case.task}-{case.variant.replace(' ', '_')}-{number}.log",
            arguments.limit,
            {"OMP_NUM_THREADS": str(machine["num_threads"])},
        )
        if outcome.result is None:
            failures[case] = outcome.problem()
            print(f"{case.task}, {case.variant}: {failures[case]}", flush=True)
            continue
        records.add({**key, **outcome.result, "commit": commit()})
        print(f"round {number + 1}, {case.task}, {case.variant}: {_said(outcome.result)}", flush=True)
    body = _body(records, chosen, failures)
    print(f"\n{body}")
    if arguments.write_results:
        command_line = "python -m benchmarks.attention --write-results"
        page = section("Attention", command_line, commit(), machine_line(machine), today(), body)
        write_section("attention", page)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(
        __doc__,
        only='cases by their names, e.g. window "decode latent"',
        quick="short sequences and one round",
        minutes=20.0,
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring in each process")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that one process may take")
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.0
    return arguments


def _length(case: Case, quick: bool) -> int:
    length = _MEMORY_LENGTH if case.task == "memory" else 4096
    return _QUICK_LENGTH if quick else length


def _turns(cases: list[Case], num_rounds: int) -> Iterator[tuple[int, Case]]:
    """The cases of each round, reversed in every other round; memory does not vary and is measured once."""
    for number in range(num_rounds):
        for case in reversed(cases) if number % 2 else cases:
            if number == 0 or case.task != "memory":
                yield number, case


def _said(result: Record) -> str:
    if "ratio" in result:
        return f"{result['ratio']:.2f}"
    return f"{result['peak_growth_bytes'] / 1e6:,.0f} MB"


def _body(records: Records, cases: list[Case], failures: dict[Case, str]) -> str:
    found = {case: records.select(task=case.task, variant=case.variant) for case in cases}
    layers = [_pair_row(case, rows) for case, rows in found.items() if rows and case.task == "layer"]
    alone = [_pair_row(case, rows) for case, rows in found.items() if rows and case.task == "attention"]
    decoded = [_decode_row(case, rows) for case, rows in found.items() if rows and case.task == "decode"]
    memory = [_memory_row(case, rows) for case, rows in found.items() if rows and case.task == "memory"]
    parts = []
    for title, rows in (("one layer, 4,096 tokens", layers), ("the same without projections", alone)):
        if rows:
            parts += [table((title, "ms", "compared with", "ms", "ratio", "promised"), rows)]
    if memory:
        parts += [table(("one layer, 16,384 tokens", "peak MB", "float32 square, MB"), memory)]
    if decoded:
        header = ("a decoded token", "ms at 10", "ms at 1,000", "ratio", "promised")
        parts += [table(header, decoded)]
    parts.append(
        "Forward and backward, hidden 256, 4 heads, batch 1, float32; base and variant take turns in one"
        " process, ratios are medians over pairs, then over rounds. Window: 256 keys; documents: 512 tokens;"
        " dense: their mask written out. Denormal numbers are flushed, as in every `insight` command."
    )
    parts += [f"Did not run: {case.task}, {case.variant}: {problem}" for case, problem in failures.items()]
    return "\n\n".join(parts)


def _pair_row(case: Case, rows: list[Record]) -> list[str]:
    own, base = (f"{1e3 * _median(rows, name):.0f}" for name in ("seconds", "base_seconds"))
    return [case.variant, own, case.base, base, f"{_median(rows, 'ratio'):.2f}", _promise(case, rows)]


def _decode_row(case: Case, rows: list[Record]) -> list[str]:
    early, late = (f"{1e3 * _median(rows, name):.2f}" for name in ("early_seconds", "late_seconds"))
    return [case.variant, early, late, f"{_median(rows, 'ratio'):.2f}", _promise(case, rows)]


def _memory_row(case: Case, rows: list[Record]) -> list[str]:
    peak, square = (_median(rows, name) / 1e6 for name in ("peak_growth_bytes", "square_bytes"))
    return [case.variant, f"{peak:,.0f}", f"{square:,.0f}"]


def _promise(case: Case, rows: list[Record]) -> str:
    if case.target is None:
        return "–"
    return f"≤ {case.target:g}" + ("" if _median(rows, "ratio") <= case.target else ", missed")


def _median(rows: list[Record], field: str) -> float:
    return statistics.median(row[field] for row in rows)


if __name__ == "__main__":
    main()
