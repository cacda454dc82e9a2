"""``insight quantize``: measure ways to compress a model on this machine and write the best one."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from insight.api.quantize import quantize
from insight.cli.arguments import CommandParser, add_parameters, chosen
from insight.cli.commands import COMMANDS
from insight.runtime.json_files import print_json
from insight.runtime.messages import aligned, silence_libraries

if TYPE_CHECKING:
    from insight.optimization import SearchResult
    from insight.optimization.candidates import Candidate

_COLUMNS = ("", "bits/byte", "loss", "surely below", "MB", "new tokens/s", "prompt ms", "compile s")


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    parser = CommandParser(prog="insight quantize", description=COMMANDS["quantize"].summary)
    add_parameters(parser, quantize)
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    options = parser.parse_args(arguments)
    silence_libraries()
    result = quantize(**chosen(options, quantize))
    if options.json:
        print_json(result.to_record())
        return 0
    print(table(result))
    print(f"\n{result.reason}")
    more = f"more: {shlex.join(['insight', 'benchmark', options.checkpoint, options.output])}"
    none = "the measurements; there is no other model"
    print(f"{options.output}  ({none if result.optimized is None else more})")
    return 0


def table(result: SearchResult) -> str:
    """The candidates as text: those on the Pareto front are marked, refused ones have a reason."""
    original = result.candidates[0]
    rows = [_COLUMNS, *(_row(one, original) for one in result.candidates if one.status == "ok")]
    note = "* nothing else is at least as good in quality, size and speed and better in one"
    refused = [f"  {one.name}: {one.reason}" for one in result.candidates if one.status != "ok"]
    return "\n".join([aligned(rows), note, *refused])


def _row(one: Candidate, original: Candidate) -> tuple[str, ...]:
    reference = original.bits_per_byte or 1.0
    difference = one.quality_difference
    return (
        f"{'*' if one.pareto else ' '} {one.name}",
        f"{one.bits_per_byte:.4f}",
        f"{difference.value / reference:.3%}" if difference else "",
        f"{difference.high / reference:.3%}" if difference else "",
        f"{(one.disk_bytes or 0) / 1e6:.2f}",
        f"{one.tokens_per_second:.0f}",
        f"{(one.prefill_seconds or 0.0) * 1e3:.1f}",
        f"{one.compile_seconds:.0f}" if one.compile_seconds else "",
    )
