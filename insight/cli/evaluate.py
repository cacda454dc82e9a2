"""``insight validate`` and ``insight test`` measure a checkpoint; ``predict`` scores each document."""

from __future__ import annotations

import sys
from pathlib import Path

from insight.cli.arguments import take_flag, take_option
from insight.cli.config_help import print_help
from insight.runtime.errors import ConfigError
from insight.runtime.files import atomic_write_text, ensure_writable, require_new
from insight.runtime.json_files import print_json, to_line
from insight.runtime.messages import say


def run(name: str, arguments: list[str]) -> int:
    """Run one of the three commands."""
    if print_help(name, arguments):
        return 0
    arguments, as_json = take_flag(arguments, "--json")
    if name == "predict":
        _predict(arguments)
        return 0

    from insight.api.evaluate import evaluate_arguments

    metrics = evaluate_arguments(name, arguments)
    if as_json:
        print_json(metrics)
    else:
        for metric, value in metrics.items():
            print(f"{metric:26} {value:.4f}")
    return 0


def _predict(arguments: list[str]) -> None:
    """Write one line of JSON per document, with or without ``--json``."""
    from insight.api.evaluate import predict_arguments

    arguments, given = take_option(arguments, "--output")
    if "" in given:
        raise ConfigError("--output: a value is missing", "see --help")
    output = Path(given[-1]) if given else None
    if output:
        require_new(output)
        ensure_writable(output.parent)
    lines = [to_line(document) for document in predict_arguments(arguments)]
    if output:
        atomic_write_text(output, "".join(lines))
        say(f"{len(lines)} documents in {output}")
    else:
        sys.stdout.write("".join(lines))
