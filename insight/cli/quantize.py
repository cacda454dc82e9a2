"""``insight quantize``: measure ways to compress a model on this machine and write the best one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from insight.cli.arguments import CommandParser
from insight.cli.commands import COMMANDS
from insight.optimization.config import METHODS
from insight.runtime.errors import OutputError
from insight.runtime.files import ensure_writable
from insight.runtime.messages import say, silence_libraries
from insight.runtime.run_folder import run_of_checkpoint

if TYPE_CHECKING:
    from insight.optimization.candidates import Candidate
    from insight.optimization.search import SearchResult

_COLUMNS = ("", "bits/byte", "loss", "surely below", "MB", "new tokens/s", "prompt ms", "compile s")


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    silence_libraries()
    result = quantize(
        options.checkpoint,
        options.output,
        method=options.method,
        compile=options.compile,
        dtype=options.dtype,
        group_size=options.group_size,
        max_quality_loss=options.max_quality_loss,
        seconds=options.seconds,
        device=options.device,
        config=options.config,
    )
    if options.json:
        print(json.dumps(result.to_record()))
    else:
        print(table(result))
        print(f"\n{result.reason}")
        print(f"{options.output}  (more: insight benchmark {options.checkpoint} {options.output})")
    return 0


def quantize(
    checkpoint: str | Path,
    output: str | Path,
    *,
    method: str = "auto",
    compile: str = "auto",
    dtype: str | None = None,
    group_size: int | None = None,
    max_quality_loss: float = 0.005,
    seconds: float = 45.0,
    device: str = "cpu",
    config: str | Path | None = None,
) -> SearchResult:
    """Compress a model as ``insight quantize`` does, from Python.

    Args:
        checkpoint: A run folder or a ``.ckpt`` file.
        output: The folder to write; must not exist.
        method: One method, or ``auto`` to choose among all and leaving the model alone.
        compile: ``auto`` tries eager and compiled, ``on`` and ``off`` one of them.
        dtype: Of what stays floating point in an int8 model; ``None`` takes what is fast here.
        group_size: Inputs that share a scale in ``int8_weight_only``; ``None`` = one scale an output.
        max_quality_loss: Share of the bits per byte that may be lost.
        seconds: Time for measuring, compiling included.
        device: Where the model is quantized and measured.
        config: Configuration that names the text, for a checkpoint outside of a run folder.

    Raises:
        InsightError: As the command would print.
    """
    output = Path(output)
    if output.exists():
        raise OutputError(f"--output={output} exists already", "choose another name, or remove it first")
    ensure_writable(output.parent)

    from insight.optimization.config import plan

    configs = plan(method, compile, dtype, group_size)

    from insight.api.evaluate import cli_for_checkpoint
    from insight.optimization import Calibration, QuantizationSearch
    from insight.optimization.measurement.text import MeasuredText
    from insight.optimization.search import write_result
    from insight.runtime.device import usable_device

    place = usable_device(device)
    options = [] if config is None else ["--config", str(config)]
    cli, path, loaded = cli_for_checkpoint("validate", ["--checkpoint", str(checkpoint), *options])
    loaded.network.to(place)
    cli.datamodule.setup("fit")
    length = loaded.metadata["sequence_length"]
    search = QuantizationSearch(
        loaded,
        MeasuredText.of(cli.datamodule.store("validation"), loaded.tokenizer, length),
        Calibration.from_store(cli.datamodule.store("train"), length),
        max_quality_loss,
        seconds,
    )
    say(f"quantize: {len(configs)} candidates in about {seconds:.0f} s")
    result = search.run(configs, may_keep=method == "auto")
    run = run_of_checkpoint(path)
    write_result(result, output, Path(config) if config else run.config_path if run else None)
    return result


def table(result: SearchResult) -> str:
    """The candidates as text, those on the front marked, the refused ones with their reasons."""
    original = result.candidates[0]
    rows = [_COLUMNS, *(_row(one, original) for one in result.candidates if one.status == "ok")]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [_line(row, widths) for row in rows]
    lines.append("* nothing else is at least as good in quality, size and speed and better in one")
    lines += [f"  {one.name}: {one.reason}" for one in result.candidates if one.status != "ok"]
    return "\n".join(lines)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    name, *numbers = row
    cells = [name.ljust(widths[0]), *(map(str.rjust, numbers, widths[1:]))]
    return "  ".join(cells).rstrip()


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


def _parser() -> CommandParser:
    parser = CommandParser(prog="insight quantize", description=COMMANDS["quantize"].summary)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="RUN|CKPT",
        help="a run folder (its best checkpoint) or a .ckpt file",
    )
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="where to write the model; must not exist"
    )
    parser.add_argument(
        "--method",
        choices=["auto", *METHODS],
        default="auto",
        help="auto measures all and takes the best, which may be to leave the model alone (default: auto)",
    )
    parser.add_argument(
        "--compile",
        choices=["auto", "on", "off"],
        default="auto",
        help="run the result through torch.compile; auto tries both (default: auto)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="type of what stays floating point in an int8 model (default: what is fast here)",
    )
    parser.add_argument(
        "--group-size",
        "--group_size",
        type=int,
        metavar="N",
        help="inputs that share a scale in int8_weight_only (default: one scale an output)",
    )
    parser.add_argument(
        "--max-quality-loss",
        "--max_quality_loss",
        type=float,
        default=0.005,
        metavar="SHARE",
        help="share of the bits per byte that may surely be lost (default: 0.005)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=45.0,
        metavar="S",
        help="time for measuring, compiling included (default: 45)",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="where to quantize and measure (default: cpu)"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration that names the text, for a checkpoint outside of a run folder",
    )
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    return parser
