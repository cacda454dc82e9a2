"""The quickstart's model compressed: Insight, torchao's bare ``quantize_``, torch's ``quantize_dynamic``.

Every contender is made once, in a separate process, and then measured in fresh processes that only load it:
bytes on the disk, growth of resident memory while loading, time to read a prompt of 128 tokens and to write
32 after it (batches of 1 and 8), and, in the first round, bits per byte on the test text. The contenders take
turns, in an order that is rotated from round to round; the table holds medians over the rounds. Compiled
peers are compiled like Insight's models. An interrupted benchmark continues with the missing measurements;
use --fresh to start over after a change of the code.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.begin import add_results_option, begin, benchmark_parser, in_turns, is_wanted
from benchmarks.deadline import Deadline
from benchmarks.machine import commit, machine_line, today
from benchmarks.processes import ROOT, Outcome, module_command, run_process
from benchmarks.records import Record, Records
from benchmarks.results_page import section, table, write_section

OUTPUT = ROOT / "benchmarks" / "output" / "compression"
_TRAINING_LIMIT = 900.0


@dataclass(frozen=True)
class Contender:
    """One way to run the model; ``kind`` is the project, as named in ``benchmarks.own.compressed_model``."""

    name: str
    kind: str
    method: str
    compiled: bool


def _contenders() -> Iterator[Contender]:
    names = [("as trained", "original", "")]
    names += [
        (f"Insight {method}", "insight", method)
        for method in ("bf16", "int8_weight_only", "int8_dynamic", "int8_static")
    ]
    names += [
        (f"torchao {config}", "torchao", config)
        for config in ("Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig")
    ]
    for name, kind, method in names:
        yield Contender(name, kind, method, compiled=False)
        yield Contender(f"{name}, compiled", kind, method, compiled=True)
    yield Contender("torch.ao quantize_dynamic", "torch.ao", "", compiled=False)  # cannot be compiled


def main() -> None:
    """Run the missing measurements and print the table."""
    arguments = _arguments()
    output = OUTPUT / "quick" if arguments.quick else OUTPUT
    machine, records = begin(output, ("contender", "round"), arguments.fresh)
    if arguments.fresh:
        shutil.rmtree(output / "models", ignore_errors=True)
    checkpoint = arguments.checkpoint or _train(output, arguments.quick)
    chosen = [contender for contender in _contenders() if is_wanted(contender.name, arguments.only)]
    deadline, failures = Deadline(arguments.deadline), {}
    for number, contender in in_turns(chosen, arguments.rounds):
        if records.has({"contender": contender.name, "round": number}) or contender.name in failures:
            continue
        if deadline.is_over():
            break
        problem = _measure(records, contender, number, checkpoint, output, arguments, machine["num_threads"])
        if problem:
            failures[contender.name] = problem
            print(f"{contender.name}: {problem}", flush=True)
    body = _body(records, [contender.name for contender in chosen], failures)
    print(f"\n{body}")
    if arguments.write_results:
        command = "python -m benchmarks.compression --write-results"
        title = "Compressing the quickstart's model"
        page = section(title, command, commit(), machine_line(machine), today(), body)
        write_section("compression", page)


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(
        __doc__, only="contenders, e.g. insight torchao", quick="a tiny model and one round", minutes=90.0
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="a .ckpt of a run folder; the quickstart is trained if not given"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring speed in each process")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that one process may take")
    add_results_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.0
    return arguments


def _train(output: Path, quick: bool) -> Path:
    """The checkpoint of a quickstart, which is trained once and kept."""
    best = output / "runs" / "quickstart" / "1" / "checkpoints" / "best.ckpt"
    if not best.exists():
        options = [f"--run.root={output / 'runs'}", f"--data.cache_dir={output / 'cache'}"]
        options += ["--trainer.callbacks=[]"]  # nothing after the training is needed
        if quick:
            options += ["--run.time_budget=null", "--trainer.max_steps=5", "--trainer.val_check_interval=5"]
            options += ["--model.network.hidden_size=64", "--model.network.num_layers=1"]
            options += ["--run.test=false"]
        command = module_command(sys.executable, "insight", "fit", "--config", "quickstart", *options)
        outcome = run_process(command, output / "logs" / "train.log", _TRAINING_LIMIT)
        if outcome.exit_code != 0 or not best.exists():
            raise SystemExit(f"quickstart: {outcome.problem()}")
    return best


def _measure(
    records: Records,
    contender: Contender,
    number: int,
    checkpoint: Path,
    output: Path,
    arguments: argparse.Namespace,
    num_threads: int,
) -> str:
    """Make the contender if it is missing, measure it and record the result; returns the problem."""
    name = contender.name.replace(" ", "_").replace(",", "")
    folder = output / "models" / name
    options = ["--kind", contender.kind, "--method", contender.method]
    options += ["--checkpoint", str(checkpoint), "--folder", str(folder)]
    options += ["--compiled"] if contender.compiled else []

    def run(task: str, *more: str) -> Outcome:
        return run_process(
            module_command(sys.executable, "benchmarks.own.compressed_model", task, *options, *more),
            output / "logs" / f"{name}-{task}-{number}.log",
            arguments.limit,
            {"OMP_NUM_THREADS": str(num_threads)},
        )

    if not folder.exists():
        made = run("make")
        if made.result is None:
            shutil.rmtree(folder, ignore_errors=True)
            return made.problem()
    measured = run("measure", "--seconds", str(arguments.seconds), *(() if number else ("--quality",)))
    if measured.result is None:
        return measured.problem()
    records.add({"contender": contender.name, "round": number, **measured.result, "commit": commit()})
    rate = measured.result["tokens_per_second_1"]
    print(f"round {number + 1}, {contender.name}: {rate:,.0f} tokens/s", flush=True)
    return ""


def _body(records: Records, names: list[str], failures: dict[str, str]) -> str:
    found = {name: records.select(contender=name) for name in names}
    base = _bits(found.get(names[0], [])) if names else None
    rows = [_row(name, found[name], base) for name in names if found[name]]
    header = ("", "disk MB", "memory MB", "prefill ms", "a token ms", "tokens/s", "tokens/s, batch 8")
    parts = [table((*header, "bits per byte", "loss"), rows)]
    parts.append(
        f"Medians over {_num_rounds(found)} rounds of medians in fresh processes, least and greatest in"
        " brackets. Memory: growth of the process while the model is loaded. Prefill: 128 tokens, batch 1."
        " A token: a step of writing after them. Loss: bits per byte"
        " above the model as trained. Compiled: the blocks by torch.compile, Insight's way for all."
        " Insight's int8 and torchao's keep the rest in the type that was measured to be faster here;"
        " quantize_dynamic is torch's deprecated one, in float32."
    )
    parts += [f"Did not run: {name}: {problem}" for name, problem in failures.items()]
    return "\n\n".join(parts)


def _row(name: str, found: list[Record], base: float | None) -> list[str]:
    def median(field: str) -> float:
        return statistics.median(record[field] for record in found)

    def spread(field: str, scale: float = 1.0, digits: int = 0) -> str:
        values = [record[field] * scale for record in found]
        if len(values) == 1:
            return f"{values[0]:,.{digits}f}"
        shown = [f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))]
        return "{} ({}–{})".format(*shown)

    bits = _bits(found)
    return [
        name,
        f"{median('disk_bytes') / 1e6:.1f}",
        f"{median('model_resident_bytes') / 1e6:.0f}",
        spread("prefill_seconds_1", 1e3, 1),
        spread("decode_seconds_1", 1e3, 2),
        spread("tokens_per_second_1"),
        spread("tokens_per_second_8"),
        f"{bits:.4f}" if bits else "–",
        f"{bits / base - 1:+.2%}" if bits and base else "–",
    ]


def _num_rounds(found: dict[str, list[Record]]) -> int:
    return max((len(records) for records in found.values()), default=0)


def _bits(found: list[Record]) -> float | None:
    return next((record["bits_per_byte"] for record in found if "bits_per_byte" in record), None)


if __name__ == "__main__":
    main()
