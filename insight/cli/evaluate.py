"""``insight validate`` and ``insight test`` measure a checkpoint; ``predict`` scores each document."""

from __future__ import annotations

import sys
from pathlib import Path

from insight.cli.arguments import take_flag, take_option
from insight.cli.commands import COMMANDS
from insight.cli.config_help import config_help, wants_help
from insight.runtime.errors import OutputError
from insight.runtime.files import atomic_write_text, ensure_writable
from insight.runtime.json_files import print_json, to_line
from insight.runtime.messages import say


def run(name: str, arguments: list[str]) -> int:
    """Run one of the three commands."""
    if wants_help(arguments):
        print(config_help(name, COMMANDS[name].summary), end="")
        return 0
    arguments, as_json = take_flag(arguments, "--json")
    if name == "predict":
        _predict(arguments)
        return 0

    from insight.api.evaluate import evaluate_arguments

    metrics = evaluate_arguments(name, arguments)
<<<<<<< HEAD
    if as_json:
        print_json(metrics)
=======
    if option_value(arguments, "--json") is not None:
        print(to_line(metrics), end="")
>>>>>>> b8b4084 (Numbers that are none are refused; patience over NaN; a wish to stop is forgotten when the metric improves)
    else:
        for metric, value in metrics.items():
            print(f"{metric:26} {value:.4f}")
    return 0


def _predict(arguments: list[str]) -> None:
    """Write one line of JSON a document, with or without ``--json``."""
    from insight.api.evaluate import predict_arguments

    arguments, given = take_option(arguments, "--output")
    output = Path(given) if given else None
    if output:
        if output.exists():
            raise OutputError(
                "exists already", "choose another name, or remove it first", option="--output", value=output
            )
        ensure_writable(output.parent)
<<<<<<< HEAD
    lines = [to_line(document) for document in predict_arguments(arguments)]
=======
    lines = [to_line(document).rstrip() for document in predict_arguments(arguments)]
>>>>>>> b8b4084 (Numbers that are none are refused; patience over NaN; a wish to stop is forgotten when the metric improves)
    if output:
        atomic_write_text(output, "".join(lines))
        say(f"{len(lines)} documents in {output}")
    else:
        sys.stdout.write("".join(lines))
