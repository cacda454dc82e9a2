"""``insight validate`` and ``insight test`` measure a checkpoint; ``predict`` scores each document."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from insight.cli.arguments import take_flag, take_option
from insight.cli.config_help import print_help
from insight.runtime.errors import ConfigError
from insight.runtime.files import atomic_write_text, ensure_writable, require_new
from insight.runtime.json_files import print_json, to_line
from insight.runtime.messages import aligned, plain_line, say

if TYPE_CHECKING:
    from insight.training.translation_metrics import SystemDifference


def run(name: str, arguments: list[str]) -> int:
    """Run one of the three commands."""
    if print_help(name, arguments):
        return 0
    arguments, as_json = take_flag(arguments, "--json")
    if name == "predict":
        _predict(arguments)
        return 0

    from insight.api.evaluate import evaluate_arguments, test_against

    given: list[str] = []
    if name == "test":
        arguments, given = take_option(arguments, "--against")
    if "" in given:
        raise ConfigError("--against: a value is missing", "name a run that was tested")
    differences: dict[str, SystemDifference] = {}
    if given:
        metrics, differences = test_against(arguments, given[-1])
    else:
        metrics = evaluate_arguments(name, arguments)
    if as_json:
        print_json({**metrics, "against": differences} if given else metrics)
        return 0
    for metric, value in metrics.items():
        print(f"{metric:26} {value:.4f}")
    if given:
        print(f"\nagainst {plain_line(given[-1])}, on the same sentences:")
        print(_comparison(differences))
    return 0


def _comparison(differences: Mapping[str, SystemDifference]) -> str:
    rows = [("", "against", "this", "difference", "p (randomisation)", "p (bootstrap)")]
    for metric, one in differences.items():
        scores = f"{one.first:.2f}", f"{one.other:.2f}", f"{one.other - one.first:+.2f}"
        rows.append((metric, *scores, f"{one.p_value:.4f}", f"{one.bootstrap_p_value:.4f}"))
    return aligned(rows)


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
