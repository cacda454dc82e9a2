"""``insight benchmark``: models side by side — quality, size, memory, load time and speed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from insight.api.benchmark import ComparisonSettings, benchmark, compare
from insight.cli.arguments import CommandParser, add_parameters, chosen
from insight.cli.commands import COMMANDS
from insight.runtime.formats import format_bytes, format_difference, format_latency, safe_text
from insight.runtime.json_files import print_json, read_object
from insight.runtime.messages import aligned, silence_libraries

if TYPE_CHECKING:
    from insight.optimization.measurement import Comparison, ModelMeasurement

_NAME_CHARACTERS = 60
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
    about = f"{COMMANDS['benchmark'].summary}\n\n{_DESCRIPTION}"
    plain = argparse.RawDescriptionHelpFormatter
    parser = CommandParser(prog="insight benchmark", description=about, formatter_class=plain)
    add_parameters(parser, benchmark, positional=("models",))
    add_parameters(parser, ComparisonSettings)
    parser.add_argument("--json", action="store_true", help="print summary.json instead of tables")
    options = parser.parse_args(arguments)
    settings = ComparisonSettings(**chosen(options, ComparisonSettings))
    silence_libraries()
    comparison, folder = compare(options.models, options.output, options.text or (), settings)
    if options.json:
        print_json(read_object(folder / "summary.json"))
    else:
        print(tables(comparison))
        print(f"\n{folder / 'report.html'}")
    return 0


def tables(comparison: Comparison) -> str:
    """The results for a terminal: one table of quality and size, one of speed."""
    sizes: list[Sequence[str]] = [
        ("model", "bits/byte", "more than the first (95%)", "weights", "on disk", "memory", "load")
    ]
    speeds: list[Sequence[str]] = [("model", "batch", "prefill p50", "p95", "step p50", "p95", "tokens/s")]
    for model in comparison.models:
        name, footprint = safe_text(model.label, _NAME_CHARACTERS), model.footprint
        sized = map(format_bytes, (model.weight_bytes, footprint.disk_bytes, footprint.resident_bytes))
        quality = (f"{model.quality.bits_per_byte:.4f}", _difference(model))
        sizes.append((name, *quality, *sized, format_latency(footprint.load_seconds)))
        for speed in model.speeds:
            prefill = (speed.prefill_seconds_p50, speed.prefill_seconds_p95)
            decode = (speed.decode_seconds_p50, speed.decode_seconds_p95)
            seconds = map(format_latency, (*prefill, *decode))
            speeds.append((name, str(speed.batch_size), *seconds, f"{speed.tokens_per_second:,.0f}"))
    return f"{aligned(sizes)}\n\n{aligned(speeds)}"


def _difference(model: ModelMeasurement) -> str:
    difference = model.difference
    if difference is None:
        return ""
    value, low, high = map(format_difference, (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})"
