"""``insight redteam``: run a safety suite on a model, compare two models on it, list the available parts."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from insight.api.redteam import compare_redteam, redteam, redteam_parts
from insight.cli.arguments import CommandParser, add_action, add_parameters, chosen
from insight.cli.commands import COMMANDS
from insight.runtime.errors import InsightError
from insight.runtime.formats import safe_text
from insight.runtime.json_files import print_json
from insight.runtime.messages import aligned, plain_line

if TYPE_CHECKING:
    from insight.safety import Comparisons, Results

_WIDTH = 200


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    return options.run(options) or 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight redteam", description=COMMANDS["redteam"].summary)
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")
    suite = add_action(actions, "run", "measure a model with a suite of attacks", _run)
    names = set(inspect.signature(redteam).parameters) - {"target", "progress"}
    add_parameters(suite, redteam, names, spelled={"measures": "measure", "num_workers": "workers"})
    about = "another model: python:MODULE:FUNCTION, or one of a plugin"
    suite.add_argument("--target", metavar="NAME:ARGUMENT", help=about)
    compare = add_action(actions, "compare", "compare two results case by case", _compare)
    add_parameters(compare, compare_redteam, positional=("first", "second"))
    summary = "list suites, attacks, evaluators and targets, those of installed packages too"
    add_action(actions, "list", summary, _list, json=False)
    return parser


def _run(options: argparse.Namespace) -> None:
    from insight.runtime.launching.launch import preemptible

    # SIGTERM ends the command as Ctrl-C does, so that it says how to continue.
    with preemptible("SIGTERM"), _progress() as progress:
        results = redteam(**chosen(options, redteam), progress=progress)
    if options.json:
        print_json(results.to_record())
    else:
        print(_table(results))
        if options.output:
            other = f"compare: insight redteam compare {shlex.quote(options.output)} OTHER"
            print(f"\n{options.output}/report.html  ({other})")
    if not results.num_measured:
        raise InsightError("nothing was measured", "look at the reasons above; no answer could be judged")


def _compare(options: argparse.Namespace) -> None:
    comparisons = compare_redteam(**chosen(options, compare_redteam))
    if options.json:
        print_json(comparisons.to_record())
    else:
        print(_comparison_table(comparisons))
    if not comparisons.num_compared:
        raise InsightError("nothing was compared", "no item was judged in both results")


def _list(options: argparse.Namespace) -> None:
    for kind, (names, broken) in redteam_parts().items():
        print(f"{kind}: {', '.join(names)}")
        for reason in broken:
            print(f"  not usable: {plain_line(reason)}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A function that draws the progress of a run, or ``None`` if there is no terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("batches", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _table(results: Results) -> str:
    """The results as text: one line each, with the reason where a value is missing."""
    rows = [("measure", "figure", "value", "95% interval", "n", "control", "ideal", "unit")]
    lines = []
    for measure in results.measures:
        for figure in measure.figures:
            value, low, high = figure.interval.value, figure.interval.low, figure.interval.high
            interval = (f"{value:.3g}", f"{low:.3g} to {high:.3g}", f"{figure.interval.n:,}")
            control = f"{figure.control.value:.3g}" if figure.control else ""
            ideal = f"{figure.ideal:.3g}"
            rows.append((measure.measure, figure.name, *interval, control, ideal, figure.unit))
        if not measure.figures:
            lines.append(f"{measure.measure}: {measure.status} ({measure.reason})")
        missing = {status: n for status, n in measure.coverage.items() if n and status != "ok"}
        if missing:
            counts = ", ".join(f"{n} {status}" for status, n in missing.items())
            judged, total = measure.coverage["ok"], sum(measure.coverage.values())
            lines.append(f"{measure.measure}: {judged} of {total} items count ({counts})")
    return "\n".join([_columns(rows), *(safe_text(line, _WIDTH) for line in lines)])


def _comparison_table(comparisons: Comparisons) -> str:
    """A comparison as text."""
    rows = [("measure", "A", "B", "B - A", "95% interval", "pairs", "differ", "p", "verdict")]
    for one in comparisons.measures:
        if one.difference is None or one.value_a is None or one.value_b is None:
            rows.append((one.measure, "", "", "", "", "0", "", "", f"{one.verdict} ({one.reason})"))
            continue
        low, high = one.difference.low, one.difference.high
        values = (f"{one.value_a:.3g}", f"{one.value_b:.3g}", f"{one.difference.value:+.3g}")
        pairs = (f"{one.num_pairs:,}", f"{one.num_pairs - one.num_equal:,}")
        p_value = "" if one.p_value is None else f"{one.p_value:.3g}"
        rows.append((one.measure, *values, f"{low:+.3g} to {high:+.3g}", *pairs, p_value, one.verdict))
    return _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    safe = [[safe_text(cell, _WIDTH) for cell in row] for row in rows]
    return aligned(safe, words=range(len(safe[0])))
