"""The start of every resumable benchmark: its options and its earlier measurements."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.machine import describe_machine, machine_identity, machine_line
from benchmarks.records import Records, require_same_machine

_Contender = TypeVar("_Contender")


def benchmark_parser(
    description: str | None, *, only: str, quick: str, minutes: float
) -> argparse.ArgumentParser:
    """A parser with the shared options: help of ``--only`` and ``--quick``, default of ``--deadline``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help=only)
    parser.add_argument(
        "--deadline", type=float, default=minutes, help="minutes; nothing is begun after them"
    )
    parser.add_argument("--quick", action="store_true", help=f"{quick}: does it run at all?")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    return parser


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--write-results``, for scripts whose table belongs in RESULTS.md."""
    parser.add_argument("--write-results", action="store_true", help="put what was measured into RESULTS.md")


def is_wanted(name: str, only: Sequence[str] | None) -> bool:
    """Whether a word of ``--only`` is part of ``name``, ignoring case; without ``--only`` all are wanted."""
    return not only or any(part.lower() in name.lower() for part in only)


def in_turns(contenders: Sequence[_Contender], num_rounds: int) -> Iterator[tuple[int, _Contender]]:
    """The number of the round and a contender, for all; the order is rotated from round to round."""
    for number in range(num_rounds):
        turn = number % max(1, len(contenders))
        for contender in (*contenders[turn:], *contenders[:turn]):
            yield number, contender


def begin(output: Path, key_fields: tuple[str, ...], fresh: bool) -> tuple[dict[str, Any], Records]:
    """The machine, which is printed, and the earlier measurements in ``output``, deleted if ``fresh``.

    Raises:
        SystemExit: The earlier measurements come from another machine.
    """
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    require_same_machine(output, machine_identity(machine), fresh)
    records = Records(output / "records.jsonl", key_fields)
    if fresh:
        records.forget()
    return machine, records
