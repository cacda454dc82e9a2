"""``insight redteam``: run a safety suite on a model, compare two models on it, list what there is."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from insight.cli.arguments import CommandParser
from insight.cli.commands import COMMANDS
from insight.runtime.errors import ConfigError, DataError, OutputError
from insight.runtime.formats import safe_text
from insight.runtime.messages import plain_line, say, silence_libraries
from insight.runtime.run_folder import RunFolder

if TYPE_CHECKING:
    from insight.checkpoints import LoadedCheckpoint
    from insight.safety import Material, Results, Target
    from insight.safety.compare import Comparison

_WIDTH = 200


def run(name: str, arguments: list[str]) -> int:
    """Parse and run one action."""
    options = _parser().parse_args(arguments)
    exit_code: int = options.action(options)
    return exit_code


def redteam(
    checkpoint: str | Path | None = None,
    *,
    target: str | Target | None = None,
    suite: str = "base",
    measures: Sequence[str] = (),
    num_samples: int | None = None,
    seed: int = 0,
    config: str | Path | None = None,
    device: str = "cpu",
    num_workers: int = 1,
    output: str | Path | None = None,
) -> Results:
    """Measure a model as ``insight redteam run`` does, from Python.

    Args:
        checkpoint: A run folder, a ``.ckpt`` file or a quantized model.
        target: Another model instead: an object, or ``NAME:ARGUMENT``.
        suite: ``base``, ``watch`` or a YAML file.
        measures: Only these of the suite.
        num_samples: Texts a prompt, for attacks that draw several.
        seed: The same seed asks the same items.
        config: Configuration that names the training text, for a checkpoint outside of a run folder.
        device: Where a checkpoint runs.
        num_workers: Batches asked at once.
        output: Folder to make, with ``report.html``; must not exist.

    Raises:
        InsightError: As the command would print.
    """
    folder = None if output is None else Path(output)
    if folder is not None and folder.exists():
        raise OutputError(f"--output={folder} exists already", "choose another name, or remove it first")
    if (checkpoint is None) == (target is None):
        raise ConfigError("one of --checkpoint and --target is needed", "name the model to measure")

    from insight.safety import Material, find_suite, red_team
    from insight.safety.registry import TARGETS

    chosen = find_suite(suite, measures, {} if num_samples is None else {"num_samples": num_samples})
    material = Material()
    if checkpoint is not None:
        model, material = _checkpoint_target(str(checkpoint), config, device)
    elif isinstance(target, str):
        name, _, argument = target.partition(":")
        model = TARGETS.load(name)(argument)
    else:
        assert target is not None
        model = target
    with _progress() as progress:
        results = red_team(model, chosen, material, seed, folder, num_workers, progress)
    if folder is not None:
        from insight.reporting import write_report
        from insight.reporting.sections.safety import build_safety

        write_report(RunFolder(folder), (build_safety,), title=folder.name, kind="safety")
    return results


def _run(options: argparse.Namespace) -> int:
    results = redteam(
        options.checkpoint,
        target=options.target,
        suite=options.suite,
        measures=options.measure,
        num_samples=options.num_samples,
        seed=options.seed,
        config=options.config,
        device=options.device,
        num_workers=options.workers,
        output=options.output,
    )
    if options.json:
        from insight.safety.results import summary

        print(json.dumps(summary(results)))
        return 0
    print(table(results))
    if options.output:
        print(f"\n{options.output}/report.html  (compare: insight redteam compare {options.output} OTHER)")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from insight.safety.compare import compare_results, comparison_record, read_results

    if options.seed < 0:
        raise ConfigError(f"--seed={options.seed}: must be 0 or more", "use 0")
    summary_a, first = read_results(_results_folder(options.first))
    summary_b, second = read_results(_results_folder(options.second))
    comparisons = compare_results(summary_a, first, second, options.seed)
    if options.json:
        print(json.dumps(comparison_record(summary_a, summary_b, comparisons), allow_nan=False))
    else:
        print(comparison_table(comparisons))
    return 0


def _list(options: argparse.Namespace) -> int:
    from insight.safety.registry import REGISTRIES
    from insight.safety.suite import SUITES

    print(f"suites: {', '.join(SUITES)}")
    for registry in REGISTRIES:
        broken = registry.broken()
        print(f"{registry.kind}s: {', '.join(name for name in registry.names() if name not in broken)}")
        for reason in broken.values():
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
    parser.add_argument(
        "--checkpoint",
        metavar="RUN|CKPT|FOLDER",
        help="a run folder (its best checkpoint), a .ckpt file or a quantized model",
    )
    parser.add_argument(
        "--target", metavar="NAME:ARGUMENT", help="another model: python:MODULE:FUNCTION, or one of a plugin"
    )
    parser.add_argument(
        "--suite", default="base", metavar="NAME|FILE", help="base, watch, or a YAML file (default: base)"
    )
    parser.add_argument(
        "--measure",
        action="append",
        default=[],
        metavar="NAME",
        help="only this measure of the suite (may be given again)",
    )
    parser.add_argument(
        "--num_samples", type=int, metavar="K", help="texts a prompt, for attacks that draw several"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed asks the same items")
    parser.add_argument("--config", metavar="FILE", help="names the training text, outside of a run folder")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, mps (default: cpu)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="batches asked at once (default: 1)"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", help="folder to make; without it the figures are only printed"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(action=_run)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """What draws how far a run is, where there is a terminal to draw it on."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from insight.callbacks.progress_line import TerminalLine

    line = TerminalLine(sys.stderr)
    line.open()
    try:
        yield lambda done, total: line.draw(f"{done} of {total} batches")
    finally:
        line.close()


def _checkpoint_target(text: str, config: str | Path | None, device_name: str) -> tuple[Target, Material]:
    from insight.runtime.run_folder import RunFolder, find_checkpoint, run_of_checkpoint

    path = find_checkpoint(text)
    silence_libraries()

    from insight.checkpoints.artifact import load_model
    from insight.runtime.device import usable_device
    from insight.safety import Material, NetworkTarget
    from insight.safety.material import secrets_of
    from insight.safety.targets import path_identity

    device = usable_device(device_name)
    folder = RunFolder(path) if path.is_dir() else run_of_checkpoint(path)
    loaded: LoadedCheckpoint | None = None
    material: Material | None = None
    if config or (folder and folder.config_path.is_file()):
        loaded, material = _with_text(text, config)
    if loaded is None or device.type != "cpu":
        loaded = load_model(path, device)
    if material is None:
        material = Material(secrets=secrets_of(loaded.metadata.get("canaries")))
    name = f"{text} ({path})" if str(path) != text else text
    return NetworkTarget(loaded.network.eval(), loaded.tokenizer, name, path_identity(path)), material


def _with_text(text: str, config: str | Path | None) -> tuple[LoadedCheckpoint, Material | None]:
    """The model, and the texts of its run if they can still be read."""
    from insight.api.evaluate import cli_for_checkpoint
    from insight.safety.material import material_of

    options = ["--config", str(config)] if config else []
    cli, _, loaded = cli_for_checkpoint("validate", ["--checkpoint", text, *options])
    try:
        cli.datamodule.setup("fit")
    except DataError as error:
        say(f"the text of the run cannot be read, so memorisation cannot be measured: {error}")
        return loaded, None
    return loaded, material_of(cli.datamodule)


def _results_folder(text: str) -> Path:
    folder = Path(text)
    inside = folder / "safety"
    return inside if (inside / "results.jsonl").is_file() else folder


def table(results: Results) -> str:
    """The figures as text: one line each, and why where there is none."""
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
    return "\n".join([*_columns(rows), *(safe_text(line, _WIDTH) for line in lines)])


def comparison_table(comparisons: list[Comparison]) -> str:
    """A comparison as text."""
    rows = [("measure", "A", "B", "B - A", "95% interval", "pairs", "differ", "p", "verdict")]
    for one in comparisons:
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
    return "\n".join(_columns(rows))


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    safe = [tuple(safe_text(cell, _WIDTH) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in safe) for column in range(len(safe[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in safe
    ]
