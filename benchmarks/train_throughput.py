"""Training throughput of one decoder: Insight, litgpt and transformers, eager and compiled, fp32 and bf16.

Llama-style decoder (hidden 384, 6 layers, 6 heads, SwiGLU 1024, vocabulary 8192, sequence 256, batch 16),
fused AdamW, clipping at 1, on real text. Every measurement is a separate process; the contenders take turns
in a rotated order, and the table holds medians over the rounds. In addition ``insight fit`` is compared with
Insight's bare loop step by step in one process. An interrupted benchmark continues with the missing
measurements.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.begin import add_results_option, benchmark_parser, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, describe_machine, machine_identity, machine_line, today
from benchmarks.own.text import write_throughput_text
from benchmarks.peers.decoder_shape import throughput_shape
from benchmarks.processes import ROOT, find_python, module_command, run_process
from benchmarks.records import Record, Records, require_same_machine
from benchmarks.results_page import section, write_section
from benchmarks.throughput_tables import OVERHEAD, tables

OUTPUT = ROOT / "benchmarks" / "output" / "throughput"
CONTENDERS = {
    "Insight, Trainer": "insight",
    "Insight, bare loop": "benchmarks.own.loop",
    "litgpt 0.5.13, plain loop": "benchmarks.peers.litgpt_loop",
    "transformers 5.3.0, plain loop": "benchmarks.peers.transformers_loop",
    "transformers 5.3.0, Trainer": "benchmarks.peers.transformers_trainer",
}
LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


def main() -> None:
    """Run the missing measurements and print the table."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    write_throughput_text(output, throughput_shape().vocabulary_size)
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    require_same_machine(output, machine_identity(machine), arguments.fresh)
    records = Records(output / "records.jsonl", ("contender", "precision", "mode", "round"))
    settings = [(precision, mode) for precision in arguments.precisions for mode in arguments.modes]
    keys = [key for key in _keys(arguments, settings) if arguments.fresh or not records.has(key)]
    if arguments.fresh:
        for contender in {key["contender"] for key in keys}:
            records.forget(contender=contender)
    deadline = Deadline(arguments.deadline)
    for index, key in enumerate(keys):
        if deadline.is_over():
            break
        print(f"[{index + 1}/{len(keys)}] ", end="", flush=True)
        _measure(records, key, output, arguments, machine["num_threads"])
    body = tables(records, tuple(CONTENDERS), settings)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.train_throughput --write-results"
        page = section("Training throughput", command, commit(), machine_line(machine), today(), body)
        write_section("train_throughput", page)


def _arguments() -> argparse.Namespace:
    only = "contenders, e.g. insight litgpt overhead"
    parser = benchmark_parser(__doc__, only=only, quick="one round of one step", minutes=120.0)
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured in each process")
    parser.add_argument("--min-steps", type=int, default=5, help="measured even if they take longer")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"], choices=("eager", "compiled"))
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that one process may take")
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.min_steps = 1, 0.0, 1
    return arguments


def _keys(arguments: argparse.Namespace, settings: list[tuple[str, str]]) -> Iterator[Record]:
    """All measurements, round by round, grouped by setting."""
    names = [name for name in (*CONTENDERS, OVERHEAD) if is_wanted(name, arguments.only)]
    for number in range(arguments.rounds):
        turn = number % max(1, len(names))
        for precision, mode in settings:
            for name in (*names[turn:], *names[:turn]):
                yield {"contender": name, "precision": precision, "mode": mode, "round": number}


def _measure(
    records: Records, key: Record, output: Path, arguments: argparse.Namespace, num_threads: int
) -> None:
    name = "-".join(str(value) for value in key.values()).replace(" ", "_").replace(",", "")
    # The first round compiles the kernels, and later rounds reuse them.
    kernels = output / "inductor" / name.rpartition("-")[0]
    if key["round"] == 0:
        shutil.rmtree(kernels, ignore_errors=True)
    outcome = run_process(
        _command(key, output, arguments, num_threads),
        output / "logs" / f"{name}.log",
        arguments.limit,
        {"TORCHINDUCTOR_CACHE_DIR": str(kernels), "OMP_NUM_THREADS": str(num_threads)},
    )
    label = f"{key['contender']}, {key['precision']} {key['mode']}"
    if outcome.result is None:
        print(f"{label}: {outcome.problem()}", flush=True)
        return
    records.add({**key, **outcome.result, "process_peak_bytes": outcome.peak_bytes, "commit": commit()})
    if key["contender"] == OVERHEAD:
        print(f"{label}: {outcome.result['overhead']:+.1%}", flush=True)
    else:
        print(f"{label}: {outcome.result['tokens_per_second']:,.0f} tokens/s", flush=True)


def _command(key: Record, output: Path, arguments: argparse.Namespace, num_threads: int) -> list[str]:
    module = CONTENDERS.get(key["contender"], "insight")
    if module == "insight":
        return _insight_fit(key, output, arguments, num_threads)
    python = (
        Path(sys.executable) if module.startswith("benchmarks.own") else find_python(arguments.peers_python)
    )
    return module_command(
        python,
        module,
        *("--tokens", str(output / "tokens.npy")),
        *("--precision", key["precision"], "--mode", key["mode"]),
        *("--seconds", str(arguments.seconds), "--min-steps", str(arguments.min_steps)),
    )


def _insight_fit(key: Record, output: Path, arguments: argparse.Namespace, num_threads: int) -> list[str]:
    """The command ``insight fit`` with its defaults and a callback that measures the time."""
    overhead, compiled = key["contender"] == OVERHEAD, key["mode"] == "compiled"
    callback = "MeasureOverhead" if overhead else "MeasureSteps"
    options: dict[str, Any] = {
        "--run.root": output / "runs",
        "--run.num_threads": num_threads,
        "--data.cache_dir": output / "cache",
        "--data.tokenizer": "PretrainedTokenizerConfig",
        "--data.tokenizer.path": output / "tokenizer.json",
        "--trainer.precision": LIGHTNING_PRECISION[key["precision"]],
        "--model.compile": "on" if compiled else "off",
        "--trainer.callbacks+": f"benchmarks.own.clock_callbacks.{callback}",
        "--trainer.callbacks.seconds": arguments.seconds,
        "--trainer.callbacks.precision": key["precision"],
        "--trainer.callbacks.min_steps": arguments.min_steps,
    }
    if overhead:
        options["--trainer.callbacks.compiled"] = str(compiled).lower()
    flat = [f"{name}={value}" for name, value in options.items()]
    config = ROOT / "benchmarks" / "throughput.yaml"
    return module_command(sys.executable, "insight", "fit", "--config", str(config), *flat)


if __name__ == "__main__":
    main()
