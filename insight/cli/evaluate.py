"""``insight validate`` and ``insight test`` measure a checkpoint; ``predict`` scores each document."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from insight.api.config_files import option_value
from insight.runtime.errors import OutputError
from insight.runtime.files import atomic_write_text, ensure_writable
from insight.runtime.messages import say


def run(name: str, arguments: list[str]) -> int:
    """Run one of the three commands."""
    if name == "predict":
        _predict(arguments)
        return 0

    from insight.api.evaluate import evaluate_arguments

    metrics = evaluate_arguments(name, arguments)
    if option_value(arguments, "--json") is not None:
        print(json.dumps(metrics))
    else:
        for metric, value in metrics.items():
            print(f"{metric:26} {value:.4f}")
    return 0


def _predict(arguments: list[str]) -> None:
    from insight.api.evaluate import predict_arguments

    given = option_value(arguments, "--output")
    output = Path(given) if given else None
    if output:
        if output.exists():
            raise OutputError(f"--output={output} exists already", "choose another name, or remove it first")
        ensure_writable(output.parent)
    lines = [json.dumps(document) for document in predict_arguments(arguments)]
    if output:
        atomic_write_text(output, "".join(f"{line}\n" for line in lines))
        say(f"{len(lines)} documents in {output}")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
