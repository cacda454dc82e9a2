"""The quickstart with every attention of ``configs/attention/``, trained for equal wall time.

Each run is ``insight fit --config quickstart --config attention/NAME`` with only a validation after the
training. Imports and encoding count in the time; the tokenizer and the token ids are made before. The
variants take turns, so that a slow hour of the machine affects all. The table goes into
``docs/attention.md``. An interrupted benchmark continues with the missing measurements; use --fresh to start
over after a change of the code.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.begin import begin, benchmark_parser
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.processes import ROOT, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section
from insight.reporting import read_metrics

OUTPUT = ROOT / "benchmarks" / "output" / "attention_quality"
CONFIGS = ROOT / "configs" / "attention"
PAGE = ROOT / "docs" / "attention.md"
# The quickstart's own attention, which the others are compared with.
_BASE = "grouped_query"
_QUICK = (
    "--run.time_budget=null",
    "--trainer.max_steps=5",
    "--trainer.val_check_interval=5",
    "--trainer.limit_val_batches=2",
    "--trainer.log_every_n_steps=1",
    "--model.network.hidden_size=64",
    "--model.network.num_layers=2",
)


def main() -> None:
    """Run the missing measurements and print the table."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("config", "round", "seconds"), arguments.fresh)
    names = [path.stem for path in sorted(CONFIGS.glob("*.yaml"))]
    names = [name for name in names if not arguments.only or name in arguments.only]
    deadline, failures = Deadline(arguments.deadline), {}
    for number in range(arguments.rounds):
        for name in names:
            key = {"config": name, "round": number, "seconds": arguments.seconds}
            if records.has(key) or name in failures:
                continue
            if deadline.is_over():
                break
            found = _measure(name, number, output, arguments, machine["num_threads"])
            if isinstance(found, str):
                failures[name] = found
                print(f"{name}: {found}", flush=True)
                continue
            records.add({**key, **found, "commit": commit()})
            print(f"{name}: {found['bits_per_byte']:.4f} bits per byte", flush=True)
    body = _body(records, names, failures, arguments.seconds)
    print(f"\n{body}")
    if arguments.write_docs:
        command = "python -m benchmarks.attention_quality --write-docs"
        page = section("Measured", command, _commits(records), machine_line(machine), today(), body)
        write_section("attention_quality", page, PAGE)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(
        __doc__, only="configs, e.g. latent alibi", quick="five steps of tiny ones", minutes=60.0
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of wall time for each")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, with a seed of its own")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/attention.md")
    return parser.parse_args()


def _measure(
    name: str, number: int, output: Path, arguments: argparse.Namespace, num_threads: int
) -> Record | str:
    """Train one variant; returns the measurement, or the problem."""
    runs = output / "runs" / name
    shutil.rmtree(runs, ignore_errors=True)
    options = [
        f"--config=attention/{name}",
        f"--run.root={output / 'runs'}",
        f"--run.name={name}",
        f"--run.time_budget={arguments.seconds:g}",
        f"--run.num_threads={num_threads}",
        f"--data.cache_dir={output / 'cache'}",
        f"--seed={number}",
        "--run.test=false",
        "--trainer.callbacks=[]",  # nothing after the training is measured
        "--trainer.val_check_interval=1000000",  # validates once, at the end of training
        *(_QUICK if arguments.quick else ()),
    ]
    if not (output / "cache").exists():
        _fill_cache(output, options)
    command = module_command(sys.executable, "insight", "fit", "--config=quickstart", *options)
    log = output / "logs" / f"{name}-{number}.log"
    outcome = run_process(command, log, 3 * arguments.seconds + 120)
    if outcome.exit_code != 0:
        return outcome.problem()
    metrics = read_metrics(runs / "1" / "metrics.jsonl")
    bits = [record["validation/bits_per_byte"] for record in metrics if "validation/bits_per_byte" in record]
    rates = [r["throughput/tokens_per_second"] for r in metrics if "throughput/tokens_per_second" in r]
    if not bits or not rates:
        return f"no validation or no rate was logged ({log})"
    return {
        "bits_per_byte": bits[-1],
        "tokens_per_second": statistics.median(rates),
        "num_steps": metrics[-1]["step"],
        "peak_bytes": outcome.peak_bytes,
        "wall_seconds": outcome.seconds,
    }


def _fill_cache(output: Path, options: list[str]) -> None:
    """Make tokenizer and token ids before the first measurement."""
    command = module_command(sys.executable, "insight", "fit", "--config=quickstart", *options)
    warm = ["--run.name=cache", "--run.time_budget=null", "--trainer.max_steps=1"]
    outcome = run_process([*command, *warm], output / "logs" / "cache.log", 300)
    if outcome.exit_code != 0:
        raise SystemExit(f"cache: {outcome.problem()}")


def _body(records: Records, names: list[str], failures: dict[str, str], seconds: float) -> str:
    found = {name: records.select(config=name, seconds=seconds) for name in names}
    base = _mean(found.get(_BASE, []), "bits_per_byte")
    ranked = sorted((name for name in names if found[name]), key=lambda n: _mean(found[n], "bits_per_byte"))
    rows = [_row(name, found[name], base) for name in ranked]
    parts = [table(("`configs/attention/`", "bits per byte", "loss", "tokens/s", "steps", "peak GB"), rows)]
    rounds = max((len(runs) for runs in found.values()), default=0)
    parts.append(
        f"The quickstart's network and settings, {seconds:g} s of wall time each (start-up included), bits"
        f" per byte on the validation text; {rounds} run{'s' if rounds > 1 else ''} each"
        f"{', means' if rounds > 1 else ''}. Loss: above {_BASE}, the quickstart's own. Peak: of the process."
        " The settings were tuned for the quickstart's attention, so small differences say nothing."
    )
    parts += [f"Did not run: {name}: {problem}" for name, problem in failures.items()]
    return "\n\n".join(parts)


def _row(name: str, found: list[Record], base: float) -> list[str]:
    bits = _mean(found, "bits_per_byte")
    return [
        name,
        f"{bits:.4f}",
        f"{round(bits / base - 1, 3) + 0.0:+.1%}" if base == base else "–",
        f"{_mean(found, 'tokens_per_second'):,.0f}",
        f"{_mean(found, 'num_steps'):,.0f}",
        f"{_mean(found, 'peak_bytes') / 1e9:.2f}",
    ]


def _mean(found: list[Record], field: str) -> float:
    return statistics.fmean(record[field] for record in found) if found else float("nan")


def _commits(records: Records) -> str:
    return ", ".join(sorted({record["commit"] for record in records.select()})) or commit()


if __name__ == "__main__":
    main()
