"""``insight benchmark``: models side by side — quality, size, memory, load time and speed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.cli.arguments import CommandParser
from insight.cli.commands import COMMANDS
from insight.runtime.errors import ConfigError
from insight.runtime.files import ensure_writable
from insight.runtime.messages import silence_libraries
from insight.runtime.output_folder import require_new
from insight.runtime.run_folder import DEFAULT_ROOT, find_checkpoint

if TYPE_CHECKING:
    from insight.optimization.measurement import Comparison

_DESCRIPTION = """\
Measures checkpoints and quantized models on the same text and the same prompts, each against the first:
bits per byte with a paired bootstrap interval of the difference, bytes of the weights and on the disk, memory
and load time in fresh processes, latency of reading a prompt and of writing after it. Models take turns after
warming up, and medians count. Nothing else should run on the machine meanwhile.

The text is the test text of the first model's run (without one, its validation text), or --text. Models with
different tokenizers compare too, since bits per byte count the text itself. A model that was trained on the
text looks better than it is.

The folder gets results.jsonl (every window, every speed), summary.json and report.html."""


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    settings = {
        key: value
        for key in ("prompt_length", "num_new_tokens", "seconds", "num_processes", "device", "seed")
        if (value := getattr(options, key)) is not None
    }
    settings["batch_sizes"] = tuple(options.batch_sizes)
    comparison, folder = _benchmark(options.models, options.output, options.text, settings)

    from insight.cli.benchmark_results import tables
    from insight.runtime.json_files import read_object

    if options.json:
        print(json.dumps(read_object(folder / "summary.json")))
    else:
        print(tables(comparison))
        print(f"\n{folder / 'report.html'}")
    return 0


def benchmark(
    models: Sequence[str | Path],
    output: str | Path | None = None,
    text: Sequence[str] = (),
    **settings: Any,
) -> Path:
    """Compare models as ``insight benchmark`` does, from Python.

    Args:
        models: Checkpoints, runs and quantized models; the first is the one the others are compared with.
        output: Folder for the results; ``None`` makes ``runs/benchmark/<n>``.
        text: Files to measure quality on; none for the text of the first model's run.
        settings: Fields of ``insight.optimization.measurement.ComparisonSettings``.

    Returns:
        The folder of the results.

    Raises:
        InsightError: As the command would print.
    """
    return _benchmark(list(map(str, models)), output, text, settings)[1]


def _benchmark(
    models: Sequence[str], output: str | Path | None, text: Sequence[str], settings: dict[str, Any]
) -> tuple[Comparison, Path]:
    from insight.optimization.measurement.comparison import ComparisonSettings

    if not models:
        raise ConfigError("there is no model to measure", "name at least one")
    chosen = ComparisonSettings(**settings)
    paths = {
        label: find_checkpoint(model, option="MODEL")
        for label, model in zip(_labels(models), models, strict=True)
    }
    folder = _output_folder(output)
    silence_libraries()

    from insight.cli.benchmark_results import write_results
    from insight.optimization.measurement import EvaluationText, compare_models
    from insight.runtime.device import usable_device

    usable_device(chosen.device)
    source = EvaluationText.of_files(text) if text else EvaluationText.of_model(next(iter(paths.values())))
    comparison = compare_models(paths, source, chosen)
    write_results(comparison, folder)
    return comparison, folder


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="insight benchmark",
        description=f"{COMMANDS['benchmark'].summary}\n\n{_DESCRIPTION}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a run folder (its best checkpoint), a .ckpt file or a quantized model's folder; the others are "
        "compared with the first",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="where the results go; must not exist (default: runs/benchmark/1, 2, ...)",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="FILES",
        help="file, folder, glob or corpus:NAME to measure quality on (may be given again)",
    )
    parser.add_argument(
        "--batch_sizes",
        type=int,
        nargs="+",
        default=[1, 8],
        metavar="N",
        help="sequences at a time for speed (default: 1 8)",
    )
    parser.add_argument(
        "--prompt_length",
        type=int,
        metavar="N",
        help="tokens of a prompt (default: 128, fewer where the context is shorter)",
    )
    parser.add_argument(
        "--num_new_tokens",
        type=int,
        metavar="N",
        help="tokens written after it (default: 32, fewer where the context is shorter)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="time for the speed of each model, warm-up not counted (default: 10)",
    )
    parser.add_argument(
        "--num_processes",
        type=int,
        metavar="N",
        help="fresh processes that load each model (default: 3)",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: cpu)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of tables")
    return parser


def _labels(models: Sequence[str]) -> list[str]:
    """What the models are called: as they were typed, numbered where one is named again."""
    labels: list[str] = []
    for model in models:
        label, number = model, 2
        while label in labels:
            label, number = f"{model} ({number})", number + 1
        labels.append(label)
    return labels


def _output_folder(output: str | Path | None) -> Path:
    """Where the results go.

    Raises:
        OutputError: It exists already or cannot be written to.
    """
    if output is None:
        parent = DEFAULT_ROOT / "benchmark"
        number = 1
        while (parent / str(number)).exists():
            number += 1
        folder = parent / str(number)
    else:
        folder = Path(output)
        require_new(folder)
    ensure_writable(folder)
    return folder
