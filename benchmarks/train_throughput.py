"""Training throughput of one decoder: Insight, litgpt and transformers, eager and compiled, fp32 and bf16.

Llama-style decoder (hidden 384, 6 layers, 6 heads, SwiGLU 1024, vocabulary 8192, sequence 256, batch 16),
fused AdamW, clipping at 1, on real text. Every measurement is a process of its own; the contenders take
turns, and the table holds medians over the rounds. The last lines measure what Insight's Trainer adds to a
bare loop, step by step in one process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, describe_machine, machine_line, today
from benchmarks.own.text import write_throughput_text
from benchmarks.peers.decoder_shape import throughput_shape
from benchmarks.processes import ROOT, find_python, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section

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
    """Measure what is missing and print the table."""
    arguments = _arguments()
    shape = throughput_shape()
    write_throughput_text(OUTPUT, shape.vocabulary_size)
    peers_python = find_python(arguments.peers_python)
    records = Records(OUTPUT / "records.jsonl", ("contender", "precision", "mode", "round"))
    if arguments.fresh:
        records.forget()
    machine = describe_machine()
    print(machine_line(machine), flush=True)
    cells = [(precision, mode) for precision in arguments.precisions for mode in arguments.modes]
    for number in range(arguments.rounds):
        for precision, mode in cells:
            for contender, module in CONTENDERS.items():
                if arguments.only and not any(name in contender.lower() for name in arguments.only):
                    continue
                key = {"contender": contender, "precision": precision, "mode": mode, "round": number}
                if not records.has(key):
                    _measure(records, key, module, peers_python, arguments)
    overheads = [_overhead(precision, arguments) for precision in arguments.precisions]
    body = _table(records, machine, cells) + "\n\n" + "\n".join(filter(None, overheads))
    print(body)
    if arguments.write_results:
        command = "python -m benchmarks.train_throughput --write-results"
        page = section("Training throughput", command, commit(), machine_line(machine), today(), body)
        write_section("train_throughput", page)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-bench/bin/python"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured in each process")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"], choices=("eager", "compiled"))
    parser.add_argument("--only", nargs="+", help="contenders, e.g. insight litgpt")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds that one process may take")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--write-results", action="store_true", help="put the table into RESULTS.md")
    return parser.parse_args()


def _measure(
    records: Records, key: Record, module: str, peers_python: Path, arguments: argparse.Namespace
) -> None:
    log = OUTPUT / "logs" / f"{'-'.join(str(value) for value in key.values())}.log".replace(" ", "_")
    if module == "insight":
        command = _insight_fit(key["precision"], key["mode"], arguments, "MeasureSteps")
    else:
        python = Path(sys.executable) if module.startswith("benchmarks.own") else peers_python
        command = module_command(
            python,
            module,
            *("--tokens", str(OUTPUT / "tokens.npy")),
            *("--precision", key["precision"], "--mode", key["mode"]),
            *("--seconds", str(arguments.seconds)),
        )
    outcome = run_process(command, log, arguments.limit)
    name = f"{key['contender']}, {key['precision']} {key['mode']}"
    if outcome.result is None:
        print(f"{name}: {outcome.problem()}", flush=True)
        return
    records.add({**key, **outcome.result, "process_peak_bytes": outcome.peak_bytes})
    print(f"{name}: {outcome.result['tokens_per_second']:,.0f} tokens/s", flush=True)


def _insight_fit(precision: str, mode: str, arguments: argparse.Namespace, callback: str) -> list[str]:
    options: dict[str, Any] = {
        "--run.root": OUTPUT / "runs",
        "--data.tokenizer": "PretrainedTokenizerConfig",
        "--data.tokenizer.path": OUTPUT / "tokenizer.json",
        "--trainer.precision": LIGHTNING_PRECISION[precision],
        "--model.compile": "on" if mode == "compiled" else "off",
        "--trainer.callbacks+": f"benchmarks.own.clock_callbacks.{callback}",
        "--trainer.callbacks.seconds": arguments.seconds,
        "--trainer.callbacks.precision": precision,
    }
    if callback == "MeasureOverhead":
        options["--trainer.callbacks.compiled"] = str(mode == "compiled").lower()
    flat = [f"{name}={value}" for name, value in options.items()]
    config = ROOT / "benchmarks" / "throughput.yaml"
    return module_command(sys.executable, "insight", "fit", "--config", str(config), *flat)


def _overhead(precision: str, arguments: argparse.Namespace) -> str:
    if arguments.only and "insight" not in arguments.only:
        return ""
    ratios = []
    for number in range(arguments.rounds):
        command = _insight_fit(precision, "eager", arguments, "MeasureOverhead")
        outcome = run_process(
            command, OUTPUT / "logs" / f"overhead-{precision}-{number}.log", arguments.limit
        )
        if outcome.result is None:
            print(f"overhead, {precision}: {outcome.problem()}", flush=True)
        else:
            ratios.append(outcome.result["overhead"])
    if not ratios:
        return ""
    each = ", ".join(f"{ratio:+.1%}" for ratio in ratios)
    return (
        f"Insight's Trainer over its bare loop, {precision} eager, steps taken in turn in one process: "
        f"{statistics.median(ratios):+.1%} (rounds: {each})."
    )


def _table(records: Records, machine: dict[str, Any], cells: list[tuple[str, str]]) -> str:
    flops = throughput_shape().flops_per_token()
    rows = []
    for precision, mode in cells:
        for contender in CONTENDERS:
            found = records.select(contender=contender, precision=precision, mode=mode)
            if not found:
                continue
            rates = [record["tokens_per_second"] for record in found]
            rate = statistics.median(rates)
            ceiling = statistics.median(record["matmul_flops"] for record in found)
            rows.append(
                [
                    f"{precision} {mode}: {contender}",
                    f"{rate:,.0f}",
                    f"{min(rates):,.0f}–{max(rates):,.0f}",
                    f"{rate * flops / ceiling:.2f}",
                    f"{statistics.median(r['peak_bytes'] for r in found) / 2**30:.2f}",
                    f"{statistics.median(r['first_step_seconds'] for r in found):.1f}",
                    str(len(found)),
                ]
            )
    header = ("", "tokens/s", "range", "share of matmul rate", "peak GiB", "first step s", "rounds")
    return table(header, rows)


if __name__ == "__main__":
    main()
