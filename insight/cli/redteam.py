"""``insight redteam``: run a safety suite on a model, compare two models on it, list the available parts."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from insight.cli.arguments import CommandParser, add_parameters, chosen
from insight.cli.commands import COMMANDS
from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.formats import safe_text
from insight.runtime.json_files import print_json
from insight.runtime.messages import aligned, plain_line

if TYPE_CHECKING:
    from insight.safety import Comparisons, Results

_WIDTH = 200


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    exit_code: int = options.action(options)
    return exit_code


def _run(options: argparse.Namespace) -> int:
    from insight.api.redteam import redteam

    with _terminated_like_interrupted(), _progress() as progress:
        results = redteam(**chosen(options, redteam), progress=progress)
    if options.json:
        print_json(results.to_record())
    else:
        print(_table(results))
        if options.output:
            other = f"compare: insight redteam compare {options.output} OTHER"
            print(f"\n{options.output}/report.html  ({other})")
    if not results.num_measured:
        raise InsightError("nothing was measured", "look at the reasons above; no answer could be judged")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from insight.api.redteam import compare_redteam

    if options.seed < 0:
        raise ConfigError("must be 0 or more", "use 0", option="--seed", value=options.seed)
    comparisons = compare_redteam(options.first, options.second, options.seed)
    if options.json:
        print_json(comparisons.to_record())
    else:
        print(_comparison_table(comparisons))
    if not comparisons.num_compared:
        raise InsightError("nothing was compared", "no item was judged in both results")
    return 0


def _list(options: argparse.Namespace) -> int:
    from insight.api.redteam import redteam_parts

    for kind, (names, broken) in redteam_parts().items():
        print(f"{kind}: {', '.join(names)}")
        for reason in broken:
            print(f"  not usable: {plain_line(reason)}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight redteam", description=COMMANDS["redteam"].summary)
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="ACTION")
    _add_run(actions.add_parser("run", help="measure a model with a suite of attacks"))

    compare = actions.add_parser("compare", help="compare two results case by case")
    compare.add_argument("first", metavar="A", help="folder of `insight redteam run`, or a run with safety/")
    compare.add_argument("second", metavar="B", help="the same, of the other model")
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    compare.add_argument("--json", action="store_true", help="print the comparison as JSON")
    compare.set_defaults(action=_compare)

    listing = actions.add_parser(
        "list", help="list suites, attacks, evaluators and targets, those of installed packages too"
    )
    listing.set_defaults(action=_list)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    from insight.api.redteam import redteam

    names = ("checkpoint", "suite", "num_samples", "seed", "config", "device", "output")
    add_parameters(parser, redteam, names)
    parser.add_argument(
        "--target", metavar="NAME:ARGUMENT", help="another model: python:MODULE:FUNCTION, or one of a plugin"
    )
    parser.add_argument(
        "--measure",
        action="append",
        dest="measures",
        metavar="NAME",
        help="only this measure of the suite (may be given again)",
    )
    parser.add_argument(
        "--workers", type=int, dest="num_workers", metavar="N", help="batches asked at once (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(action=_run)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, with exit code 143, so that it says how to continue."""

    def end(*_: Any) -> None:
        raise SystemExit(143)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
            interval = figure.interval
            rows.append(
                (
                    measure.measure,
                    figure.name,
                    f"{interval.value:.3g}",
                    f"{interval.low:.3g} to {interval.high:.3g}",
                    f"{interval.n:,}",
                    f"{figure.control.value:.3g}" if figure.control else "",
                    f"{figure.ideal:.3g}",
                    figure.unit,
                )
            )
        if not measure.figures:
            lines.append(f"{measure.measure}: {measure.status} ({measure.reason})")
        missing = {status: n for status, n in measure.coverage.items() if n and status != "ok"}
        if missing:
            counts = ", ".join(f"{n} {status}" for status, n in missing.items())
            lines.append(
                f"{measure.measure}: {measure.coverage['ok']} of {sum(measure.coverage.values())} items count"
                f" ({counts})"
            )
    return "\n".join([_columns(rows), *(safe_text(line, _WIDTH) for line in lines)])


def _comparison_table(comparisons: Comparisons) -> str:
    """A comparison as text."""
    rows = [("measure", "A", "B", "B - A", "95% interval", "pairs", "differ", "p", "verdict")]
    for one in comparisons.measures:
        if one.difference is None or one.value_a is None or one.value_b is None:
            rows.append((one.measure, "", "", "", "", "0", "", "", f"{one.verdict} ({one.reason})"))
            continue
        rows.append(
            (
                one.measure,
                f"{one.value_a:.3g}",
                f"{one.value_b:.3g}",
                f"{one.difference.value:+.3g}",
                f"{one.difference.low:+.3g} to {one.difference.high:+.3g}",
                f"{one.num_pairs:,}",
                f"{one.num_pairs - one.num_equal:,}",
                "" if one.p_value is None else f"{one.p_value:.3g}",
                one.verdict,
            )
        )
    return _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    safe = [[safe_text(cell, _WIDTH) for cell in row] for row in rows]
    return aligned(safe, words=range(len(safe[0])))
